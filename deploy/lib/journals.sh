# shellcheck shell=bash
# How mesh-logs comes to the journals of the brokers' machines: over ssh, with a key of its own that may do nothing else
# there. Needs say.sh, packages.sh and brokers.sh.

# The home of the user mesh-logs, on this machine.
logs_home=/var/lib/mesh-logs

# /usr/bin/install is the program; `install` here is what packages.sh has for packages.

# write_as_logs FILE: standard input becomes a file of mesh-logs, if it differs.
write_as_logs() {
  local new
  new=$(cat)
  [ "$(as_root cat "$1" 2>/dev/null || true)" != "$new" ] || return 0
  printf '%s\n' "$new" | as_root /usr/bin/install -o mesh-logs -g mesh -m 600 /dev/stdin "$1"
}

# prepare_journals: the key of mesh-logs, and the brokers by their names.
prepare_journals() {
  as_root /usr/bin/install -d -o mesh-logs -g mesh -m 700 "$logs_home/.ssh"
  as_root test -e "$logs_home/.ssh/id_ed25519" ||
    as_root runuser -u mesh-logs -- ssh-keygen -q -t ed25519 -N '' -C mesh-logs -f "$logs_home/.ssh/id_ed25519" ||
    fail "no key can be made for mesh-logs, see above"
  {
    printf '# Written by deploy-brokers.sh, from mesh.toml.\n'
    inventory | while read -r broker address _; do
      printf 'Host %s\n  HostName %s\n  HostKeyAlias %s\n' "$broker" "$address" "$broker"
    done
    # A machine that is cut off is noticed by its silence.
    printf 'Host *\n  User mesh-journal\n  BatchMode yes\n  StrictHostKeyChecking yes\n  ConnectTimeout 10\n'
    printf '  ServerAliveInterval 5\n  ServerAliveCountMax 3\n'
  } | write_as_logs "$logs_home/.ssh/config"
}

# open_journal BROKER: lets that key in, and remembers the machine by its own.
open_journal() {
  local broker=$1 key allowed known=$logs_home/.ssh/known_hosts
  key=$(on_broker "$broker" cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null </dev/null | cut -d ' ' -f 1-2) || true
  if [ -z "$key" ]; then
    say "$broker has no ssh server; its log lines stay there, see [[logs.source]] in ${mesh_toml:?brokers.sh names it}"
    return 0
  fi
  {
    as_root cat "$known" 2>/dev/null | grep -v "^$broker " || true
    printf '%s %s\n' "$broker" "$key"
  } | write_as_logs "$known"
  allowed="restrict,command=\"/usr/lib/mesh/read-journal\" $(as_root cat "$logs_home/.ssh/id_ed25519.pub")"
  printf '%s\n' "$allowed" | on_broker "$broker" sh -c '
    cat >/var/lib/mesh-journal/.ssh/authorized_keys.new && cd /var/lib/mesh-journal/.ssh && chmod 644 authorized_keys.new &&
      mv authorized_keys.new authorized_keys' || fail "mesh-logs cannot be let in on $broker"
}
