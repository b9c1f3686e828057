#!/usr/bin/env bash
# Shows each broker's virtual machine, its addresses and its state, as Multipass reports them.
#
#   ./deploy/show-brokers.sh
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
printf '%-12s %-16s %-10s %s\n' BROKER ADDRESS STATE 'ADDRESSES AS MULTIPASS REPORTS THEM'
inventory | while read -r broker address _; do
  addresses=$(multipass info "$broker" --format csv 2>/dev/null </dev/null | sed -n '2s/^[^,]*,[^,]*,"\{0,1\}\([0-9.,]*\).*/\1/p' || true)
  printf '%-12s %-16s %-10s %s\n' "$broker" "$address" "$(vm_state "$broker")" "${addresses:--}"
done
