# shellcheck shell=bash
# The network of the tests: the machine `host`, in front of brokers, and what is asked of it. Needs say.sh, packages.sh,
# expect.sh, base.sh and machines.sh.

: "${checkout:?the script that sources this names the checkout}"
: "${machines:?machines.sh is sourced before}"

# Each run has packages of its own, so that several may run at once.
packages=${CARGO_TARGET_DIR:-$checkout/target}/debian-tests-${MESH_TEST_RUN:-$$}

# prepare [--release]: outside of the machines' world, which has no network: what is fetched and built. Ends the script
# where there can be no machines.
prepare() {
  local profile=--debug hindrance revision said
  said=$(mktemp)
  case ${1-} in
    --release) profile=--release ;;
    '') ;;
    *) fail "unknown option $1" ;;
  esac
  hindrance=$(machines_hindrance)
  [ -z "$hindrance" ] || {
    say "skipped: $hindrance"
    exit 0
  }
  need_machines
  sweep_packages
  trap 'rm -rf "$packages"' EXIT
  # cargo-deb puts together what it packs in one place.
  mkdir -p "$packages"
  exec 9>"${packages%/*}/debian-tests.lock"
  flock 9
  # The second is what an upgrade brings.
  for revision in 1 2; do
    "$checkout/deploy/build-packages.sh" "$profile" --revision "$revision" --out "$packages/$revision" >"$said" 2>&1 || {
      cat "$said" >&2
      fail "the packages cannot be built, see above"
    }
  done
  exec 9>&-
  rm -f "$said"
}

# sweep_packages: removes those of runs that were killed.
sweep_packages() {
  local folder
  for folder in "${packages%-*}"-*; do
    [ -d "/proc/${folder##*-}" ] || rm -rf "$folder"
  done
}

# begin_network BROKERS: starts the host, and a machine for each broker.
begin_network() {
  local broker number=10
  begin_machines
  machine host 192.168.100.1
  for broker in $1; do
    machine "$broker" "192.168.100.$number"
    number=$((number + 1))
  done
  for broker in host $1; do
    eventually 180 "$broker has started" is_up "$broker"
  done
  ok "the host and the machines of $1 have started, each with a systemd of its own"
}

# install_on MACHINE NAME REVISION: as a user would, by apt and from a file.
install_on() {
  cp "$packages/$3/$2"_*.deb "$machines/$1/root/root/$2.deb"
  on "$1" apt-get install -y -q "/root/$2.deb" >"$machines/$1/apt" 2>&1 </dev/null || {
    tail -n 20 "$machines/$1/apt"
    fail "$2 cannot be installed on $1"
  }
}

# The machine that the services are on.
front=host

# unit NAME PROPERTY: what systemd says of a unit of the host.
unit() {
  on "$front" systemctl show --value --property "$2" "$1"
}

is() {
  [ "$(unit "$1" "$2")" = "$3" ]
}

# status EXPRESSION…: what mesh-health says, by expressions of Python over its answer `s`.
status() {
  on "$front" sh -c 'meshctl status --json | python3 -c "
import json, sys
s = json.load(sys.stdin)
print(*[eval(expression) for expression in sys.argv[1:]])" "$@"' - "$@"
}

# status_is TEXT EXPRESSION…
status_is() {
  local text=$1
  shift
  [ "$(status "$@")" = "$text" ]
}

# A client that stays. Each connection that it needs leaves a line with CONNACK.
client_connects() {
  on host apt-get install -y -q mosquitto-clients >/dev/null 2>&1
  on host stdbuf -oL mosquitto_sub -d -h 192.168.100.1 -i witness -k 60 -q 1 -t 'test/#' \
    >"$machines/witness" 2>&1 </dev/null &
  eventually 10 "a client connects" connections_are 1
  hears "the first"
}

connections_are() {
  [ "$(grep -c CONNACK "$machines/witness")" = "$1" ]
}

# hears TEXT: what is published at the balancer reaches the client.
hears() {
  on host timeout 10 mosquitto_pub -h 192.168.100.1 -q 1 -t test/word -m "$1" || fail "nobody takes a message"
  eventually 10 "the client hears «$1»" grep -q -x -e "$1" "$machines/witness"
}

# hand_out_scripts: the host has what a user has: the checkout's scripts, and the packages.
hand_out_scripts() {
  mkdir -p "$machines/host/root/root/mesh"
  cp -r "$checkout/deploy" "$machines/host/root/root/mesh/"
  cp -r "$packages" "$machines/host/root/root/packages"
}

# script NAME ARGUMENT…: runs one of the scripts on the host; what it says is kept in $machines/said.
script() {
  local name=$1
  shift
  on host timeout 600 bash "/root/mesh/deploy/$name" "$@" >"$machines/said" 2>&1 </dev/null
}

# runs TEXT NAME ARGUMENT…: a script that has to go well.
runs() {
  local text=$1 start=$SECONDS
  shift
  script "$@" || {
    cat "$machines/said" >&2
    fail "not so: $text"
  }
  ok "$text ($((SECONDS - start)) s)"
}

says() {
  grep -q -e "$1" "$machines/said"
}

# processes: which Mosquittos run on the brokers' machines.
processes() {
  local broker
  for broker in ${brokers:?}; do
    printf '%s=%s ' "$broker" "$(on "$broker" systemctl show --value --property MainPID mosquitto)"
  done
}
