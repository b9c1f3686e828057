#!/usr/bin/env bash
# Makes this machine the one in front of the brokers: installs the package mqtt-mesh-host with its Nginx, and the
# clients that the other scripts use. What is there already stays; nothing is started.
#
#   ./deploy/setup-environment.sh [--packages DIR]
#
# --packages DIR   where the packages are (deploy/build-packages.sh makes them); else they are built
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"
# shellcheck source=deploy/lib/packages.sh
. "$checkout/deploy/lib/packages.sh"
# shellcheck source=deploy/lib/brokers.sh
. "$checkout/deploy/lib/brokers.sh"

packages=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --packages)
      packages=${2:?--packages needs a folder}
      shift
      ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done
found apt-get || fail "packages for this system are not made yet; use a Debian or Ubuntu"
[ -d /run/systemd/system ] || fail "systemd does not run here, and the services need it"

steps 3
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
say "next: where the brokers are belongs into $mesh_toml; then ./deploy/deploy-brokers.sh"
