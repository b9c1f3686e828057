# shellcheck shell=bash
# On macOS the host is a virtual machine too: what runs there is made for Linux and systemd, and Multipass's machines have no
# network of their own there in which their addresses could be fixed. So the scripts make `mesh-host`, give it this checkout,
# and run themselves there; it reaches the brokers over ssh, at the addresses that Multipass gives. When those are others than
# before, as they may be after a restart of the Mac, mesh.toml there is corrected. Needs all the other files.

: "${mac_host:?mac-host.sh is sourced before}" "${mac_own:?}"

mac_only_multipass="on a Mac the brokers' machines are Multipass's; for others run this on the Linux that is in front of them"

# on_macos FUNCTION ARGUMENT…: on a Mac this is done, and ends the script. Help is the same everywhere.
on_macos() {
  is_mac || return 0
  case ${2-} in -h | --help) return 0 ;; esac
  "$@"
  exit
}

mac_setup() {
  local options=() packages=''
  while [ $# -gt 0 ]; do
    case $1 in
      --packages)
        packages=${2:?--packages needs a folder}
        shift
        ;;
      --no-multipass) fail "$mac_only_multipass" ;;
      *) fail "unknown option $1; see --help" ;;
    esac
    shift
  done
  steps 3
  step "Looking for Multipass"
  need_mac_multipass
  step "The virtual machine $mac_host, which comes in front of the brokers"
  (umask 077 && mkdir -p "$mac_own")
  mac_bring_up "$mac_host"
  say "$mac_host is at $(vm_address "$mac_host")"
  give_checkout
  if [ -n "$packages" ]; then
    give_packages "$packages"
    options=(--packages "$mac_packages")
  fi
  step "setup-environment.sh in $mac_host"
  there setup-environment --no-multipass "${options[@]+"${options[@]}"}"
  say "which on a Mac writes where the brokers are into mesh.toml itself"
}

mac_deploy() {
  local options=() names=() packages='' inventory moved running=() name old new
  while [ $# -gt 0 ]; do
    case $1 in
      --ssh) fail "$mac_only_multipass" ;;
      --packages)
        packages=${2:?--packages needs a folder}
        shift
        ;;
      --upgrade) options+=(--upgrade) ;;
      -*) fail "unknown option $1; see --help" ;;
      *) names+=("$1") ;;
    esac
    shift
  done
  steps 3
  step "The virtual machines"
  need_mac_host
  inventory=$(mac_inventory)
  for name in "${names[@]+"${names[@]}"}"; do
    printf '%s\n' "$inventory" | grep -q -e "^$name " || fail "mesh.toml has no $name"
  done
  if [ "${#names[@]}" -gt 0 ]; then
    at_once mac_bring_up "${names[@]}"
  else
    # shellcheck disable=SC2046 # they are words
    at_once mac_bring_up $(printf '%s\n' "$inventory" | sed 's/ .*//')
  fi
  [ -z "$failed" ] || fail "${failed}cannot be made, see above; when that is mended, run this again"
  step "Their addresses, which are Multipass's"
  for name in $(printf '%s\n' "$inventory" | sed 's/ .*//'); do
    if [ -n "$(vm_address "$name")" ]; then running+=("$name"); fi
  done
  moved=$(moved "$inventory")
  if [ -n "$moved" ]; then
    write_addresses "$moved"
    while read -r name old new; do
      say "$name is at $new, not at $old: mesh.toml in $mac_host says so now"
    done <<<"$moved"
    # Whoever links to these has to know.
    names=("${running[@]}")
  else
    say "they are what mesh.toml in $mac_host says"
  fi
  introduce "${running[@]}"
  if [ -n "$packages" ]; then
    give_packages "$packages"
    options+=(--packages "$mac_packages")
  fi
  step "deploy-brokers.sh in $mac_host"
  # mesh-health has to look for them where they are.
  if [ -n "$moved" ] && in_mac_host systemctl --quiet is-active mesh-health </dev/null; then
    there start-services
  fi
  there deploy-brokers --ssh ubuntu "${options[@]+"${options[@]}"}" "${names[@]+"${names[@]}"}"
}

mac_start() {
  local address inventory
  [ $# -eq 0 ] || fail "unknown option $1; see --help"
  need_mac_host
  inventory=$(mac_inventory)
  [ -z "$(moved "$inventory")" ] || fail "brokers have other addresses than before; run ./deploy/deploy-brokers.sh, then this"
  there start-services
  address=$(vm_address "$mac_host")
  open_way_to_page "$address"
  say "clients connect to $address; what they trust: multipass exec $mac_host -- cat /etc/mesh/tls/ca.crt >ca.crt"
  say "from here the page is at http://localhost:3000 while this runs: ssh -N -F ~/.mqtt-mesh/ssh_config page"
  say "it asks for what this shows: multipass exec $mac_host -- sudo cat /etc/mesh/secrets/operator"
}

mac_show() {
  local name address addresses
  [ $# -eq 0 ] || fail "unknown option $1; see --help"
  is_ours "$mac_host" || fail "$mac_host is not made yet; run ./deploy/setup-environment.sh first"
  show_machine MACHINE ADDRESS STATE 'ADDRESSES AS MULTIPASS REPORTS THEM'
  while read -r name; do
    address=$(vm_address "$name")
    addresses=$(vm_addresses "$name")
    show_machine "$name" "${address:--}" "$(vm_state "$name")" "${addresses:--}"
  done <"$mac_own/machines"
}

mac_renew() {
  [ $# -eq 0 ] || fail "unknown option $1; see --help"
  need_mac_host
  there renew-certs
}

mac_teardown() {
  local purge='' name
  case ${1-} in
    '') ;;
    --purge) purge=yes ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  is_ours "$mac_host" || {
    say "nothing of this network is on this Mac"
    return 0
  }
  steps 2
  step "The brokers' virtual machines"
  while read -r name; do
    [ "$name" = "$mac_host" ] || delete_vm "$name"
  done <"$mac_own/machines"
  printf '%s\n' "$mac_host" >"$mac_own/machines"
  step "The virtual machine $mac_host"
  if [ -n "$purge" ]; then
    delete_vm "$mac_host"
    rm -rf "$mac_own"
    return 0
  fi
  if [ "$(vm_state "$mac_host")" = Running ]; then
    there teardown
    multipass stop "$mac_host" >/dev/null </dev/null || fail "Multipass cannot stop $mac_host, see above"
  fi
  say "$mac_host stays, with mesh.toml, passwords and state; ./deploy/teardown.sh --purge deletes it"
}
