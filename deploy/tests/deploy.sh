#!/usr/bin/env bash
# Runs the deployment's scripts as they are on test machines with a real systemd: a host, and five Debians that answer
# over ssh. From nothing to a mesh that serves; again, with nothing to do; a changed mesh.toml and a new version while
# clients are connected; a broker that was broken by hand; one that is not there.
#
#   ./deploy/tests/deploy.sh [--release]
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

# The host has the scripts and the packages; the user `admin` may log in to the others, and become root there.
hand_out_keys() {
  local broker number=10
  hand_out_scripts
  on host ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
  for broker in $brokers; do
    on "$broker" useradd --create-home --shell /bin/bash admin
    printf 'admin ALL=(ALL) NOPASSWD: ALL\n' >"$machines/$broker/root/etc/sudoers.d/admin"
    on "$broker" install -d -m 700 -o admin /home/admin/.ssh
    on "$broker" install -m 600 -o admin /dev/stdin /home/admin/.ssh/authorized_keys \
      <"$machines/host/root/root/.ssh/id_ed25519.pub"
    on "$broker" ssh-keygen -q -A
    on "$broker" systemctl unmask --quiet ssh
    on "$broker" systemctl start ssh
    printf '192.168.100.%s %s\n' "$number" "$(cut -d ' ' -f 1-2 "$machines/$broker/root/etc/ssh/ssh_host_ed25519_key.pub")"
    number=$((number + 1))
  done >"$machines/host/root/root/.ssh/known_hosts"
}

from_nothing() {
  runs "the host is set up" setup-environment.sh --no-multipass --packages /root/packages/1
  runs "five machines become brokers" deploy-brokers.sh --ssh admin --packages /root/packages/1
  expect "a broker's passwords are for root and Mosquitto only" \
    test "$(on broker1 stat -c '%U %G %a' /etc/mesh/mosquitto.conf)" = 'root mosquitto 640'
  runs "the services are started" start-services.sh
  eventually 60 "all is well" status_is 'ok 5 20' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")' \
    '[l["state"] for l in s["links"]].count("up")'
  ok "five brokers and twenty links are up"
}

# finds QUERY: is there such a line in the database?
finds() {
  [ -n "$(on host meshctl logs -n 1 --json "$1" 2>/dev/null)" ]
}

reads_journals() {
  local broker
  for broker in $brokers; do
    eventually 30 "lines of $broker are found" finds "broker:$broker service:mosquitto"
  done
  ok "the log lines of every broker are found on the host"
  # As whoever has stolen it.
  as_logs() { on host runuser -u mesh-logs -- env HOME=/var/lib/mesh-logs timeout 5 ssh "$@" </dev/null 2>&1; }
  expect "the key reads Mosquitto's journal, whatever it is asked to do" \
    test "$(as_logs broker1 id | grep -c -v __CURSOR)" = 0
  refuse "and opens no way to anywhere else" as_logs -W 192.168.100.11:1883 broker1
}

again() {
  local before
  before="$(processes)$(unit mesh-nginx MainPID) $(unit mesh-health MainPID)"
  runs "setting up again does nothing" setup-environment.sh --no-multipass --packages /root/packages/1
  runs "nor deploying" deploy-brokers.sh --ssh admin --packages /root/packages/1
  expect "each broker is as it should be" test "$(grep -c 'is as it should be' "$machines/said")" = 5
  runs "nor starting" start-services.sh
  expect "every process is the same" test "$(processes)$(unit mesh-nginx MainPID) $(unit mesh-health MainPID)" = "$before"
}

# What is published at a broker while all brokers are changed, one after the other, arrives wherever there is a session.
changes_while_serving() {
  client_connects
  printf '[mosquitto]\nautosave_interval = "30s"\n' >>"$machines/host/root/etc/mesh/mesh.toml"
  runs "a changed mesh.toml goes round, in the next version, while a client is connected" \
    deploy-brokers.sh --ssh admin --packages /root/packages/2
  expect "who serves was asked to hand over its clients first" says 'broker1 serves; its clients go to another broker first'
  hears "after the change"
  expect "the client had to connect again once at most" test "$(grep -c CONNACK "$machines/witness")" -le 2
  expect "every broker has the change" test "$(for broker in $brokers; do
    on "$broker" grep -x 'autosave_interval 30' /etc/mesh/mosquitto.conf
  done | wc -l)" = 5
  runs "the services read it" start-services.sh
}

mends() {
  local before
  on broker4 systemctl stop mosquitto
  expect "the package of a broker can be removed while its journal is read" \
    on broker5 sh -c 'rm /etc/mesh/mosquitto.conf; apt-get purge -y -q mqtt-mesh-broker >/dev/null'
  before=$(processes | sed 's/broker4=.*//')
  runs "a broker that was stopped and one that was broken are mended" \
    deploy-brokers.sh --ssh admin --packages /root/packages/2
  expect "and no other is touched" test "$(processes | sed 's/broker4=.*//')" = "$before"
}

refuses() {
  ip link set port-broker3 down
  refuse "a machine that is not there ends it" script deploy-brokers.sh --ssh admin --packages /root/packages/2 broker3
  expect "with a sentence that says what to do" says 'broker3 (192.168.100.12) cannot be used over ssh as admin'
  ip link set port-broker3 up
  refuse "an unknown broker is refused" script deploy-brokers.sh --ssh admin broker9
  expect "with those that there are" says 'mesh.toml has no broker9; it has: broker1'
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  in_machines "$0"
  exit
fi

begin_network "$brokers"
hand_out_keys
from_nothing
reads_journals
again
changes_while_serving
mends
refuses
say "$expected passed, 0 failed"
