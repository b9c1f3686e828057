# shellcheck shell=bash
# The brokers' machines as Multipass's virtual machines. Needs say.sh, packages.sh and brokers.sh, and on a Mac macos.sh.

# The bridge of the host that the machines' second interface is on; setup-environment.sh makes it.
vm_bridge=mqttbr0
vm_image=24.04
vm_cpus=1
vm_memory=1G
vm_disk=5G

# host_address: the host's own in the brokers' network, which is the /24 that the first broker is in.
host_address() {
  inventory | sed -n '1s/^[^ ]* \([0-9]*\.[0-9]*\.[0-9]*\)\.[0-9]* .*/\1.1/p'
}

# vm_state BROKER: Missing, Running, Stopped, Suspended, Deleted, …
vm_state() {
  local said
  if said=$(multipass info "$1" --format csv 2>/dev/null </dev/null); then
    printf '%s\n' "$said" | sed -n '2s/^[^,]*,\([^,]*\),.*/\1/p'
  else
    printf 'Missing\n'
  fi
}

# vm_address BROKER: where Multipass reaches it; nothing while it does not run.
vm_address() {
  multipass info "$1" --format csv 2>/dev/null </dev/null | sed -n '2s/^[^,]*,[^,]*,\([0-9.]*\),.*/\1/p' || true
}

# vm_addresses BROKER: all of its addresses that Multipass knows.
vm_addresses() {
  multipass list --format csv 2>/dev/null </dev/null | sed -n "s/^$1,.*,\"\([^\"]*\)\"\$/\1/p" || true
}

# show_machine NAME ADDRESS STATE ADDRESSES: a line of a table.
show_machine() {
  printf '%-12s %-16s %-10s %s\n' "$@"
}

# launch_on_bridge BROKER: with a second interface there. The snap cannot read files outside of the home folder, so
# cloud-init's come by pipe.
launch_on_bridge() {
  local mac
  mac=$(inventory | sed -n "s/^$1 .* //p")
  as_root cat "${rendered:?render comes first}/$1/cloud-init.yaml" |
    multipass launch --name "$1" --cpus "$vm_cpus" --memory "$vm_memory" --disk "$vm_disk" --timeout 600 \
      --network "name=$vm_bridge,mode=manual,mac=$mac" --cloud-init - "$vm_image"
}

make_vm() {
  local vm_log launch=launch_on_bridge
  vm_log=$(mktemp)
  ! is_mac || launch=mac_launch
  say "making the virtual machine $1; this takes a minute or two"
  "$launch" "$1" >"$vm_log" 2>&1 || {
    tail -n 5 "$vm_log" >&2
    fail "Multipass cannot launch $1, see above; when that is mended, run this again"
  }
  rm -f "$vm_log"
}

# bring_up_vm BROKER: makes it, or has the one that is there run.
bring_up_vm() {
  local state was
  state=$(vm_state "$1")
  case $state in
    Missing) make_vm "$1" ;;
    Running) ;;
    Deleted)
      say "$1 was deleted, not purged: it is recovered"
      { multipass recover "$1" && multipass start "$1"; } >/dev/null </dev/null || fail "Multipass cannot recover $1, see above"
      ;;
    Stopped | Suspended)
      say "$1 is $state: it is started"
      multipass start "$1" >/dev/null </dev/null || fail "Multipass cannot start $1, see above"
      ;;
    *) fail "$1 is in the state $state; wait for Multipass, or see: multipass info $1" ;;
  esac
  within 60 is_made "$1" || {
    # What was never finished has nothing to lose; what was in use may have, and does so too if it cannot be asked.
    was=$(multipass exec "$1" -- sudo sh -c '
      if [ -e /etc/mesh/mosquitto.conf ] || [ -e /etc/mesh/mesh.toml ]; then echo used; else echo unused; fi' 2>/dev/null </dev/null) || was=''
    [ "$was" = unused ] ||
      fail "$1 ${was:+was in use and }does not take its address or does not answer; see: multipass info $1, and multipass exec $1 -- networkctl status --all"
    say "$1 was never finished: it is made again"
    delete_vm "$1"
    make_vm "$1"
    within 60 is_made "$1" || fail "$1 does not take its address; see: multipass exec $1 -- cloud-init status --long"
  }
}

delete_vm() {
  [ "$(vm_state "$1")" != Missing ] || return 0
  say "$1 is deleted"
  multipass delete --purge "$1" >/dev/null </dev/null || fail "Multipass cannot delete $1, see above"
}

# is_made BROKER: has cloud-init ended, and the machine its address? `launch` goes well also where that failed.
is_made() {
  # 2 of Ubuntu 24.04's is for what it could do without, such as a word in Multipass's own part that it calls deprecated. It is
  # judged there, since 2 of Multipass itself is for a machine that is not reached.
  # shellcheck disable=SC2016 # it is the machine's shell that fills this in
  multipass exec "$1" -- sudo sh -c 'cloud-init status --wait; case $? in 0 | 2) ;; *) exit 1 ;; esac' >/dev/null 2>&1 </dev/null ||
    return 1
  if is_mac; then
    [ -n "$(vm_address "$1")" ]
    return
  fi
  multipass exec "$1" -- ip -4 -brief address show 2>/dev/null </dev/null | grep -q -F " $(address_of "$1")/"
}
