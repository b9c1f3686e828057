# shellcheck shell=bash
# All that the scripts are made of; names the checkout. A script needs this one line:
#
#   . "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"
# shellcheck source=deploy/lib/packages.sh
. "$checkout/deploy/lib/packages.sh"
# shellcheck source=deploy/lib/brokers.sh
. "$checkout/deploy/lib/brokers.sh"
# shellcheck source=deploy/lib/multipass.sh
. "$checkout/deploy/lib/multipass.sh"
# shellcheck source=deploy/lib/access.sh
. "$checkout/deploy/lib/access.sh"
# shellcheck source=deploy/lib/change.sh
. "$checkout/deploy/lib/change.sh"
# shellcheck source=deploy/lib/carry.sh
. "$checkout/deploy/lib/carry.sh"
# shellcheck source=deploy/lib/journals.sh
. "$checkout/deploy/lib/journals.sh"
# shellcheck source=deploy/lib/mac-host.sh
. "$checkout/deploy/lib/mac-host.sh"
# shellcheck source=deploy/lib/macos.sh
. "$checkout/deploy/lib/macos.sh"
