#!/usr/bin/env bash
# Installs what the tests need and runs them all against real brokers and a real Nginx on this machine.
#
#   ./deploy/run-tests.sh [--long] [FILTER…]
#   ./deploy/run-tests.sh scenarios [--long] [--lab | --netns] [--every=TIME] [--for=TIME] [NAME…]
#   ./deploy/run-tests.sh --vm [--ssh=USER | --hands-off] [--user=NAME --password-file=FILE] [--long] [--every=TIME] [--for=TIME] [NAME…]
#
# --long      the large counts: hours instead of minutes
# FILTER      only tests whose name contains it
# scenarios   only the scenarios: stories of what goes wrong, with the clients that people use; without NAME all.
#             On loopback (--lab, the default) or in network namespaces (--netns, Linux, root).
#             target/scenarios has the account, as JUnit XML and JSON.
# --every, --for   of the scenario failure: a fault so often, for so long
# --vm        all but `crowd` in the network that is deployed, from the machine in front of its brokers: they break it and
#             mend it. Machines are reached as deploy-brokers.sh does, and need nftables to be cut off; clients log in as NAME.
#             With --hands-off machines are not reached at all: only what breaks nothing.
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

filters=()
scenarios=()
only_scenarios=''
case ${1:-} in
  scenarios)
    only_scenarios=yes
    shift
    ;;
  --vm)
    only_scenarios=yes
    scenarios+=(--vm)
    shift
    ;;
esac
for argument in "$@"; do
  case $argument in
    -h | --help)
      sed -n '2,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --long)
      export MESH_TEST_LONG=1
      scenarios+=(--long)
      ;;
    --lab | --netns)
      [ -n "$only_scenarios" ] || fail "$argument is for scenarios; see --help"
      scenarios+=("$argument")
      ;;
    --every=* | --for=* | --hands-off | --ssh=* | --user=* | --password-file=*)
      [ -n "$only_scenarios" ] || fail "$argument is for scenarios; see --help"
      scenarios+=("$argument")
      ;;
    -*) fail "unknown option $argument; see --help" ;;
    *) if [ -n "$only_scenarios" ]; then scenarios+=("$argument"); else filters+=("$argument"); fi ;;
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
  found shfmt || install shfmt
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# The peer that `meshctl bench failover` measures beside the mesh.
need_haproxy() {
  found haproxy || ! found apt-get || install haproxy
}

# The tests of journals write a real one; `meshctl bench logs` has rsyslog beside it. Neither service is started.
need_logs() {
  found apt-get || return 0
  [ -x /usr/lib/systemd/systemd-journal-remote ] || install systemd-journal-remote
  found rsyslogd || install rsyslog
}

# Debian's package of Prometheus has promtool; its service is not started (see install).
need_promtool() {
  found promtool || ! found apt-get || install prometheus
}

# What drives the page: Debian's Chromium, and Python with Playwright in a folder of its own. No browser is downloaded.
need_browser() {
  found apt-get || return 0
  found chromium || install chromium
  python3 -c 'import venv, ensurepip' 2>/dev/null || install python3 python3-venv
}

# The page in a real browser over a real lab, and the API against its own description.
test_page() {
  local tests=crates/mesh-dashboard/browser-tests folder=target/browser-tests select='' result=0
  if ! found chromium; then
    say "skipped: the page is not tested, since there is no chromium (Debian's package has it)"
    return 0
  fi
  if ! cmp -s "$tests/requirements.txt" "$folder/requirements.txt"; then
    python3 -m venv "$folder" || fail "no virtual environment can be made; install python3-venv"
    "$folder/bin/pip" install --quiet --requirement "$tests/requirements.txt" || fail "pip has complaints, see above"
    cp "$tests/requirements.txt" "$folder/requirements.txt"
  fi
  [ ${#filters[@]} -eq 0 ] || select=$(printf ' or %s' "${filters[@]}")
  "$folder/bin/pytest" -q -p no:cacheprovider -k "${select# or }" "$tests" || result=$?
  # 5: none of the tests was asked for.
  [ "$result" -eq 0 ] || [ "$result" -eq 5 ] || fail "the page does not do what it should, see above"
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
    sed 's#=/usr/bin/mesh[a-z-]*#=/bin/true#; s#=/usr/lib/mesh/[a-z/.-]*#=/bin/true#' "$unit" >"$scratch/$(basename "$unit")"
    # What is wrong with a unit that is not ours is not ours to mend, and old systemds know no backoff.
    said=$(systemd-analyze verify "$scratch/$(basename "$unit")" 2>&1 | grep -F "$(basename "$unit")" |
      grep -v "'Restart\(Steps\|MaxDelaySec\)'") || true
    [ -z "$said" ] || fail "systemd-analyze has complaints: $said"
  done
  rm -rf "$scratch"
}

# The client library in C that a scenario compares with.
need_paho_c() {
  found paho_c_pub || ! found apt-get || install paho.mqtt.c-examples
}

# Formatting, lints, scripts, licences: everything that needs no broker.
check_sources() {
  cargo fmt --all --check || fail "the code is not formatted; run: cargo fmt --all"
  cargo clippy --locked --workspace --all-targets --quiet -- -D warnings || fail "clippy has complaints, see above"
  (cd "$checkout" && git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck -x) || fail "shellcheck has complaints, see above"
  deploy/tests/shells.sh || fail "a script is not as it should be, see above"
  check_alerts
  check_units
  if cargo deny --version >/dev/null 2>&1; then
    # It looks at the packages of every platform and feature. Without a network it says what it misses.
    cargo fetch --locked --quiet 2>/dev/null || true
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
  [ "${#filters[@]}" -eq 0 ] || return 0
  test_tls
  test_odd_inputs
}

# What a fuzzer finds within seconds, and with --long within minutes.
test_odd_inputs() {
  found c++ || ! found apt-get || install g++
  if found c++; then
    fuzz/run.sh --for "$([ -n "${MESH_TEST_LONG-}" ] && echo 600 || echo 10)" || fail "a fuzz target found something, see above"
  else
    say "skipped: nothing is fuzzed, since there is no C++ compiler"
  fi
}

# Only clients have TLS, so the workspace is built without.
test_tls() {
  cargo build --locked -p mesh-client --features tls --examples || fail "the build with TLS failed, see above"
  cargo test --locked -p mesh-client --features tls --test duplicates tls
}

# The services, and the scripts that deploy them, on machines of their own; skipped, with the reason, where those cannot
# be. Multipass takes the longest, and much of it is as over ssh: with --long.
test_services() {
  deploy/tests/machines.sh || fail "test machines do not work as they should here, see above"
  deploy/tests/systemd.sh || fail "the services do not live as they should, see above"
  deploy/tests/deploy.sh || fail "the deployment over ssh does not do what it should, see above"
  [ -n "${MESH_TEST_LONG-}" ] || return 0
  deploy/tests/vm.sh || fail "the scenarios do not hold on machines of their own, see above"
  deploy/tests/fresh.sh || fail "Rust is not installed as it should be where there is none, see above"
  deploy/tests/docker.sh || fail "docker-compose.test.yml does not do what it should, see above"
  deploy/tests/multipass.sh || fail "the deployment by Multipass does not do what it should, see above"
  deploy/tests/macos.sh || fail "the deployment on a Mac does not do what it should, see above"
}

# In the whole run each scenario once: in namespaces what needs a network to break, where those can be, the rest on
# loopback. That is the short form, or with --long the long one.
run_scenarios() {
  cargo build --locked --workspace --bins --lib --examples || fail "the build failed; see the compiler's messages above"
  local program=target/debug/mesh-scenarios
  # Thousands of clients are thousands of files, and many systems allow 1,024.
  ulimit -n 20000 2>/dev/null || ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
  if [ -n "$only_scenarios" ]; then
    "$program" "${scenarios[@]+"${scenarios[@]}"}" || fail "a scenario failed, see above"
    return 0
  fi
  local network=(failure network-recovery) rest=(replication retained client-failover session-state conformance crowd)
  if [ "$(uname)" = Linux ] && [ "$(id -u)" -eq 0 ]; then
    "$program" --netns --report target/scenarios-netns "${scenarios[@]+"${scenarios[@]}"}" "${network[@]}" ||
      fail "a scenario failed in namespaces, see above"
  else
    say "skipped: the scenarios are not run in namespaces, which needs root on Linux"
    rest+=(failure)
  fi
  "$program" "${scenarios[@]+"${scenarios[@]}"}" "${rest[@]}" || fail "a scenario failed, see above"
}

cd "$checkout"
if [ -n "$only_scenarios" ]; then
  steps 3
elif [ "${#filters[@]}" -gt 0 ]; then
  steps 5
else
  steps 8
fi
step "Looking for Mosquitto, Nginx, HAProxy, Python and network tools"
need_mosquitto
need_mosquitto_clients
need_nginx
need_hosts
need_haproxy
need_openssl
need_python_clients
need_paho_c
need_logs
need_clocks
step "Looking for a Rust toolchain"
need_compiler
need_rust
need_lints
need_promtool
if [ -z "$only_scenarios" ]; then
  need_browser
  step "Checking the sources"
  check_sources
  step "Building and testing"
  run_tests
  step "Testing the page in a browser"
  test_page
fi
# Filters are about tests by name, which the others have not.
if [ "${#filters[@]}" -eq 0 ]; then
  if [ -z "$only_scenarios" ]; then
    step "Testing the plugin on other versions of Mosquitto"
    ./deploy/test-mosquitto-versions.sh
  fi
  step "Running the scenarios"
  run_scenarios
  if [ -z "$only_scenarios" ]; then
    step "Testing services and deployment on machines with systemd"
    test_services
  fi
fi
