#!/usr/bin/env bash
# Makes this machine the one in front of the brokers: installs the package mqtt-mesh-host with its Nginx, the clients that
# the other scripts use, Multipass, and makes the bridge that the brokers' virtual machines are on. What is there already
# stays; nothing is started. On a Mac that machine is a virtual one, mesh-host, which is made first.
#
#   ./deploy/setup-environment.sh [--packages DIR] [--no-multipass]
#
# --packages DIR   where the packages are (deploy/build-packages.sh makes them); else they are built
# --no-multipass   the brokers' machines are others, for deploy-brokers.sh --ssh
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_setup "$@"

packages=''
multipass=yes
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --packages)
      packages=${2:?--packages needs a folder}
      shift
      ;;
    --no-multipass) multipass='' ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done
found apt-get || fail "packages for this system are not made yet; use a Debian or Ubuntu"
[ -d /run/systemd/system ] || fail "systemd does not run here, and the services need it"

# need_multipass: only the snap is to be had on Linux.
need_multipass() {
  found multipass && return 0
  found snap || install snapd
  as_root snap install multipass || fail "the snap multipass cannot be installed, see above; install Multipass and run this again"
  found multipass || fail "multipass is not in the PATH yet; log in again and run this again"
}

# refuse_routed: a network that is used elsewhere would be cut off by ours.
refuse_routed() {
  local routes
  routes=$(ip -4 route show to match "$(host_address)" | grep -v -e '^default ' -e " dev $vm_bridge " || true)
  [ -z "$routes" ] || fail "the brokers' network is routed elsewhere already: $routes; give them other addresses in $mesh_toml"
}

# make_bridge: now and at each boot.
make_bridge() {
  local unit=/etc/systemd/system/mesh-bridge.service ip
  ip=$(command -v ip)
  as_root tee "$unit.new" >/dev/null <<END
# The bridge that the brokers' virtual machines are on; made by setup-environment.sh, removed by teardown.sh.
[Unit]
Description=mesh-bridge: the network of the MQTT brokers' virtual machines
Before=mesh-nginx.service mesh-health.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=$ip link add $vm_bridge type bridge
ExecStart=$ip address add $(host_address)/24 dev $vm_bridge
ExecStart=$ip link set $vm_bridge up
ExecStop=$ip link delete $vm_bridge

[Install]
WantedBy=multi-user.target
END
  if as_root cmp --quiet "$unit.new" "$unit"; then
    as_root rm "$unit.new"
  else
    as_root mv "$unit.new" "$unit"
    as_root systemctl daemon-reload
  fi
  as_root systemctl enable --quiet --now mesh-bridge || fail "the bridge $vm_bridge cannot be made; see systemctl status mesh-bridge"
  say "$vm_bridge has $(host_address)"
}

if [ -n "$multipass" ]; then steps 4; else steps 3; fi
step "Looking for the packages"
if [ -z "$packages" ]; then
  packages=${CARGO_TARGET_DIR:-$checkout/target}/debian
  "$checkout/deploy/build-packages.sh"
fi
host=$(package_in "$packages" mqtt-mesh-host "$(dpkg --print-architecture)")
say "$host"
step "Installing them"
need_mosquitto_clients
if is_installed mqtt-mesh-host "$(dpkg-deb --field "$host" Version)"; then
  say "mqtt-mesh-host is installed in this version already"
else
  install "$host"
fi
step "Checking $mesh_toml"
need_mesh
say "$(as_root meshctl check --config "$mesh_toml")"
if [ -n "$multipass" ]; then
  step "Looking for Multipass, and making the brokers' network"
  need_multipass
  render
  refuse_routed
  make_bridge
fi
say "next: where the brokers are belongs into $mesh_toml; then ./deploy/deploy-brokers.sh"
