#!/usr/bin/env bash
# Makes a broker of the mesh of each machine that mesh.toml names: virtual machines of Multipass, which are made or
# mended as needed, or Debian and Ubuntu hosts that answer over ssh. They are changed one at a time, who serves last, and
# only where something differs; each has to pass messages to and from the others before the next one's turn.
#
#   ./deploy/deploy-brokers.sh [--ssh USER] [--packages DIR] [BROKER…]
#
# --ssh USER       hosts that are there, by ssh as this user: root, or one who may use sudo without a password
# --packages DIR   where the packages are; else target/debian
# BROKER           only these
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"
# shellcheck source=deploy/lib/packages.sh
. "$checkout/deploy/lib/packages.sh"
# shellcheck source=deploy/lib/brokers.sh
. "$checkout/deploy/lib/brokers.sh"
# shellcheck source=deploy/lib/multipass.sh
. "$checkout/deploy/lib/multipass.sh"
# shellcheck source=deploy/lib/journals.sh
. "$checkout/deploy/lib/journals.sh"

packages=${CARGO_TARGET_DIR:-$checkout/target}/debian
named=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --ssh)
      ssh_user=${2:?--ssh needs a user}
      shift
      ;;
    --packages)
      packages=${2:?--packages needs a folder}
      shift
      ;;
    -*) fail "unknown option $1; see --help" ;;
    *) named+=("$1") ;;
  esac
  shift
done
[ -n "$ssh_user" ] || found multipass || fail "Multipass is not here; run ./deploy/setup-environment.sh, or give --ssh USER"

# reach BROKER: is it a machine that can be a broker?
reach() {
  if [ -z "$ssh_user" ]; then
    bring_up_vm "$1"
    return
  fi
  on_broker "$1" true </dev/null ||
    fail "$1 ($(address_of "$1")) cannot be used over ssh as $ssh_user; is it up, is the key there, sudo without a password?"
  on_broker "$1" sh -c 'command -v apt-get && command -v systemctl' >/dev/null </dev/null ||
    fail "$1 has no apt or no systemd; a broker's machine is a Debian or Ubuntu"
}

# install_plugin BROKER: the package with the plugin, if it is not there in this version.
install_plugin() {
  local broker=$1 architecture file version have
  architecture=$(on_broker "$broker" dpkg --print-architecture </dev/null)
  file=$(package_in "$packages" mqtt-mesh-broker "$architecture")
  version=$(dpkg-deb --field "$file" Version)
  have=$(on_broker "$broker" dpkg-query --show mqtt-mesh-broker 2>/dev/null </dev/null || true)
  [ "$have" != "$(printf 'mqtt-mesh-broker\t%s' "$version")" ] || return 0
  on_broker "$broker" tee /var/cache/mqtt-mesh-broker.deb <"$file" >/dev/null
  # apt looks at what the plugin needs: the C library, and a Mosquitto that it knows.
  {
    on_broker "$broker" apt-get update -q &&
      on_broker "$broker" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends /var/cache/mqtt-mesh-broker.deb
  } >"$log" 2>&1 </dev/null || {
    tail -n 10 "$log" >&2
    fail "the package cannot be installed on $broker; apt's last lines are above"
  }
  on_broker "$broker" rm /var/cache/mqtt-mesh-broker.deb </dev/null
  changed=yes
}

# is_configured BROKER: does it have the mosquitto.conf that follows from mesh.toml?
is_configured() {
  local wanted
  wanted=$(as_root sha256sum "$rendered/$1/mosquitto.conf" | cut -d ' ' -f 1)
  [ "$(on_broker "$1" sha256sum /etc/mesh/mosquitto.conf 2>/dev/null </dev/null | cut -d ' ' -f 1)" = "$wanted" ]
}

# configure BROKER: its mosquitto.conf, for root and Mosquitto only, if it has another.
configure() {
  ! is_configured "$1" || return 0
  as_root cat "$rendered/$1/mosquitto.conf" | on_broker "$1" sh -c '
    umask 077
    cd /etc/mesh
    cat >mosquitto.conf.new && chgrp mosquitto mosquitto.conf.new && chmod 640 mosquitto.conf.new &&
      mv mosquitto.conf.new mosquitto.conf' || fail "the configuration cannot be written on $1"
  changed=yes
}

# hand_over BROKER: if it serves, its clients go to another first, and come only that one time.
hand_over() {
  [ "$(primary)" = "$1" ] || return 0
  say "$1 serves; its clients go to another broker first"
  meshctl drain --config "$mesh_toml" "$1" >/dev/null || fail "$1 serves, and no other broker can; bring one up first"
  within 120 is_drained "$1" || fail "$1 did not hand over its clients within two minutes; see meshctl status"
}

is_drained() {
  status_row "$1" | grep -q 'draining, 0 sessions left'
}

# restart BROKER: and wait until it takes connections.
restart() {
  on_broker "$1" systemctl restart mosquitto </dev/null || true
  within 30 answers "$1" || {
    on_broker "$1" journalctl --quiet --unit mosquitto --lines 5 --output cat </dev/null >&2 || true
    fail "$1 does not take connections at $(address_of "$1"):$(port_of "$1"); what Mosquitto said last is above"
  }
}

# is_in_step BROKER: messages pass between it and every other broker that answers.
is_in_step() {
  local other
  for other in $(inventory | sed 's/ .*//'); do
    if [ "$other" = "$1" ] || ! answers "$other"; then continue; fi
    passes "$other" "$1" || fail "messages do not pass from $other to $1; see journalctl -u mosquitto on $1"
    # The link from here is the other's, which may have its turn still to come.
    ! is_configured "$other" || passes "$1" "$other" ||
      fail "messages do not pass from $1 to $other; see journalctl -u mosquitto on $other"
  done
}

is_healthy() {
  status_row "$1" | grep -q ' healthy '
}

# deploy BROKER: all of it.
deploy() {
  local broker=$1
  changed=''
  reach "$broker"
  install_plugin "$broker"
  configure "$broker"
  open_journal "$broker"
  on_broker "$broker" systemctl enable --quiet mosquitto </dev/null
  if [ -z "$changed" ] && answers "$broker"; then
    say "$broker is as it should be"
    return 0
  fi
  hand_over "$broker"
  restart "$broker"
  is_in_step "$broker"
  if status_row "$broker" | grep -q draining; then
    meshctl enable --config "$mesh_toml" "$broker" >/dev/null
  fi
  # Before the next one goes, this one must be able to serve.
  [ -z "$(primary)" ] || within 120 is_healthy "$broker" || fail "$broker is not healthy after two minutes; see meshctl status"
  say "$broker runs at $(address_of "$broker"):$(port_of "$broker"), and messages pass"
}

need_mesh
found ssh || install openssh-client
need_mosquitto_clients
log=$(mktemp)
render
prepare_journals
brokers=$(chosen_brokers "${named[@]+"${named[@]}"}")
steps "$(printf '%s\n' "$brokers" | wc -l)"
for broker in $brokers; do
  step "$broker"
  deploy "$broker"
done
rm -f "$log"
say "next: ./deploy/start-services.sh"
