# shellcheck shell=bash
# How a broker's machine is changed, so that a script which ends midway leaves a note of it, and what was changed is shown to
# work. Needs say.sh, packages.sh and brokers.sh.

# begin_change BROKER: what is changed from here on is not in use yet. The note is there until it is, also if this script
# does not get that far.
begin_change() {
  on_broker "$1" sh -c 'mkdir -p /etc/mesh && touch /etc/mesh/unfinished' </dev/null || fail "nothing can be written on $1"
}

end_change() {
  on_broker "$1" rm -f /etc/mesh/unfinished </dev/null || fail "nothing can be removed on $1"
}

is_unfinished() {
  on_broker "$1" test -e /etc/mesh/unfinished </dev/null
}

# differs BROKER FILE PATH: is PATH there something else than FILE here?
differs() {
  local wanted
  wanted=$(as_root sha256sum "$2" | cut -d ' ' -f 1)
  [ "$(on_broker "$1" sha256sum "$3" 2>/dev/null </dev/null | cut -d ' ' -f 1)" != "$wanted" ]
}

# put BROKER FILE PATH: FILE here becomes PATH there, whole or not at all.
put() {
  # shellcheck disable=SC2016 # it is the broker's shell that fills this in
  as_root cat "$2" | on_broker "$1" sh -c '
    umask 022
    mkdir -p "$(dirname "$1")"
    umask 077
    cat >"$1.new" && chgrp mosquitto "$1.new" && chmod 640 "$1.new" && mv "$1.new" "$1"' - "$3" ||
    fail "$3 cannot be written on $1"
}

# is_configured BROKER: does it have the mosquitto.conf that follows from mesh.toml?
is_configured() {
  ! differs "$1" "${rendered:?render comes first}/$1/mosquitto.conf" /etc/mesh/mosquitto.conf
}

# reread BROKER: it reads passwords, access control and certificates again, and ends the sessions of those who may not have
# one any more; no other.
reread() {
  on_broker "$1" systemctl reload mosquitto </dev/null || fail "Mosquitto on $1 cannot be told to read its files again"
}

# is_in_step BROKER: messages pass between it and every other broker that answers. All ways are tried at once.
is_in_step() {
  local other way from to ways=() tries=()
  for other in $(inventory | sed 's/ .*//'); do
    if [ "$other" = "$1" ] || ! answers "$other"; then continue; fi
    ways+=("$other $1")
    # The link from here is the other's, which may have its turn still to come.
    ! is_configured "$other" || ways+=("$1 $other")
  done
  for way in "${ways[@]+"${ways[@]}"}"; do
    read -r from to <<<"$way"
    passes "$from" "$to" &
    tries+=("$! $from $to")
  done
  for way in "${tries[@]+"${tries[@]}"}"; do
    read -r way from to <<<"$way"
    wait "$way" || fail "messages do not pass from $from to $to; see journalctl -u mosquitto on $to"
  done
}
