#!/usr/bin/env bash
# Removes what the scripts have made on this machine: the services and their package, the brokers' virtual machines with
# all that is in them, and the bridge. Nginx, Multipass and the other programs stay.
#
#   ./deploy/teardown.sh [--purge]
#
# --purge   mesh.toml, the passwords and the state too
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_teardown "$@"

how=remove
case ${1-} in
  '') ;;
  --purge) how=purge ;;
  -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) fail "unknown option $1; see --help" ;;
esac

steps 3
step "The brokers' virtual machines"
# Which they are says mesh.toml, which the package reads.
if found multipass && found meshctl; then
  need_mesh
  render
  for broker in $(inventory | sed 's/ .*//'); do
    delete_vm "$broker"
  done
fi
step "The bridge"
if [ -e /etc/systemd/system/mesh-bridge.service ]; then
  as_root systemctl disable --quiet --now mesh-bridge
  as_root rm /etc/systemd/system/mesh-bridge.service
  as_root systemctl daemon-reload
fi
step "The services"
if dpkg-query --show mqtt-mesh-host >/dev/null 2>&1; then
  as_root env DEBIAN_FRONTEND=noninteractive apt-get "$how" -y -q mqtt-mesh-host >/dev/null ||
    fail "apt-get cannot remove mqtt-mesh-host, see above"
fi
