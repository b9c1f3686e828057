#!/usr/bin/env bash
# Runs the deployment's scripts as they are on a host with a `multipass` that makes test machines: from nothing to five
# virtual machines that are a mesh; again, with nothing to do; machines that were stopped, deleted, or left half-made;
# and teardown.
#
#   ./deploy/tests/multipass.sh [--release]
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

brokers='broker1 broker2 broker3 broker4 broker5'

is_well() {
  status_is 'ok 5 20' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")' \
    '[l["state"] for l in s["links"]].count("up")'
}

from_nothing() {
  local start=$SECONDS
  ip -n host route add 192.168.100.0/24 via 10.96.0.2
  refuse "a network that is routed elsewhere is refused" script setup-environment.sh --packages /root/packages/1
  expect "with what it is" says 'routed elsewhere already: 192.168.100.0/24 via 10.96.0.2'
  ip -n host route delete 192.168.100.0/24
  runs "the host is set up" setup-environment.sh --packages /root/packages/1
  runs "five virtual machines become brokers" deploy-brokers.sh --packages /root/packages/1
  runs "the services are started" start-services.sh
  eventually 60 "all is well" is_well
  ok "five brokers and twenty links are up, $((SECONDS - start)) s after nothing was there"
}

again() {
  local before
  before=$(processes)
  runs "setting up again does nothing" setup-environment.sh --packages /root/packages/1
  runs "nor deploying" deploy-brokers.sh --packages /root/packages/1
  expect "every process is the same" test "$(processes)" = "$before"
  runs "the brokers are shown" show-brokers.sh
  expect "with address, state and what Multipass reports" \
    test "$(grep -c '^broker[1-5]  *192.168.100.1[0-4]  *Running  *10.97.0.[0-9]*,192.168.100.1[0-4]$' "$machines/said")" = 5
}

mends() {
  local before
  before=$(processes | sed 's/broker3=.*//')
  multipass stop broker5
  multipass delete broker4
  # Made by hand, with a cloud-init that fails before the address is there.
  multipass delete --purge broker3
  printf '#cloud-config\nruncmd:\n  - [/bin/false]\n' | on host multipass launch --name broker3 --cloud-init - 24.04 >/dev/null
  runs "machines that were stopped, deleted and left half-made are mended" deploy-brokers.sh --packages /root/packages/1
  expect "the stopped one was started" says 'broker5 is Stopped: it is started'
  expect "the deleted one was recovered" says 'broker4 was deleted, not purged: it is recovered'
  expect "the half-made one was made again" says 'broker3 was never finished: it is made again'
  expect "no other was touched" test "$(processes | sed 's/broker3=.*//')" = "$before"
  eventually 90 "all is well again" is_well
  ok "all is well again"
}

tears_down() {
  on host cp /etc/mesh/mesh.toml /root/mesh.toml
  runs "teardown" teardown.sh
  expect "no virtual machine is left" test "$(multipass list | wc -l)" = 1
  refuse "nor the bridge" ip -n host link show mqttbr0
  refuse "nor a service" on host systemctl is-active --quiet mesh-health
  expect "mesh.toml stays" on host cmp --quiet /root/mesh.toml /etc/mesh/mesh.toml
  runs "teardown again, and the rest with it" teardown.sh --purge
  refuse "then mesh.toml goes too" on host test -e /etc/mesh
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  found python3 || install python3
  in_machines "$0"
  exit
fi

begin_multipass_host
from_nothing
again
mends
tears_down
say "$expected passed, 0 failed"
