# shellcheck shell=bash
# The brokers' machines, as mesh.toml names them, and how to reach them. Needs say.sh and packages.sh.

mesh_toml=${MESH_CONFIG:-/etc/mesh/mesh.toml}

# need_mesh: the host's programs are here, and mesh.toml is right.
need_mesh() {
  found meshctl || fail "meshctl is not installed; run ./deploy/setup-environment.sh first"
  as_root meshctl check --config "$mesh_toml" >/dev/null || fail "mesh.toml is not right, see above"
}

# render: writes what follows from mesh.toml into a folder that only root may read and that goes with the script.
render() {
  rendered=$(as_root mktemp -d /run/mesh-render.XXXXXX)
  trap 'as_root rm -rf "$rendered"' EXIT
  as_root meshctl render --config "$mesh_toml" --out "$rendered" >/dev/null || fail "nothing can be rendered, see above"
  login_as_mesh
}

# login_as_mesh: the scripts ask brokers as mesh-health does. Its password is in a file that Mosquitto's clients read, not
# on their command lines.
login_as_mesh() {
  # shellcheck disable=SC2016 # it is root's shell that fills this in
  as_root sh -c '
    umask 077
    cd "$1" && mkdir clients
    login=$(sed -n "s/^plugin_opt_health_password \(.*\)/-u mesh-health\n-P \1/p" */mosquitto.conf | head -n 2)
    for client in mosquitto_pub mosquitto_sub; do printf "%s\n" "$login" >"clients/$client"; done' - "$rendered" ||
    fail "the password of mesh-health cannot be read"
}

# as_mesh mosquitto_pub|mosquitto_sub ARGUMENT…
as_mesh() {
  local client=$1
  shift
  as_root env XDG_CONFIG_HOME="$rendered/clients" "$client" -i "mesh.deploy.$$.$RANDOM" "$@"
}

# inventory: a line of id, address and port for each broker, the most preferred first.
inventory() {
  as_root cat "$rendered/inventory"
}

# address_of BROKER, port_of BROKER
address_of() {
  inventory | sed -n "s/^$1 \([^ ]*\) .*/\1/p"
}

port_of() {
  inventory | sed -n "s/^$1 [^ ]* \([^ ]*\) .*/\1/p"
}

# chosen_brokers [BROKER…]: those named, or all; the least preferred first, and last who serves, so that clients are moved
# once, to a broker that has had its turn.
chosen_brokers() {
  local all name serves
  all=$(inventory | sed 's/ .*//')
  serves=$(primary || true)
  for name in "$@"; do
    printf '%s\n' "$all" | grep -q -x -e "$name" || fail "mesh.toml has no $name; it has: $(printf '%s' "$all" | tr '\n' ' ')"
  done
  {
    printf '%s\n' "$all" | sed -n '1!G;h;$p' | grep -v -x -e "${serves:-.}" || true
    printf '%s\n' "$all" | grep -x -e "${serves:-.}" || true
  } | while read -r name; do
    if [ $# -eq 0 ] || printf '%s\n' "$@" | grep -q -x -e "$name"; then
      printf '%s\n' "$name"
    fi
  done
}

# By ssh as this user, or if there is none by Multipass.
ssh_user=''

# How the brokers were reached last, for what runs by itself: `ssh` and a user, or `multipass`. Root's own.
way_file=/etc/mesh/way-to-brokers

note_way() {
  local way="${ssh_user:+ssh $ssh_user}"
  printf '%s\n' "${way:-multipass}" | as_root tee "$way_file" >/dev/null
}

# recall_way: true if it is known.
recall_way() {
  local program
  read -r program ssh_user <<<"$(as_root cat "$way_file" 2>/dev/null)"
  [ -n "$program" ]
}

# on_broker BROKER COMMAND…: runs a command as root on a broker's machine. Standard input is handed on.
on_broker() {
  local broker=$1 root='' words
  shift
  if [ -z "$ssh_user" ]; then
    multipass exec "$broker" -- sudo "$@"
    return
  fi
  [ "$ssh_user" = root ] || root='sudo -n '
  words=$(printf '%q ' "$@")
  # One connection does for all of it.
  [ -d "$HOME/.ssh" ] || mkdir -m 700 "$HOME/.ssh"
  ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ControlMaster=auto -o ControlPersist=10 \
    -o ControlPath="$HOME/.ssh/mesh-%C" "$ssh_user@$(address_of "$broker")" "$root$words"
}

# answers BROKER: does something listen at the broker's port?
answers() {
  (: <"/dev/tcp/$(address_of "$1")/$(port_of "$1")") 2>/dev/null
}

# at_once COMMAND NAME…: runs it with each name, all at the same time; what it says is said under the name. `failed` are the
# names with which it failed, a space after each.
at_once() {
  local command=$1 name tries=()
  shift
  failed=''
  for name in "$@"; do
    { "$command" "$name" 2>&1 | say_of "$name"; } &
    tries+=("$! $name")
  done
  for name in "${tries[@]+"${tries[@]}"}"; do
    wait "${name%% *}" || failed="$failed${name#* } "
  done
}

# say_of NAME: says each line of standard input, as it comes.
say_of() {
  local line
  while read -r line; do say "$1: $line"; done
}

# within SECONDS COMMAND…: waits until the command succeeds; false if it does not.
within() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
}

# passes FROM TO: does a message that is published at one broker arrive at the other? For up to 20 s, since a link that
# was down is tried every few seconds.
passes() {
  local topic end heard
  topic=\$mesh/flow/deploy-$$-$1-$2
  as_mesh mosquitto_sub -h "$(address_of "$2")" -p "$(port_of "$2")" -C 1 -W 20 -t "$topic" >/dev/null 2>&1 &
  heard=$!
  end=$((SECONDS + 20))
  while kill -0 "$heard" 2>/dev/null && [ "$SECONDS" -le "$end" ]; do
    as_mesh mosquitto_pub -h "$(address_of "$1")" -p "$(port_of "$1")" -t "$topic" -m "$1" >/dev/null 2>&1 || true
    sleep 0.2
  done
  wait "$heard"
}

# primary: who serves, as mesh-health says; nothing if it does not run.
primary() {
  meshctl status --config "$mesh_toml" 2>/dev/null | sed -n '1s/.* primary \([^,]*\),.*/\1/p'
}

# status_row BROKER: what mesh-health says of it.
status_row() {
  meshctl status --config "$mesh_toml" 2>/dev/null | grep "^ $1 "
}
