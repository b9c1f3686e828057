#!/usr/bin/env bash
# Stands in for Multipass in tests: its commands, as far as the scripts use them, over the machines of machines.sh. An
# instance is a Debian with cloud-init, as an image of Multipass is an Ubuntu; what it prints and its exit codes are
# those of Multipass 1.16. Traps of the real one that it keeps: `launch` succeeds though cloud-init has failed, a deleted
# instance blocks its name, `exec` starts an instance that is stopped, and reads standard input, and an instance that is
# made anew has another address.
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/all.sh"

# Each instance is a folder of this name beside those of the machines; a file `deleted` says that it is.
instances=$machines/instances
# Multipass's own network, on a bridge of the host.
own_bridge=mpqemubr0
own_network=10.97.0

# no TEXT: as Multipass refuses.
no() {
  printf '%s failed: %s\n' "$command" "$1" >&2
  exit 2
}

state() {
  if [ ! -d "$instances/$1" ]; then
    printf 'Missing\n'
  elif [ -e "$instances/$1/deleted" ]; then
    printf 'Deleted\n'
  elif [ -n "$(leader "$1" 2>/dev/null)" ]; then
    printf 'Running\n'
  else
    printf 'Stopped\n'
  fi
}

need() {
  case $(state "$1") in
    Missing) no "instance \"$1\" does not exist" ;;
    Deleted) no "instance \"$1\" is deleted" ;;
  esac
}

start() {
  local name=$1
  boot_instance "$name"
  eventually 300 "the instance $name has started" on "$name" test -e /var/lib/cloud/instance/boot-finished
}

# boot_instance NAME: its interfaces are those that it was launched with.
boot_instance() {
  local name=$1 bridge mac number=0
  ip netns delete "$name" 2>/dev/null || true
  ip netns add "$name"
  ip -n "$name" link set lo up
  while read -r bridge mac; do
    ip -n host link add "$name-$number" type veth peer name "eth$number" netns "$name"
    ip -n "$name" link set "eth$number" address "$mac"
    ip -n host link set "$name-$number" master "$bridge" up
    number=$((number + 1))
  done <"$instances/$name/interfaces"
  start_machine "$name"
}

stop() {
  local first
  first=$(leader "$1" 2>/dev/null) || return 0
  [ -n "$first" ] || return 0
  # What systemd takes for: power off, now.
  kill -s RTMIN+14 "$first" 2>/dev/null || kill -KILL "$first"
  eventually 30 "the instance $1 has stopped" is_stopped "$1"
}

is_stopped() {
  [ -z "$(leader "$1" 2>/dev/null)" ] && ! mountpoint -q "$machines/$1/root/proc"
}

addresses() {
  on "$1" ip -4 -brief address show scope global 2>/dev/null </dev/null | grep -o '[0-9.]*/' | tr -d / || true
}

launch() {
  local name='' cloud='' networks=() number
  while [ $# -gt 0 ]; do
    case $1 in
      --name | --cpus | --memory | --disk | --cloud-init | --network | --timeout)
        [ "$1" != --name ] || name=$2
        [ "$1" != --cloud-init ] || cloud=$2
        [ "$1" != --network ] || networks+=("$2")
        shift
        ;;
      -*) no "unknown option $1" ;;
    esac
    shift
  done
  [ "$(state "$name")" = Missing ] || no "instance \"$name\" already exists"
  [ -z "$cloud" ] || [ "$cloud" = - ] || no "the snap cannot read $cloud"

  # Several may be launched at once.
  exec 8>"$machines/launching"
  flock 8
  number=$(($(cat "$machines/launched" 2>/dev/null || echo 0) + 1))
  printf '%s\n' "$number" >"$machines/launched"
  mkdir -p "$instances/$name"
  exec 8>&-
  printf '%s 52:54:00:97:00:%02x\n' "$own_bridge" "$number" >"$instances/$name/interfaces"
  for network in "${networks[@]+"${networks[@]}"}"; do
    case $network in
      name=*,mode=manual,mac=*) ;;
      *) no "this stand-in knows name=…,mode=manual,mac=… only, not $network" ;;
    esac
    printf '%s %s\n' "$network" '' | sed 's/name=\([^,]*\),mode=manual,mac=\([^ ]*\) */\1 \2/' >>"$instances/$name/interfaces"
  done
  while read -r bridge _; do
    ip -n host link show "$bridge" >/dev/null 2>&1 || {
      rm -r "${instances:?}/$name"
      no "network $bridge not found"
    }
  done <"$instances/$name/interfaces"

  lay_machine "$name"
  local seed=$machines/$name/root/var/lib/cloud/seed/nocloud
  mkdir -p "$seed"
  if [ -n "$cloud" ]; then cat; else printf '#cloud-config\n'; fi >"$seed/user-data"
  printf 'instance-id: %s\nlocal-hostname: %s\n' "$name" "$name" >"$seed/meta-data"
  # The base has no other.
  printf '#cloud-config\nlocale: C.UTF-8\n' >"$seed/vendor-data"
  printf 'version: 2\nethernets:\n  eth0:\n    addresses: [%s.%s/24]\n' "$own_network" "$((number + 10))" >"$seed/network-config"
  start "$name"
  printf 'Launched: %s\n' "$name"
}

info() {
  local name=$1
  [ "$(state "$name")" != Missing ] || no "instance \"$name\" does not exist"
  [ "${2-} ${3-}" = '--format csv' ] || no "this stand-in knows --format csv only"
  printf 'Name,State,Ipv4,Ipv6,Release,Image hash,Image release,Load,Disk usage,Disk total,Memory usage,Memory total,Mounts,'
  printf 'AllIPv4,CPU(s),Snapshots\n'
  printf '%s,%s,%s,,Debian,,,,,,,,,%s,,0\n' "$name" "$(state "$name")" "$(addresses "$name" | head -n 1)" \
    "$(addresses "$name" | paste -s -d ';')"
}

list() {
  local name
  printf 'Name,State,IPv4,IPv6,Release,AllIPv4\n'
  for name in $(find "$instances" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort); do
    printf '%s,%s,%s,,Debian,"%s"\n' "$name" "$(state "$name")" "$(addresses "$name" | head -n 1)" \
      "$(addresses "$name" | paste -s -d ,)"
  done
}

delete() {
  local name='' then=''
  for word in "$@"; do
    if [ "$word" = --purge ]; then then=purge; else name=$word; fi
  done
  need "$name"
  stop "$name"
  touch "$instances/$name/deleted"
  [ -z "$then" ] || purge_one "$name"
}

purge_one() {
  umount "$machines/$1/root"
  ip netns delete "$1"
  rm -rf "${instances:?}/$1" "${machines:?}/$1"
}

purge() {
  local name
  for name in $(find "$instances" -mindepth 2 -maxdepth 2 -name deleted -printf '%h\n' | sed 's#.*/##'); do
    purge_one "$name"
  done
}

mkdir -p "$instances"
command=${1-}
shift || true
case $command in
  launch) launch "$@" ;;
  info) info "$@" ;;
  list) list ;;
  exec)
    name=$1
    shift
    [ "${1-}" != -- ] || shift
    need "$name"
    [ "$(state "$name")" = Running ] || start "$name"
    on "$name" runuser -u ubuntu -- env HOME=/home/ubuntu "$@"
    ;;
  start | stop)
    need "$1"
    if [ "$command" = stop ]; then stop "$1"; elif [ "$(state "$1")" != Running ]; then start "$1"; fi
    ;;
  delete) delete "$@" ;;
  recover) rm -f "$instances/$1/deleted" ;;
  purge) purge ;;
  version) printf 'multipass   1.16.1\nmultipassd  1.16.1\n' ;;
  *) no "unknown command, or one that this stand-in does not know" ;;
esac
