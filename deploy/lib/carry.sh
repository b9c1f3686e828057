# shellcheck shell=bash
# What a broker's configuration names besides, carried to its machine for root and Mosquitto only: whom it lets in, by what
# it is known, own directives and the files that these name; and what it only begins with, since it goes on to write that
# itself. Needs say.sh, packages.sh, brokers.sh, access.sh and change.sh.

: "${mesh_toml:?brokers.sh is sourced before}"

# The broker's machine has a list there of what came from here: own directives, and files that they name.
carried_list=/etc/mesh/carried

# Runs in a shell there or here: the own directives in the folder $1, a line of sum and name each, or that there is none.
# shellcheck disable=SC2016 # it is that shell that fills this in
list_directives='cd "$1" 2>/dev/null || { echo "no folder"; exit 0; }
  find -L . -maxdepth 1 -type f -name "*.conf" -exec sha256sum {} + | LC_ALL=C sort -k 2'

# give BROKER FILE PATH: as `put`, once, for a file that is Mosquitto's own from then on, in a folder where it may write.
give() {
  # shellcheck disable=SC2016 # it is the broker's shell that fills this in
  as_root cat "$2" | on_broker "$1" sh -c '
    umask 077
    folder=$(dirname "$1")
    [ -d "$folder" ] || install -d -o mosquitto -g mosquitto -m 700 "$folder"
    runuser -u mosquitto -- test -w "$folder" || exit 9
    cat >"$1.new" && chown mosquitto: "$1.new" && mv "$1.new" "$1"' - "$3" ||
    fail "Mosquitto on $1 cannot have $3 as its own file; name a place in $mesh_toml where it may write, as in mosquitto.data_dir"
}

# carry_files BROKER KIND…: of these, what it reads again when it is told to, where that differs; true if anything did.
carry_files() {
  local broker=$1 kind path have paths=() carried=''
  shift
  while read -r kind path; do
    case " $* " in
      # What own directives name its machine may have by itself.
      *" ${kind:-none} "*) if [ "$kind" != named ] || as_root test -f "$path"; then paths+=("$path"); fi ;;
    esac
  done <<<"$(files_of "$broker")"
  [ "${#paths[@]}" -gt 0 ] || return 1
  # All in one question: each takes its time through Multipass.
  have=$(on_broker "$broker" sha256sum "${paths[@]}" 2>/dev/null </dev/null || true)
  for path in "${paths[@]}"; do
    ! printf '%s\n' "$have" | grep -q -x -F -e "$(as_root sha256sum "$path")" || continue
    [ -n "$carried" ] || begin_change "$broker"
    put "$broker" "$path" "$path"
    carried=yes
  done
  [ -n "$carried" ]
}

# carry_named BROKER: the files that its own directives name, where they are here and differ; true if any did. What is not here
# its machine has to have, and what it has of its own is not replaced.
carry_named() {
  local broker=$1 kind path known new=''
  known=$(on_broker "$broker" cat "$carried_list" 2>/dev/null </dev/null || true)
  while read -r kind path; do
    [ "$kind" = named ] || continue
    if ! as_root test -f "$path"; then
      on_broker "$broker" test -f "$path" </dev/null ||
        fail "own directives of $broker name $path, which neither it nor this machine has; put it there, here or on $broker"
    elif ! printf '%s\n' "$known" | grep -q -x -F -e "$path"; then
      if ! on_broker "$broker" test -e "$path" </dev/null; then
        new="$new$path
"
      elif differs "$broker" "$path" "$path"; then
        fail "$broker has a $path that did not come from here, and it is another one than that here; remove one of them"
      fi
    fi
  done <<<"$(files_of "$broker")"
  # So that it goes when the package is purged. The list comes first: it may have more than there is, not less.
  # shellcheck disable=SC2016 # it is the broker's shell that fills this in
  [ -z "$new" ] || printf '%s' "$new" | on_broker "$broker" sh -c 'umask 022; mkdir -p "${1%/*}" && cat >>"$1"' - "$carried_list" ||
    fail "$carried_list cannot be written on $broker"
  carry_files "$broker" named
}

# directives_in FOLDER LISTING: the paths of those listed.
directives_in() {
  printf '%s\n' "$2" | sed -n "s#^[0-9a-f]* *\./#$1/#p"
}

# carry_directives BROKER: its own directives become those of the folder here; true if they were others. Those there that
# never came from here are nobody's to remove, and `meshctl check` has not seen them.
carry_directives() {
  local broker=$1 folder wanted have known path stale=()
  folder=$(files_of "$broker" | sed -n 's/^directives //p')
  [ -n "$folder" ] || return 1
  wanted=$(as_root sh -c "$list_directives" - "$folder")
  [ "$wanted" != 'no folder' ] || wanted=''
  have=$(on_broker "$broker" sh -c "$list_directives" - "$folder" </dev/null)
  [ "$have" != "$wanted" ] || return 1
  known=$(on_broker "$broker" cat "$carried_list" 2>/dev/null </dev/null || true)
  while IFS= read -r path; do
    if [ -z "$path" ] || as_root test -f "$path"; then continue; fi
    printf '%s\n' "$known" | grep -q -x -F -e "$path" ||
      fail "$broker has own directives in $path that did not come from here; put that file here too, or remove it there"
    stale+=("$path")
  done <<<"$(directives_in "$folder" "$have")"
  begin_change "$broker"
  # The list comes first: it may have more than the folder, not less.
  # shellcheck disable=SC2016 # it is the broker's shell that fills this in
  printf '%s\n%s\n' "$known" "$(directives_in "$folder" "$wanted")" | sed '/^$/d' | sort -u |
    on_broker "$broker" sh -c 'umask 022; mkdir -p "$1" && cat >"$2"' - "$folder" "$carried_list" ||
    fail "$folder cannot be made on $broker"
  while IFS= read -r path; do
    [ -z "$path" ] || ! differs "$broker" "$path" "$path" || put "$broker" "$path" "$path"
  done <<<"$(directives_in "$folder" "$wanted")"
  [ "${#stale[@]}" -eq 0 ] || on_broker "$broker" rm -f "${stale[@]}" </dev/null ||
    fail "${stale[*]} cannot be removed on $broker"
}

# give_dynamic_security BROKER: the configuration of that plugin, if there is none; the plugin writes it from then on. True
# if it was given.
give_dynamic_security() {
  local path
  path=$(files_of "$1" | sed -n 's/^dynamic-security //p')
  [ -n "$path" ] && ! on_broker "$1" test -e "$path" </dev/null || return 1
  as_root test -f "$path" ||
    fail "mesh.toml names $path, which neither $1 nor this machine has; make it here: mosquitto_ctrl dynsec init $path admin"
  begin_change "$1"
  give "$1" "$path" "$path"
}

# wants_database BROKER: is there one here that it is to begin with? One that has stored anything has what is newer.
wants_database() {
  local from to
  read -r from to <<<"$(files_of "$1" | sed -n 's/^database //p')"
  [ -n "$from" ] && as_root test -f "$from" || return 1
  ! has_state "$1" "$to" || {
    say "$1 has stored messages of its own: $from is not used, and need not stay here"
    return 1
  }
}

# has_state BROKER DATABASE: has Mosquitto or the plugin stored anything there?
has_state() {
  on_broker "$1" sh -c "test -e '$2' || test -e '${2%/*}/mesh.journal'" </dev/null
}

# give_database BROKER: its Mosquitto stands still meanwhile, and what that stored when it ended would count. A database that
# was given has another name from then on: were the machine lost later, it would bring back what was deleted since.
give_database() {
  local from to
  read -r from to <<<"$(files_of "$1" | sed -n 's/^database //p')"
  on_broker "$1" systemctl stop mosquitto </dev/null || fail "Mosquitto on $1 cannot be stopped"
  wants_database "$1" || return 0
  give "$1" "$from" "$to"
  as_root mv "$from" "$from.given"
  say "$1 begins with what is stored in $from, which is called $from.given now"
}
