# shellcheck shell=bash
# On a Mac: the virtual machine that is the host, and what it has to be given. Needs say.sh, packages.sh, brokers.sh and
# multipass.sh.

: "${checkout:?all.sh names the checkout}"
: "${vm_image:?multipass.sh is sourced before}" "${vm_cpus:?}" "${vm_memory:?}" "${vm_disk:?}"

mac_host=mesh-host
# It may have to build the packages.
mac_host_cpus=2
mac_host_memory=4G
mac_host_disk=20G

# Where mesh-host has the checkout, and packages that were given.
mac_checkout=/opt/mqtt-mesh
mac_packages=/opt/mqtt-mesh-packages

# All that is the scripts' own on the Mac: which machines they have made, and how the page is reached.
mac_own=${HOME-}/.mqtt-mesh

# in_mac_host COMMAND…: as root there. Standard input is handed on.
in_mac_host() {
  multipass exec "$mac_host" -- sudo -H "$@"
}

# there SCRIPT ARGUMENT…: the script of that name runs in mesh-host, and says itself why if it fails.
there() {
  local name=$1
  shift
  in_mac_host "$mac_checkout/deploy/$name.sh" "$@" </dev/null
}

# is_ours NAME: was the virtual machine made by these scripts?
is_ours() {
  grep -q -x -F -e "$1" "$mac_own/machines" 2>/dev/null
}

# mac_bring_up NAME: makes it, or has it run.
mac_bring_up() {
  if ! is_ours "$1"; then
    [ "$(vm_state "$1")" = Missing ] ||
      fail "there is a virtual machine $1 that these scripts have not made; delete it, or give the broker another id"
    # First, so that nothing is made that teardown.sh would not know.
    printf '%s\n' "$1" >>"$mac_own/machines"
  fi
  bring_up_vm "$1"
}

# mac_launch NAME: with the one interface that every machine of Multipass has.
mac_launch() {
  local cpus=$vm_cpus memory=$vm_memory disk=$vm_disk
  [ "$1" != "$mac_host" ] || cpus=$mac_host_cpus memory=$mac_host_memory disk=$mac_host_disk
  multipass launch --name "$1" --cpus "$cpus" --memory "$memory" --disk "$disk" --timeout 600 "$vm_image" </dev/null
}

multipass_answers() {
  multipass list >/dev/null 2>&1 </dev/null
}

need_mac_multipass() {
  if ! found multipass; then
    found brew || fail "neither Multipass nor Homebrew is here; install Multipass from https://multipass.run and run this again"
    say "brew install --cask multipass"
    brew install --cask multipass >/dev/null || fail "Homebrew could not install Multipass; see its message above"
  fi
  within 60 multipass_answers || fail "Multipass does not answer; see: multipass version"
}

# need_mac_host: it is set up, and runs.
need_mac_host() {
  is_ours "$mac_host" || fail "$mac_host is not made yet; run ./deploy/setup-environment.sh first"
  bring_up_vm "$mac_host"
  in_mac_host sh -c 'command -v meshctl' >/dev/null </dev/null ||
    fail "$mac_host is not set up yet; run ./deploy/setup-environment.sh first"
  give_checkout
}

# give_checkout: mesh-host has the scripts and sources as they are here, and keeps what it has built.
give_checkout() {
  # macOS's tar would add files of its own.
  # shellcheck disable=SC2016 # it is the shell in mesh-host that fills this in
  COPYFILE_DISABLE=1 tar -C "$checkout" --exclude ./target --exclude ./.git --exclude ./.mesh -cf - . |
    in_mac_host sh -c '
      rm -rf "$1.new" && mkdir -p "$1.new" && tar -C "$1.new" --no-same-owner -xf - || exit
      [ ! -e "$1/target" ] || mv "$1/target" "$1.new/" || exit
      rm -rf "$1" && mv "$1.new" "$1"' - "$mac_checkout" || fail "the checkout cannot be copied to $mac_host, see above"
}

# give_packages DIR
give_packages() {
  ls "$1"/*.deb >/dev/null 2>&1 || fail "there are no packages in $1"
  # shellcheck disable=SC2016
  (cd "$1" && COPYFILE_DISABLE=1 tar -cf - ./*.deb) |
    in_mac_host sh -c 'rm -rf "$1" && mkdir -p "$1" && tar -C "$1" --no-same-owner -xf -' - "$mac_packages" ||
    fail "the packages cannot be copied to $mac_host, see above"
}

# mac_inventory: as `inventory`, of the mesh.toml in mesh-host.
mac_inventory() {
  # shellcheck disable=SC2016 # it is the shell in mesh-host that fills this in
  in_mac_host sh -c '
    umask 077 && rendered=$(mktemp -d) || exit
    meshctl render --out "$rendered" >/dev/null && cat "$rendered/inventory"
    result=$?
    rm -rf "$rendered"
    exit "$result"' </dev/null || fail "/etc/mesh/mesh.toml in $mac_host is not right, see above"
}

# moved INVENTORY: a line of id, old and new address for each broker that Multipass reaches elsewhere than mesh.toml says.
moved() {
  local broker old new
  while read -r broker old _; do
    new=$(vm_address "$broker")
    [ -z "$new" ] || [ "$new" = "$old" ] || printf '%s %s %s\n' "$broker" "$old" "$new"
  done <<<"$1"
}

# without_address: what to do, for those of whom it is not known where they are, or for all if all are.
without_address() {
  local broker inventory names=''
  inventory=$(mac_inventory) || return 0
  while read -r broker _; do
    [ -n "$(vm_address "$broker")" ] || names="$names $broker"
  done <<<"$inventory"
  if [ -n "$names" ]; then
    printf '; the addresses there of brokers that do not run may be others now: run ./deploy/deploy-brokers.sh%s' "$names"
  else
    printf '; when that is mended, run ./deploy/deploy-brokers.sh'
  fi
}

# write_addresses MOVED: mesh.toml in mesh-host gets these addresses, wherever it names the old ones as a broker's.
write_addresses() {
  local pairs toml inventory
  pairs=$(printf '%s\n' "$1" | cut -d ' ' -f 2- | tr '\n' ' ')
  toml=$(in_mac_host cat /etc/mesh/mesh.toml </dev/null) || fail "mesh.toml in $mac_host cannot be read, see above"
  [ -n "$toml" ] || fail "mesh.toml in $mac_host is empty"
  # All at once, since one may have what was another's; and what is not right does not take the place of what is.
  # shellcheck disable=SC2016 # that is awk's, and the shell's in mesh-host
  printf '%s\n' "$toml" | awk -v pairs="$pairs" '
    BEGIN { n = split(pairs, word, " "); for (i = 1; i < n; i += 2) new[word[i]] = word[i + 1] }
    /^[ \t]*(address|tls|websockets)[ \t]*=/ && match($0, /"[0-9.]+:/) {
      old = substr($0, RSTART + 1, RLENGTH - 2)
      if (old in new) $0 = substr($0, 1, RSTART) new[old] substr($0, RSTART + RLENGTH - 1)
    }
    { print }' |
    in_mac_host sh -c '
      cp -p "$1" "$1.new" && cat >"$1.new" && meshctl check --config "$1.new" >/dev/null && mv "$1.new" "$1"' - /etc/mesh/mesh.toml ||
    fail "mesh.toml in $mac_host cannot be corrected, see above$(without_address)"
  inventory=$(mac_inventory)
  [ -z "$(moved "$inventory")" ] ||
    fail "the brokers have other addresses than /etc/mesh/mesh.toml in $mac_host says, and it cannot be corrected by itself; see ./deploy/show-brokers.sh"
}

# allow NAME LINE: the line of authorized_keys is in force for the user ubuntu there, beside Multipass's own.
allow() {
  # shellcheck disable=SC2016 # it is the machine's shell that fills this in
  printf '%s\n' "$2" | multipass exec "$1" -- sh -c '
    umask 077 && cd && mkdir -p .ssh && line=$(cat) || exit
    grep -q -x -F -e "$line" .ssh/authorized_keys 2>/dev/null || printf "%s\n" "$line" >>.ssh/authorized_keys' ||
    fail "$1 cannot be told whom to let in"
}

# host_key NAME: by what its ssh server is known.
host_key() {
  multipass exec "$1" -- cut -d ' ' -f 1-2 /etc/ssh/ssh_host_ed25519_key.pub </dev/null || fail "$1 has no ssh server"
}

# introduce BROKER…: mesh-host may log in to these, and knows them.
introduce() {
  local broker key known=''
  in_mac_host sh -c '
    umask 077 && mkdir -p /root/.ssh && cd /root/.ssh || exit
    [ -e id_ed25519 ] || ssh-keygen -q -t ed25519 -N "" -C mesh-host -f id_ed25519' </dev/null ||
    fail "no key can be made for $mac_host, see above"
  key=$(in_mac_host cat /root/.ssh/id_ed25519.pub </dev/null)
  for broker in "$@"; do
    allow "$broker" "$key"
    known="$known$(vm_address "$broker") $(host_key "$broker")
"
  done
  printf '%s' "$known" | in_mac_host tee /root/.ssh/known_hosts >/dev/null || fail "nothing can be written in $mac_host"
}

# open_way_to_page ADDRESS: from this Mac, with a key that can do nothing else.
open_way_to_page() {
  [ -e "$mac_own/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C page -f "$mac_own/id_ed25519" ||
    fail "no key can be made for the way to the page, see above"
  allow "$mac_host" \
    "restrict,port-forwarding,permitopen=\"127.0.0.1:3000\",command=\"/bin/false\" $(cat "$mac_own/id_ed25519.pub")"
  printf '%s %s\n' "$mac_host" "$(host_key "$mac_host")" >"$mac_own/known_hosts"
  cat >"$mac_own/ssh_config" <<END
Host page
  HostName $1
  HostKeyAlias $mac_host
  User ubuntu
  IdentityFile "$mac_own/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "$mac_own/known_hosts"
  StrictHostKeyChecking yes
  ServerAliveInterval 15
  ExitOnForwardFailure yes
  LocalForward 3000 127.0.0.1:3000
END
}
