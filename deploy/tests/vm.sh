#!/usr/bin/env bash
# Runs scenarios against a network that is deployed on machines of their own, as `run-tests.sh --vm` does: a host, and five
# Debians, each with a real systemd, that answer over ssh, and once more by the program that stands in for Multipass.
# Brokers are killed, hang, lose their files and are cut off there.
#
#   ./deploy/tests/vm.sh [--release] [--ssh | --multipass] [SCENARIO…]
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

brokers='broker1 broker2 broker3 broker4 broker5'

# put_programs: the host has what it would have in a checkout: the scenarios, and the clients that they start.
put_programs() {
  local mesh=$machines/host/root/root/mesh
  mkdir -p "$mesh/target/debug/examples"
  cp "$MESH_TEST_PROGRAMS/mesh-scenarios" "$mesh/target/debug/"
  cp "$MESH_TEST_PROGRAMS/examples/numbers" "$mesh/target/debug/examples/"
  cp -r "$checkout/client-examples" "$mesh/"
  cp -r "$checkout/target/python-clients" "$mesh/target/"
  # Its Python is the machine's own, of the same version.
  ln -sf /usr/bin/python3 "$mesh/target/python-clients/bin/python"
  printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$mesh/target/python-clients/pyvenv.cfg"
  # The stock broker that the mesh is compared with; as a service nobody asked for it.
  on host systemctl mask --quiet mosquitto
  on host apt-get install -y -q mosquitto >/dev/null 2>&1
  for broker in $brokers; do
    on "$broker" apt-get install -y -q nftables >/dev/null 2>&1
  done
}

# A user of the scenarios.
add_user() {
  on host sh -c 'umask 077; head -c 18 /dev/urandom | base64 >/root/scenarios
    meshctl user add scenarios --config /etc/mesh/mesh.toml </root/scenarios'
  runs "the brokers know the scenarios' user" deploy-brokers.sh "${way[@]+"${way[@]}"}" --packages /root/packages/1
}

# scenarios ARGUMENT…: mesh-scenarios on the host.
scenarios() {
  on host timeout 900 /root/mesh/target/debug/mesh-scenarios --vm "${way[@]+"${way[@]}"}" --user scenarios \
    --password-file /root/scenarios --report /root/report "$@" </dev/null
}

# scenario NAME ARGUMENT…
scenario() {
  local name=$1 start=$SECONDS
  shift
  scenarios "$@" "$name" >"$machines/said" 2>&1 || {
    cat "$machines/said"
    fail "not so: the scenario $name passes"
  }
  grep -e ' ok: ' -e skipped -e '^PASS' "$machines/said"
  ok "the scenario $name passes ($((SECONDS - start)) s)"
}

# cuts: what is left of cuts on the brokers' machines.
cuts() {
  local broker
  for broker in $brokers; do
    on "$broker" sh -c 'nft list tables; systemctl list-units --all --plain --no-legend "mesh_cut*"' | grep mesh_cut || true
  done
}

is_cut() {
  [ -n "$(cuts)" ]
}

is_whole() {
  ! is_cut
}

# Who ends the scenarios in the middle has a network that is well all the same.
mends_when_interrupted() {
  scenarios network-recovery >"$machines/said" 2>&1 &
  local interrupted=$!
  eventually 120 "something is cut" is_cut
  on host pkill -TERM mesh-scenarios
  ! wait "$interrupted" || fail "scenarios that were interrupted say that they went well"
  expect "scenarios that are interrupted leave nothing cut" is_whole
  eventually 120 "all is well" status_is 'ok 5' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")'
}

# The machine that runs the scenarios may have other users.
keeps_password() {
  kill -TERM "${watcher:?watch_command_lines comes first}"
  wait "$watcher" || true
  expect "clients of the scenarios were seen" grep -q -e '^[^ ]*mesh-scenarios' "$machines/cmdlines"
  refuse "and their password was on no command line" \
    grep -F -f "$machines/host/root/root/scenarios" "$machines/cmdlines"
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  profile=--debug folder=debug ways=(ssh multipass) names=()
  for argument in "$@"; do
    case $argument in
      --release) profile=--release folder=release ;;
      --ssh | --multipass) ways=("${argument#--}") ;;
      -*) fail "unknown option $argument" ;;
      *) names+=("$argument") ;;
    esac
  done
  if [ "$folder" = release ]; then prepare --release; else prepare; fi
  need_python_clients
  cargo_profile=dev
  [ "$profile" = --debug ] || cargo_profile=release
  (cd "$checkout" && cargo build --locked --quiet -p mesh-scenarios -p mesh-client --bins --examples --profile "$cargo_profile") ||
    fail "the scenarios cannot be built, see above"
  MESH_TEST_PROGRAMS=${CARGO_TARGET_DIR:-$checkout/target}/$folder
  export MESH_TEST_PROGRAMS
  for one in "${ways[@]}"; do
    say "brokers are reached by $one"
    in_machines "$0" "$one" "${names[@]+"${names[@]}"}"
  done
  exit
fi

way=()
if [ "$1" = ssh ]; then
  way=(--ssh root)
  begin_network "$brokers"
  hand_out_scripts
  hand_out_keys root
  runs "the host is set up" setup-environment.sh --no-multipass --packages /root/packages/1
else
  begin_multipass_host
  runs "the host is set up" setup-environment.sh --packages /root/packages/1
fi
shift
runs "five machines become brokers" deploy-brokers.sh "${way[@]+"${way[@]}"}" --packages /root/packages/1
runs "the services are started" start-services.sh
add_user
put_programs
eventually 60 "all is well" status_is 'ok 5' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")'
[ $# -gt 0 ] || set -- replication retained failure client-failover network-recovery session-state conformance
for name in "$@"; do
  case $name in
    failure) scenario failure --every 8s --for 30s ;;
    client-failover)
      watch_command_lines
      scenario "$name"
      keeps_password
      ;;
    *) scenario "$name" ;;
  esac
  ! is_cut || fail "the scenario $name has left a machine cut: $(cuts)"
done
mends_when_interrupted
say "$expected passed, 0 failed"
