#!/usr/bin/env bash
# Starts what belongs in front of the brokers, now and at each boot, and shows who serves. What runs already goes on; if
# mesh.toml has changed since, it is read again, and no client's session is cut.
#
#   ./deploy/start-services.sh
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_start "$@"

case ${1-} in
  '') ;;
  -h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) fail "unknown option $1; see --help" ;;
esac

# explain UNIT: it did not start.
explain() {
  as_root journalctl --quiet --unit "$1" --lines 10 --output cat >&2
  fail "$1 does not run; what it said last is above"
}

need_mesh
# mesh-health logs in to the brokers with a password that is made with their configuration.
render
need_access nginx
steps 2
step "Starting the services"
if balancer_is_stale "$mesh_toml"; then
  say "mesh.toml or a certificate has changed: mesh-nginx reads it again"
  as_root systemctl reload mesh-nginx || explain mesh-nginx
fi
for unit in mesh-health mesh-logs mesh-dashboard; do
  if systemctl --quiet is-active "$unit" && is_stale "$unit" "$mesh_toml"; then
    say "mesh.toml has changed: $unit starts anew"
    as_root systemctl restart "$unit" || explain "$unit"
  fi
done
as_root systemctl enable --quiet mesh.target mesh-nginx mesh-health mesh-logs mesh-dashboard mesh-certs.timer
as_root systemctl start mesh.target mesh-certs.timer
for unit in mesh-nginx mesh-health mesh-logs mesh-dashboard; do
  as_root systemctl start "$unit" || explain "$unit"
done
step "Who serves"
meshctl status --config "$mesh_toml"
page=$(as_root sed -n '/^\[dashboard\]/,/^\[/s/^listen *= *"\(.*\)".*/\1/p' "$mesh_toml")
token=$(as_root sed -n '/^\[dashboard\]/,/^\[/s/^token_file *= *"\(.*\)".*/\1/p' "$mesh_toml")
say "the page is at http://${page:-127.0.0.1:3000}${token:+; it asks for what this shows: sudo cat $token}"
