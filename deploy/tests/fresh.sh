#!/usr/bin/env bash
# On a Debian with nothing in it, as a new user's machine may be: the scripts install Rust from its own servers, and with
# --lab a clone of this checkout becomes a network that runs. What is changed is gone at the end.
#
#   ./deploy/tests/fresh.sh [--lab] [--release RELEASE]
#
# --lab               run-local.sh too, with a release build: some ten minutes
# --release RELEASE   of Debian; else trixie
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

root=/mnt/fresh/root

# inside SCRIPT: runs it with bash on that machine, as root and with an environment of its own.
inside() {
  chroot "$root" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin bash -euc "$1"
}

# enter DEBIAN: makes that file system one that may be changed. On disk, since what is built is large.
enter() {
  mount --make-rprivate /
  mount -t tmpfs tmpfs /mnt
  mkdir -p "$root"
  mount -t overlay overlay "$root" -o "lowerdir=$1,upperdir=$fresh/changed,workdir=$fresh/work"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
  # Whom this machine trusts beside those whom Debian trusts: such as the proxy of a company.
  [ ! -d /usr/local/share/ca-certificates ] || cp -r /usr/local/share/ca-certificates "$root/usr/local/share/"
}

gets_rust() {
  refuse "there is no Rust" inside 'command -v cargo || command -v rustup'
  inside 'cd /root && mkdir mesh && cp -r /checkout/deploy /checkout/Cargo.toml mesh/
    . mesh/deploy/lib/say.sh; checkout=/root/mesh; . mesh/deploy/lib/packages.sh
    need_rust; need_rust; cargo --version >/root/version' >"$fresh/said" 2>&1 || {
    cat "$fresh/said" >&2
    fail "not so: Rust is installed where there is none"
  }
  expect "Rust is installed where there is none, once" \
    test "$(grep -c 'installing it with rustup into /root/.cargo' "$fresh/said")" = 1
  ok "it is $(cat "$root/root/version"), and $(rust_wanted) is wanted"
  # As if it had been cut off on its way.
  # shellcheck disable=SC2016 # it is the other machine's shell that fills this in
  inside '. /root/mesh/deploy/lib/say.sh; checkout=/root/mesh; . /root/mesh/deploy/lib/packages.sh
    rm -r /root/.cargo /root/.rustup
    curl() { /usr/bin/curl "$@" && case $* in *sha256) ;; *) truncate -s -1 "${@: -2:1}" ;; esac; }
    need_rust' >"$fresh/said" 2>&1 && fail "not so: an installer that did not come whole is refused"
  expect "an installer that did not come whole is refused, and it is said" grep -q 'did not come whole' "$fresh/said"
  inside 'rm -rf /root/mesh'
}

# running: the processes of a lab; others are not to be seen from here.
running() {
  local name
  for name in mosquitto nginx mesh-; do
    pgrep "$name" || true
  done
}

# is_ready: has the lab said so?
is_ready() {
  grep -q -x ready "$fresh/lab"
}

runs_lab() {
  local lab
  git -c safe.directory='*' clone -q "$checkout" "$root/root/mesh" || fail "this checkout cannot be cloned, see above"
  say "as a new user: git clone … && ./deploy/run-local.sh"
  setsid chroot "$root" env -i --default-signal=INT HOME=/root LANG=C.UTF-8 \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin bash /root/mesh/deploy/run-local.sh >"$fresh/lab" 2>&1 </dev/null &
  lab=$!
  eventually 3600 "the lab is ready or has ended" is_ready_or_over "$lab"
  cat "$fresh/lab"
  is_ready || fail "run-local.sh ended before it was ready, see above"
  expect "a message passes through the balancer" inside 'timeout 20 mosquitto_sub -p 18830 -t new/user -C 1 >/root/heard &
    timeout 20 sh -c "until grep -q hello /root/heard; do mosquitto_pub -p 18830 -t new/user -m hello; sleep 0.2; done"'
  expect "the page answers" inside 'curl -sf http://127.0.0.1:3000/ | grep -q -i "<html"'
  expect "it has processes" test -n "$(running)"
  kill -INT "$lab"
  wait "$lab" || fail "run-local.sh does not end well at Ctrl-C: $(tail -n 5 "$fresh/lab")"
  expect "after Ctrl-C no process is left" test -z "$(running)"
}

is_ready_or_over() {
  is_ready || ! kill -0 "$1" 2>/dev/null
}

if [ -z "${MESH_TEST_FRESH-}" ]; then
  lab='' release=trixie
  while [ $# -gt 0 ]; do
    case $1 in
      --lab) lab=yes ;;
      --release)
        release=${2:?--release needs the name of one}
        shift
        ;;
      *) fail "unknown option $1" ;;
    esac
    shift
  done
  hindrance=$(machines_hindrance)
  [ -n "$hindrance" ] || found curl || install curl
  [ -n "$hindrance" ] || rust_answers || hindrance='the servers of Rust do not answer'
  [ -z "$hindrance" ] || {
    say "skipped: $hindrance"
    exit 0
  }
  debian=$(plain_debian "$release")
  fresh=$(mktemp -d /var/tmp/mesh-fresh.XXXXXX)
  trap 'rm -rf "$fresh"' EXIT
  mkdir "$fresh/changed" "$fresh/work"
  MESH_TEST_FRESH=$fresh setpriv --pdeathsig KILL \
    unshare --mount --pid --fork --kill-child --mount-proc bash "$0" "$debian" "$lab"
  exit
fi

fresh=$MESH_TEST_FRESH
enter "$1"
mkdir "$root/checkout"
mount --bind "$checkout" "$root/checkout"
gets_rust
[ -z "$2" ] || runs_lab
say "$expected passed, 0 failed"
