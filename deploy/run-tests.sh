#!/usr/bin/env bash
# Installs what the tests need and runs them all against real brokers and a real Nginx on this machine.
#
#   ./deploy/run-tests.sh [--long] [FILTER…]
#
# --long   the large counts: hours instead of minutes
# FILTER   only tests whose name contains it
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib/say.sh
. "$checkout/deploy/lib/say.sh"
# shellcheck source=deploy/lib/packages.sh
. "$checkout/deploy/lib/packages.sh"

filters=()
for argument in "$@"; do
  case $argument in
    -h | --help)
      sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --long) export MESH_TEST_LONG=1 ;;
    -*) fail "unknown option $argument; see --help" ;;
    *) filters+=("$argument") ;;
  esac
done

# On Linux, hosts of their own are network namespaces, cut off from each other by nftables.
need_hosts() {
  [ "$(uname)" = Linux ] || return 0
  found ip || install iproute2
  found nft || install nftables
}

need_lints() {
  found shellcheck || install shellcheck
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# The peer that `meshctl bench failover` measures beside the mesh.
need_haproxy() {
  found haproxy || ! found apt-get || install haproxy
}

# Debian's package of Prometheus has promtool; its service is not started (see install).
need_promtool() {
  found promtool || ! found apt-get || install prometheus
}

# The alerts: that Prometheus takes them, and that each fires when it should.
check_alerts() {
  if found promtool; then
    promtool check rules deploy/prometheus/mesh-alerts.yml >/dev/null || fail "promtool refuses the alerts, see above"
    promtool test rules deploy/prometheus/mesh-alerts.test.yml >/dev/null || fail "an alert does not fire as it should, see above"
  else
    say "skipped: the alerts are not checked, since there is no promtool (Debian's package prometheus has it)"
  fi
}

# The units, with programs that are here in the place of those that would be installed.
check_units() {
  found systemd-analyze || {
    say "skipped: the units are not checked, since there is no systemd-analyze"
    return 0
  }
  local scratch unit said
  scratch=$(mktemp -d)
  for unit in deploy/systemd/*.service; do
    sed 's#=/usr/bin/mesh[a-z-]*#=/bin/true#' "$unit" >"$scratch/$(basename "$unit")"
    # What is wrong with a unit that is not ours is not ours to mend.
    said=$(systemd-analyze verify "$scratch/$(basename "$unit")" 2>&1 | grep -F "$(basename "$unit")") || true
    [ -z "$said" ] || fail "systemd-analyze has complaints: $said"
  done
  rm -rf "$scratch"
}

# Formatting, lints, scripts, licences: everything that needs no broker.
check_sources() {
  cargo fmt --all --check || fail "the code is not formatted; run: cargo fmt --all"
  cargo clippy --locked --workspace --all-targets --quiet -- -D warnings || fail "clippy has complaints, see above"
  (cd "$checkout" && git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x) || fail "shellcheck has complaints, see above"
  check_alerts
  check_units
  if cargo deny --version >/dev/null 2>&1; then
    cargo deny --locked --offline check bans licenses sources || fail "cargo deny has complaints, see above"
  else
    say "skipped: cargo deny is not installed (cargo install --locked cargo-deny)"
  fi
}

# The programs that the tests start, then the tests.
run_tests() {
  cargo build --locked --workspace --all-targets || fail "the build failed; see the compiler's messages above"
  if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --no-fail-fast "${filters[@]+"${filters[@]}"}"
  else
    cargo test --locked --workspace --no-fail-fast -- "${filters[@]+"${filters[@]}"}"
  fi
}

cd "$checkout"
steps 5
step "Looking for Mosquitto, Nginx, HAProxy and network tools"
need_mosquitto
need_mosquitto_clients
need_nginx
need_hosts
need_haproxy
step "Looking for a Rust toolchain"
need_compiler
need_rust
need_lints
need_promtool
step "Checking the sources"
check_sources
step "Building and testing"
run_tests
step "Testing the plugin on other versions of Mosquitto"
if [ ${#filters[@]} -eq 0 ]; then
  ./deploy/test-mosquitto-versions.sh
else
  say "skipped: only the tests that were named are run"
fi
