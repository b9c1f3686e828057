# shellcheck shell=bash
# How the host reaches the brokers' machines: over ssh, or by the program that stands in for Multipass. Needs host.sh.

: "${checkout:?the script that sources this names the checkout}"
: "${machines:?machines.sh is sourced before}"

# hand_out_keys USER: the host may log in to the others as this user: root, or one who may become root there.
hand_out_keys() {
  local user=$1 broker home=/root number=10
  on host ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
  for broker in ${brokers:?}; do
    if [ "$user" != root ]; then
      home=/home/$user
      on "$broker" useradd --create-home --shell /bin/bash "$user"
      printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$user" >"$machines/$broker/root/etc/sudoers.d/$user"
    fi
    on "$broker" install -d -m 700 -o "$user" "$home/.ssh"
    on "$broker" install -m 600 -o "$user" /dev/stdin "$home/.ssh/authorized_keys" \
      <"$machines/host/root/root/.ssh/id_ed25519.pub"
    on "$broker" ssh-keygen -q -A
    on "$broker" systemctl unmask --quiet ssh
    on "$broker" systemctl start ssh
    printf '192.168.100.%s %s\n' "$number" "$(cut -d ' ' -f 1-2 "$machines/$broker/root/etc/ssh/ssh_host_ed25519_key.pub")"
    number=$((number + 1))
  done >"$machines/host/root/root/.ssh/known_hosts"
}

# begin_multipass_host: a host that has Multipass and nothing else; its own network is not the brokers'.
begin_multipass_host() {
  begin_machines
  mkdir "$machines/relay"
  python3 "$checkout/deploy/tests/multipass/relay.py" serve "$machines/relay/socket" \
    "$checkout/deploy/tests/multipass/multipass.sh" &
  # shellcheck disable=SC2034 # machines.sh reads it
  machine_options=(--bind="$machines/relay:/srv/relay")
  machine host 10.96.0.1
  eventually 60 "the host has started" is_up host
  ip -n host link add mpqemubr0 type bridge
  ip -n host address add 10.97.0.1/24 dev mpqemubr0
  ip -n host link set mpqemubr0 up
  hand_out_scripts
  printf '#!/bin/sh\nexec python3 /root/mesh/deploy/tests/multipass/relay.py call /srv/relay/socket "$@"\n' \
    >"$machines/host/root/usr/local/bin/multipass"
  chmod 755 "$machines/host/root/usr/local/bin/multipass"
}

multipass() {
  on host multipass "$@" </dev/null
}
