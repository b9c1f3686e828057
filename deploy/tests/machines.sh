#!/usr/bin/env bash
# Shows that a run with test machines leaves nothing behind, however it ends: well, failed, interrupted, killed.
#
#   ./deploy/tests/machines.sh
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

# What the run that is ended does: two machines, and then what the argument says.
if [ "${1-}" = run ]; then
  if [ -z "${MESH_TEST_RUN-}" ]; then
    in_machines "$0" "$@"
    exit
  fi
  begin_machines
  machine one 192.168.100.10
  machine two 192.168.100.11
  for name in one two; do
    eventually 60 "$name has started" is_up "$name"
  done
  # Refused by the run itself is reached; to the rest of the world there is no way.
  reach() { on one python3 -c 'import socket, sys; print(socket.socket().connect_ex((sys.argv[1], 1)))' "$1"; }
  [ "$(reach "$machines_own") $(reach 192.168.100.11) $(reach 192.0.2.1)" = '111 111 101' ] ||
    fail "the machines do not reach each other, or reach more than that"
  printf 'up\n'
  case $2 in
    well) exit 0 ;;
    failed) fail "as it should" ;;
    wait) sleep 600 ;;
  esac
fi

# begin_run HOW: starts such a run, and waits until its machines are up.
begin_run() {
  # What a shell starts in the background does not heed SIGINT by itself.
  setsid env --default-signal=INT "$0" run "$1" >"$said" 2>&1 &
  run=$!
  eventually 60 "the run is up" grep -q '^up$' "$said"
}

# nothing_is_left: of the last run, neither processes nor cgroups, nor a mount or network that others can see.
nothing_is_left() {
  ! pgrep -s "$run" >/dev/null &&
    [ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "mesh-test-$run")" ] &&
    ! grep -q -e ' mesh-test ' -e '^mesh-test' /proc/mounts &&
    ! ip link show switch >/dev/null 2>&1
}

swept() {
  sweep_cgroups
  nothing_is_left
}

hindrance=$(machines_hindrance)
[ -z "$hindrance" ] || {
  say "skipped: $hindrance"
  exit 0
}
need_machines
said=$(mktemp)
trap 'rm -f "$said"' EXIT

begin_run well
wait "$run" || fail "a run that goes well fails: $(cat "$said")"
# The kernel takes a moment to end what is inside.
eventually 5 "nothing is left" nothing_is_left
ok "a run that goes well leaves nothing"
begin_run failed
! wait "$run" || fail "a run that fails says that it went well"
eventually 5 "nothing is left" nothing_is_left
ok "nor does one that fails"
for signal in INT TERM KILL; do
  begin_run wait
  kill -s "$signal" "$run"
  ! wait "$run" 2>/dev/null || fail "a run that was ended by SIG$signal says that it went well"
  # What a killed run leaves, the next one removes.
  [ "$signal" != KILL ] || eventually 20 "nothing is left" swept
  eventually 5 "nothing is left" nothing_is_left
  ok "nor does one that is ended by SIG$signal"
done
say "$expected passed, 0 failed"
