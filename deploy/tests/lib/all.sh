# shellcheck shell=bash
# All that the tests of the deployment are made of; names the checkout.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"
# shellcheck source=deploy/lib/packages.sh
. "$checkout/deploy/lib/packages.sh"
# shellcheck source=deploy/tests/lib/expect.sh
. "$checkout/deploy/tests/lib/expect.sh"
# shellcheck source=deploy/tests/lib/base.sh
. "$checkout/deploy/tests/lib/base.sh"
# shellcheck source=deploy/tests/lib/machines.sh
. "$checkout/deploy/tests/lib/machines.sh"
# shellcheck source=deploy/tests/lib/host.sh
. "$checkout/deploy/tests/lib/host.sh"
# shellcheck source=deploy/tests/lib/reach.sh
. "$checkout/deploy/tests/lib/reach.sh"
# shellcheck source=deploy/tests/lib/doors.sh
. "$checkout/deploy/tests/lib/doors.sh"
