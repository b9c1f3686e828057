#!/usr/bin/env bash
# Makes a broker of the mesh of each machine that mesh.toml names: virtual machines of Multipass, which are made or
# mended as needed, or Debian and Ubuntu hosts that answer over ssh. They are changed one at a time, who serves last, and
# only where something differs; each has to pass messages to and from the others before the next one's turn.
#
# Brokers get whom they let in and their certificates too; who was changed in these only is told to read them, and goes on.
# They get own directives (mosquitto.extra_dir), and once what they begin with: an imported database, dynamic security.
#
#   ./deploy/deploy-brokers.sh [--ssh USER] [--packages DIR] [--upgrade] [BROKER…]
#
# --ssh USER       hosts that are there, by ssh as this user: root, or one who may use sudo without a password
# --packages DIR   where the packages are; else target/debian
# --upgrade        Mosquitto too, if its machine's apt has a newer one; only of a mesh that is well, so that clients lose
#                  nothing and connect again once at most
# BROKER           only these
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_deploy "$@"

packages=${CARGO_TARGET_DIR:-$checkout/target}/debian
named=()
upgrade=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --ssh)
      ssh_user=${2:?--ssh needs a user}
      shift
      ;;
    --packages)
      packages=${2:?--packages needs a folder}
      shift
      ;;
    --upgrade) upgrade=yes ;;
    -*) fail "unknown option $1; see --help" ;;
    *) named+=("$1") ;;
  esac
  shift
done
[ -n "$ssh_user" ] || found multipass || fail "Multipass is not here; run ./deploy/setup-environment.sh, or give --ssh USER"

# reach BROKER: is it a machine that can be a broker?
reach() {
  if [ -z "$ssh_user" ]; then
    bring_up_vm "$1"
    return
  fi
  on_broker "$1" true </dev/null ||
    fail "$1 ($(address_of "$1")) cannot be used over ssh as $ssh_user; is it up, is the key there, sudo without a password?"
  on_broker "$1" sh -c 'command -v apt-get && command -v systemctl' >/dev/null </dev/null ||
    fail "$1 has no apt or no systemd; a broker's machine is a Debian or Ubuntu"
}

# install_plugin BROKER: the package with the plugin, if it is not there in this version.
install_plugin() {
  local broker=$1 architecture file version have
  # What is not installed has no line.
  have=$(on_broker "$broker" sh -c 'dpkg --print-architecture; dpkg-query --show mqtt-mesh-broker 2>/dev/null || true' </dev/null)
  architecture=$(printf '%s\n' "$have" | sed -n 1p)
  have=$(printf '%s\n' "$have" | sed -n 2p)
  file=$(package_in "$packages" mqtt-mesh-broker "$architecture")
  version=$(dpkg-deb --field "$file" Version)
  [ "$have" != "$(printf 'mqtt-mesh-broker\t%s' "$version")" ] || return 0
  begin_change "$broker"
  on_broker "$broker" tee /var/cache/mqtt-mesh-broker.deb <"$file" >/dev/null
  # apt looks at what the plugin needs: the C library, and a Mosquitto that it knows.
  {
    on_broker "$broker" apt-get update -q &&
      on_broker "$broker" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends /var/cache/mqtt-mesh-broker.deb
  } >"$log" 2>&1 </dev/null || {
    tail -n 10 "$log" >&2
    fail "the package cannot be installed on $broker; apt's last lines are above"
  }
  on_broker "$broker" rm /var/cache/mqtt-mesh-broker.deb </dev/null
  changed=yes
}

# has_newer_mosquitto BROKER: can its machine have a newer Mosquitto?
has_newer_mosquitto() {
  on_broker "$1" apt-get update -q >"$log" 2>&1 </dev/null || {
    tail -n 5 "$log" >&2
    fail "apt on $1 cannot tell what is new; its last lines are above"
  }
  on_broker "$1" apt-get install --simulate --only-upgrade mosquitto >"$log" </dev/null || return 1
  grep -q '^Inst mosquitto ' "$log"
}

# upgrade_mosquitto BROKER: apt starts the new one at once, so nobody may be served by the old one any more.
upgrade_mosquitto() {
  say "$1 gets a newer Mosquitto"
  on_broker "$1" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --only-upgrade \
    -o Dpkg::Options::=--force-confold mosquitto >"$log" 2>&1 </dev/null || {
    tail -n 10 "$log" >&2
    fail "Mosquitto cannot be upgraded on $1; apt's last lines are above"
  }
}

# configure BROKER: its mosquitto.conf, for root and Mosquitto only, if it has another, and the folder for what it stores.
configure() {
  local data
  ! is_configured "$1" || return 0
  begin_change "$1"
  data=$(as_root sed -n 's/^persistence_location //p' "$rendered/$1/mosquitto.conf")
  # shellcheck disable=SC2016 # it is the broker's shell that fills this in
  on_broker "$1" sh -c '[ -d "$1" ] || install -d -o mosquitto -g mosquitto -m 700 "$1"' - "$data" </dev/null ||
    fail "$data cannot be made on $1"
  put "$1" "$rendered/$1/mosquitto.conf" /etc/mesh/mosquitto.conf
  changed=yes
}

# hand_over BROKER: if it serves, its clients go to another first, and come only that one time.
hand_over() {
  [ "$(primary)" = "$1" ] || return 0
  say "$1 serves; its clients go to another broker first"
  # The others may have been started a moment ago.
  within 120 may_drain "$1" || {
    cat "$log" >&2
    fail "$1 serves, and cannot be drained, see above"
  }
  within 120 is_drained "$1" || fail "$1 did not hand over its clients within two minutes; see meshctl status"
}

may_drain() {
  as_root meshctl drain --config "$mesh_toml" "$1" >"$log" 2>&1
}

is_drained() {
  status_row "$1" | grep -q 'draining, 0 sessions left'
}

# restart BROKER: and wait until it takes connections.
restart() {
  on_broker "$1" systemctl restart mosquitto </dev/null || true
  within 30 answers "$1" || {
    on_broker "$1" journalctl --quiet --unit mosquitto --lines 5 --output cat </dev/null >&2 || true
    fail "$1 does not take connections at $(address_of "$1"):$(port_of "$1"); what Mosquitto said last is above"
  }
}

# is_ready BROKER: may clients be sent to it?
is_ready() {
  local row
  row=$(status_row "$1") && [[ $row == *' healthy '* && $row != *'not in sync'* ]]
}

# lay_out BROKER: its machine gets all that it lacks; nothing of it is in use yet. `changed` says that Mosquitto has to be
# started anew for that, `files` that there is something to be read again.
lay_out() {
  changed='' files=''
  install_plugin "$1"
  ! carry_files "$1" passwords acl authority certificate key || files=yes
  ! carry_named "$1" || changed=yes
  ! carry_directives "$1" || changed=yes
  ! give_dynamic_security "$1" || changed=yes
  configure "$1"
}

# prepare BROKER: its machine is made and laid out.
prepare() {
  local start=$SECONDS
  log=$(mktemp)
  reach "$1"
  say "it can be a broker ($((SECONDS - start)) s)"
  lay_out "$1"
  say "it has its packages and files ($((SECONDS - start)) s)"
  rm -f "$log"
}

# prepare_idle BROKER…: those on which nobody is served yet are prepared all at once, since that is what takes long.
# `prepared` are their names.
prepare_idle() {
  local broker idle=()
  for broker in "$@"; do
    answers "$broker" || idle+=("$broker")
  done
  at_once prepare "${idle[@]+"${idle[@]}"}"
  [ -z "$failed" ] || fail "${failed}cannot be prepared, see above; when that is mended, run this again"
  prepared=" ${idle[*]-} "
}

# deploy BROKER: all of it.
deploy() {
  local broker=$1 files='' changed='' newer='' database='' unfinished=''
  case $prepared in
    *" $broker "*) ! is_unfinished "$broker" || unfinished=yes ;;
    *)
      reach "$broker"
      # By somebody before: what is changed from here on is noted too.
      ! is_unfinished "$broker" || unfinished=yes
      lay_out "$broker"
      ;;
  esac
  [ -z "$upgrade" ] || ! has_newer_mosquitto "$broker" || newer=yes
  ! wants_database "$broker" || database=yes
  open_journal "$broker"
  on_broker "$broker" systemctl enable --quiet mosquitto </dev/null
  if [ -z "$changed$newer$database$unfinished" ] && answers "$broker"; then
    if [ -n "$files" ]; then
      reread "$broker"
      is_in_step "$broker"
      end_change "$broker"
      say "$broker has new passwords, rights or certificates, and goes on"
    else
      say "$broker is as it should be"
    fi
    return 0
  fi
  hand_over "$broker"
  [ -z "$newer" ] || upgrade_mosquitto "$broker"
  [ -z "$database" ] || give_database "$broker"
  restart "$broker"
  is_in_step "$broker"
  end_change "$broker"
  if status_row "$broker" | grep -q draining; then
    as_root meshctl enable --config "$mesh_toml" "$broker" >/dev/null
  fi
  # Before the next one goes, this one must be able to serve.
  [ -z "$(primary)" ] || within 120 is_ready "$broker" || fail "$broker is not healthy and in sync after two minutes; see meshctl status"
  say "$broker runs at $(address_of "$broker"):$(port_of "$broker"), and messages pass"
}

# need_well: who wants nothing to be lost begins with a mesh to which nothing is lost.
need_well() {
  meshctl status --config "$mesh_toml" 2>/dev/null | grep '^ok: \([0-9]*\) of \1 brokers healthy' >/dev/null ||
    fail "the mesh is not well, or mesh-health does not run; see meshctl status, or run this without --upgrade"
}

need_mesh
found ssh || install openssh-client
need_mosquitto_clients
log=$(mktemp)
render
[ -z "$upgrade" ] || need_well
brokers=$(chosen_brokers "${named[@]+"${named[@]}"}")
# shellcheck disable=SC2046,SC2086 # they are words
need_access nginx $(inventory | sed 's/ .*//')
prepare_journals
steps $(($(printf '%s\n' "$brokers" | wc -l) + 1))
step "Machines on which nobody is served yet"
# shellcheck disable=SC2086 # they are words
prepare_idle $brokers
for broker in $brokers; do
  step "$broker"
  deploy "$broker"
done
rm -f "$log"
note_way
say "next: ./deploy/start-services.sh"
