#!/usr/bin/env bash
# Shows docker-compose.test.yml without a container engine: docker-compose takes the file, every RUN line of the Dockerfile
# goes well in a Debian of its own, and the services, started in these file systems as the file says, become healthy and
# pass their scenario. What only an engine can show is told in docker/engine.py.
#
#   ./deploy/tests/docker.sh [--release]
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

profile=dev folder=debug
[ "${1-}" != --release ] || profile=release folder=release
hindrance=$(machines_hindrance)
[ -z "$hindrance" ] || {
  say "skipped: $hindrance"
  exit 0
}
found docker-compose || install docker-compose
found mmdebstrap || install mmdebstrap
found ip || install iproute2
cd "$checkout"
cargo build --locked --quiet --profile "$profile" -p mesh-plugin -p mesh-health -p mesh-logs -p mesh-dashboard -p meshctl \
  -p mesh-scenarios || fail "the build failed; see the compiler's messages above"

# The image debian:trixie-slim, as near as it can be made from Debian's packages.
debian=$base_cache/docker-trixie-$(dpkg --print-architecture)
as_root mkdir -p "$base_cache"
if [ ! -d "$debian" ]; then
  say "making the file system of debian:trixie-slim, kept in $debian"
  log=$(mktemp)
  { rm -rf "$debian.making" && mmdebstrap --variant=minbase trixie "$debian.making" && mv "$debian.making" "$debian"; } \
    >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "the file system of Debian 13 cannot be made; the last lines are above, all of them in $log"
  }
  rm -f "$log"
fi

normalized=$(mktemp)
trap 'rm -f "$normalized"' EXIT
docker-compose -p mesh-test -f docker-compose.test.yml config >"$normalized" || fail "docker-compose refuses the file, see above"
say "ok: docker-compose takes docker-compose.test.yml"
# Whatever happens inside is gone with the namespaces.
unshare --mount --pid --fork --kill-child --mount-proc \
  python3 deploy/tests/docker/engine.py "$debian" "$checkout" "${CARGO_TARGET_DIR:-$checkout/target}/$folder" "$normalized" ||
  fail "the containers do not do what they should, see above"
