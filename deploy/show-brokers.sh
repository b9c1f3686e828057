#!/usr/bin/env bash
# Shows each broker's virtual machine, its addresses and its state, as Multipass reports them.
#
#   ./deploy/show-brokers.sh
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_show "$@"

case ${1-} in
  '') ;;
  -h | --help)
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) fail "unknown option $1; see --help" ;;
esac

need_mesh
found multipass || fail "Multipass is not here; run ./deploy/setup-environment.sh"
render
show_machine BROKER ADDRESS STATE 'ADDRESSES AS MULTIPASS REPORTS THEM'
inventory | while read -r broker address _; do
  addresses=$(vm_addresses "$broker")
  show_machine "$broker" "$address" "$(vm_state "$broker")" "${addresses:--}"
done
