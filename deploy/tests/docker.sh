#!/usr/bin/env bash
# Shows docker-compose.test.yml without a container engine: docker-compose takes the file, every RUN line of the Dockerfile
# goes well in a Debian of its own, and the services, started in these file systems as the file says, become healthy and
# pass their scenario. What only an engine can show is told in docker/engine.py.
#
#   ./deploy/tests/docker.sh [--release] [--build]
#
# --release   with this machine's release build in the place of what the image builds; else with its debug build
# --build     as an engine does: what the Dockerfile builds is built, some ten minutes
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

profile=dev folder=debug build=''
for argument in "$@"; do
  case $argument in
    --release) profile=release folder=release ;;
    --build) build=yes ;;
    *) fail "unknown option $argument" ;;
  esac
done
hindrance=$(machines_hindrance)
[ -z "$hindrance" ] || {
  say "skipped: $hindrance"
  exit 0
}
found docker-compose || install docker-compose
found mmdebstrap || install mmdebstrap
found ip || install iproute2
found curl || install curl
cd "$checkout"
cargo build --locked --quiet --profile "$profile" -p mesh-plugin -p mesh-health -p mesh-logs -p mesh-dashboard -p meshctl \
  -p mesh-scenarios || fail "the build failed; see the compiler's messages above"

# The image debian:trixie-slim, as near as it can be made from Debian's packages.
debian=$(plain_debian trixie)

# What is not carried out, and why.
left_out=()
if ! rust_answers; then
  left_out=(rustup "the servers of Rust do not answer" 'cargo build' "there is no Rust then; programs of this machine are taken")
elif [ -z "$build" ]; then
  left_out=('cargo build' "it takes ten minutes (--build); programs of this machine are taken")
fi

normalized=$(mktemp)
trap 'rm -f "$normalized"' EXIT
docker-compose -p mesh-test -f docker-compose.test.yml config >"$normalized" || fail "docker-compose refuses the file, see above"
say "ok: docker-compose takes docker-compose.test.yml"
# Whatever happens inside is gone with the namespaces.
unshare --mount --pid --fork --kill-child --mount-proc \
  python3 deploy/tests/docker/engine.py "$debian" "$checkout" "${CARGO_TARGET_DIR:-$checkout/target}/$folder" "$normalized" \
  "${left_out[@]+"${left_out[@]}"}" ||
  fail "the containers do not do what they should, see above"
