#!/usr/bin/env bash
# Runs scenarios against a network that is deployed on machines of their own, as `run-tests.sh --vm` does: a host, and five
# Debians that answer over ssh, each with a real systemd. Brokers are killed, hang and lose their files there.
#
#   ./deploy/tests/vm.sh [--release]
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
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

brokers='broker1 broker2 broker3 broker4 broker5'

# The host may log in to the others as root.
hand_out_keys() {
  local broker number=10
  hand_out_scripts
  on host ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
  for broker in $brokers; do
    on "$broker" install -d -m 700 /root/.ssh
    on "$broker" install -m 600 /dev/stdin /root/.ssh/authorized_keys <"$machines/host/root/root/.ssh/id_ed25519.pub"
    on "$broker" ssh-keygen -q -A
    on "$broker" systemctl unmask --quiet ssh
    on "$broker" systemctl start ssh
    printf '192.168.100.%s %s\n' "$number" "$(cut -d ' ' -f 1-2 "$machines/$broker/root/etc/ssh/ssh_host_ed25519_key.pub")"
    number=$((number + 1))
  done >"$machines/host/root/root/.ssh/known_hosts"
}

# A user of the scenarios, where the network lets nobody in without a name.
login=()
add_user() {
  on host grep -q '^password_file' /etc/mesh/mesh.toml || return 0
  on host sh -c 'umask 077; head -c 18 /dev/urandom | base64 >/root/scenarios
    meshctl user add scenarios --config /etc/mesh/mesh.toml </root/scenarios'
  runs "the brokers know the scenarios' user" deploy-brokers.sh --ssh root --packages /root/packages/1
  login=(--user scenarios --password-file /root/scenarios)
}

# scenario NAME ARGUMENT…
scenario() {
  local name=$1 start=$SECONDS
  shift
  on host timeout 300 mesh-scenarios --vm --ssh root "${login[@]+"${login[@]}"}" --report /root/report "$@" "$name" \
    >"$machines/said" 2>&1 </dev/null || {
    cat "$machines/said"
    fail "not so: the scenario $name passes"
  }
  grep -e ' ok: ' -e '^PASS' "$machines/said"
  ok "the scenario $name passes ($((SECONDS - start)) s)"
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  profile=dev folder=debug
  [ "${1-}" != --release ] || profile=release folder=release
  (cd "$checkout" && cargo build --locked --quiet -p mesh-scenarios --profile "$profile") ||
    fail "mesh-scenarios cannot be built, see above"
  MESH_TEST_PROGRAM=${CARGO_TARGET_DIR:-$checkout/target}/$folder/mesh-scenarios
  export MESH_TEST_PROGRAM
  in_machines "$0"
  exit
fi

begin_network "$brokers"
hand_out_keys
runs "the host is set up" setup-environment.sh --no-multipass --packages /root/packages/1
runs "five machines become brokers" deploy-brokers.sh --ssh root --packages /root/packages/1
runs "the services are started" start-services.sh
add_user
cp "$MESH_TEST_PROGRAM" "$machines/host/root/usr/bin/mesh-scenarios"
eventually 60 "all is well" status_is 'ok 5' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")'
scenario replication
scenario retained
scenario failure --every 8s --for 30s
say "$expected passed, 0 failed"
