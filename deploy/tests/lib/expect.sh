# shellcheck shell=bash
# What tests say and wait for. Needs say.sh.

expected=0

# ok TEXT: what was just shown.
ok() {
  expected=$((expected + 1))
  say "ok: $1"
}

# eventually SECONDS TEXT COMMAND…: the command comes to succeed within that time, or the test fails.
eventually() {
  local seconds=$1 text=$2 start=$SECONDS
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - start)) -lt "$seconds" ] || fail "not within $seconds s: $text"
    sleep 0.1
  done
}

# expect TEXT COMMAND…: the command succeeds, or the test fails.
expect() {
  local text=$1
  shift
  "$@" || fail "not so: $text"
  ok "$text"
}

# refuse TEXT COMMAND…: the command fails, or the test does.
refuse() {
  local text=$1
  shift
  ! "$@" >/dev/null 2>&1 || fail "not so: $text"
  ok "$text"
}
