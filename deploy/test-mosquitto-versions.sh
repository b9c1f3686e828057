#!/usr/bin/env bash
# Runs the plugin's tests on the Mosquitto of other Debian releases: 2.0.21 (trixie) and 2.1 (forky).
#
#   ./deploy/test-mosquitto-versions.sh [--suite SUITE]… [FILTER…]
#
# Where a version cannot be had, it is skipped and the reason is printed.
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

suites=()
while [ "${1-}" = --suite ]; do
  suites+=("${2:?--suite needs a name}")
  shift 2
done
[ ${#suites[@]} -gt 0 ] || suites=(trixie forky)

# Everything that goes through the plugin inside a real broker.
suite_tests() {
  if cargo nextest --version >/dev/null 2>&1; then
    local binaries='plugin_.*|exactly_once|storm|bounds|salvage|failover|retained.*|in_sync|clocks|wills|replication|history.*'
    cargo nextest run --locked --no-fail-fast -E "package(mesh-lab) & binary(/^($binaries)$/)" "$@"
  else
    local tests=()
    for name in 'plugin_*' exactly_once storm bounds salvage failover 'retained*' in_sync clocks wills replication 'history*'; do
      tests+=(--test "$name")
    done
    cargo test --locked --no-fail-fast -p mesh-lab "${tests[@]}" -- "$@"
  fi
}

need_clocks
# All of the random histories are run with the installed version; here a few.
export MESH_HISTORIES=${MESH_HISTORIES:-5}

cd "$checkout"
failed=()
for suite in "${suites[@]}"; do
  folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/mosquitto/$suite")
  if ! ./deploy/fetch-mosquitto.sh "$suite" "$folder"; then
    say "skipped: the plugin's tests on the Mosquitto of $suite, for the reason above"
    continue
  fi
  # It ends with an error, since it is asked for nothing but its version.
  said=$("$folder/mosquitto" -h 2>/dev/null) || true
  say "the plugin's tests on ${said%%$'\n'*} of $suite"
  MESH_MOSQUITTO=$folder/mosquitto suite_tests "$@" || failed+=("$suite")
done
[ ${#failed[@]} -eq 0 ] || fail "the plugin fails on the Mosquitto of ${failed[*]}, see above"
