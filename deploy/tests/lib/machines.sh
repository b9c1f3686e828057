# shellcheck shell=bash
# Test machines: systemd-nspawn containers with a real systemd, on a network that nothing else is on.
#
# All of it lives in namespaces that the run itself makes: processes, mounts (the machines' files are on a tmpfs) and
# network (a bridge without any way out). However the run ends, also by SIGKILL, the kernel ends them all; only empty
# cgroups are left then, which the next run removes. Needs say.sh, packages.sh and base.sh.

# Inside, everything of the machines is here: a folder each, with root/ its files and console what it printed.
machines=/mnt

# The machines' network, and the address that the run itself has in it.
machines_network=192.168.100
machines_own=$machines_network.254

# More options of systemd-nspawn for the machines that are started next.
machine_options=()

# machines_hindrance: prints why there can be no machines here, if there is a reason.
machines_hindrance() {
  if [ "$(uname)" != Linux ] || ! found apt-get; then
    printf 'test machines need Debian or Ubuntu\n'
  elif [ "$(id -u)" -ne 0 ]; then
    printf 'test machines need root\n'
  elif ! unshare --mount --pid --net --fork true 2>/dev/null; then
    printf 'namespaces are not permitted here\n'
  elif ! mkdir "$(hierarchies | head -n 1)/mesh-test-$$" 2>/dev/null; then
    printf 'cgroups cannot be made here\n'
  else
    rmdir "$(hierarchies | head -n 1)/mesh-test-$$"
  fi
}

need_machines() {
  found systemd-nspawn || install systemd-container
  found ip || install iproute2
  allow_watches
  make_base
}

# allow_watches: the services of a machine watch files by some fourteen instances of inotify, of which Linux allows a user 128
# by default. When several runs at once have used them up, machines come up without their network, or not at all.
allow_watches() {
  local limit=/proc/sys/fs/inotify/max_user_instances
  [ "$(cat "$limit")" -lt 1024 ] || return 0
  if (printf '1024\n' >"$limit") 2>/dev/null; then
    say "from now on each user of this system may have 1024 instances of inotify (fs.inotify.max_user_instances)"
  else
    say "$limit is low and cannot be changed: more than one run at once may fail"
  fi
}

# hierarchies: the mount points of cgroups: one on today's systems, several with the first version.
hierarchies() {
  if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    printf '/sys/fs/cgroup\n'
  else
    find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
  fi
}

# in_machines SCRIPT ARGUMENT…: runs the script inside namespaces of its own, ends with its exit code, and leaves
# nothing behind.
in_machines() {
  local inside
  sweep_cgroups
  trap leave_machines EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  MESH_TEST_RUN=$$ setpriv --pdeathsig KILL \
    unshare --mount --pid --net --uts --fork --kill-child --mount-proc bash "$@" &
  inside=$!
  wait "$inside"
}

leave_machines() {
  rm -rf "${packages:?host.sh names them}"
  # With unshare the kernel ends the first process inside, and with that one all the others.
  [ -z "${inside-}" ] || kill -KILL "$inside" 2>/dev/null || true
  local tries=0
  while ! remove_cgroups "mesh-test-$$" && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
}

# remove_cgroups NAME: true when they are gone, which they cannot be while a process is in one.
remove_cgroups() {
  local hierarchy left=0
  for hierarchy in $(hierarchies); do
    [ ! -d "$hierarchy/$1" ] || find "$hierarchy/$1" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done
  return "$left"
}

# Those of runs that were killed.
sweep_cgroups() {
  local hierarchy folder run
  for hierarchy in $(hierarchies); do
    for folder in "$hierarchy"/mesh-test-*; do
      run=${folder##*-}
      [ ! -d "$folder" ] || [ -d "/proc/$run" ] || remove_cgroups "mesh-test-$run" || true
    done
  done
}

# begin_machines: inside; lays the ground.
begin_machines() {
  mount -t tmpfs -o mode=755 mesh-test "$machines"
  mkdir -p /run/netns
  mount -t tmpfs mesh-test /run/netns
  ip link set lo up
  ip link add switch type bridge
  ip address add "$machines_own/24" dev switch
  ip link set switch up
}

# machine NAME ADDRESS: starts a machine whose eth0 has this address.
machine() {
  local name=$1 address=$2
  ip netns add "$name"
  ip link add "port-$name" type veth peer name eth0 netns "$name"
  ip link set "port-$name" master switch up
  ip -n "$name" link set lo up
  ip -n "$name" address add "$address/24" dev eth0
  ip -n "$name" link set eth0 up
  lay_machine "$name"
  # A machine whose address is there already has nothing to learn from a cloud, not even its keys for ssh.
  touch "$machines/$name/root/etc/cloud/cloud-init.disabled"
  ln -s /dev/null "$machines/$name/root/etc/systemd/system/ssh.service"
  # By which Ubuntu starts it.
  rm -f "$machines/$name/root/etc/systemd/system/sockets.target.wants/ssh.socket"
  start_machine "$name"
}

# lay_machine NAME: its files, those of the base until it changes them.
lay_machine() {
  local folder=$machines/$1
  mkdir -p "$folder/changed" "$folder/work" "$folder/root"
  mount -t overlay overlay "$folder/root" \
    -o "lowerdir=$(base_folder),upperdir=$folder/changed,workdir=$folder/work"
  printf '%s\n' "$1" >"$folder/root/etc/hostname"
  printf '127.0.0.1 localhost %s\n' "$1" >"$folder/root/etc/hosts"
}

# start_machine NAME: in the network namespace of that name.
start_machine() {
  boot "$1" >"$machines/$1/console" 2>&1 </dev/null &
  printf '%s\n' "$!" >"$machines/$1/supervisor"
}

# boot NAME: becomes the supervisor of the machine.
boot() {
  local name=$1 hierarchy group
  for hierarchy in $(hierarchies); do
    group=$hierarchy/mesh-test-$MESH_TEST_RUN/$name
    mkdir -p "$group"
    # A cpuset without processors and memory takes no process.
    if [ -e "$group/cpuset.mems" ] && [ -z "$(cat "$group/cpuset.mems")" ]; then
      for group in "${group%/*}" "$group"; do
        cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
        cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
      done
    fi
    printf '%s\n' "$BASHPID" >"$group/cgroup.procs"
  done
  # The second is what `--network-namespace-path` would not give: a /proc/sys/net that can be written.
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
  exec nsenter --net="/run/netns/$name" systemd-nspawn --quiet --directory="$machines/$name/root" --machine="$name" \
    --boot --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off --console=read-only \
    --capability=CAP_NET_ADMIN ${machine_options[@]+"${machine_options[@]}"}
}

# leader NAME: prints the machine's first process, as it is called outside of the machine.
leader() {
  local supervisor children child
  supervisor=$(cat "$machines/$1/supervisor")
  children=$(cat "/proc/$supervisor/task/$supervisor/children")
  for child in $children; do
    # The supervisor has helpers too, but only one child is the first process of a namespace.
    ! grep -q '^NSpid:.*\s1$' "/proc/$child/status" || printf '%s\n' "$child"
  done
}

# on NAME COMMAND…: runs a command as root on the machine.
on() {
  local name=$1 first
  shift
  first=$(leader "$name")
  [ -n "$first" ] || {
    printf 'the machine %s does not run; what it said last: %s\n' "$name" "$(tail -n 5 "$machines/$name/console")" >&2
    return 1
  }
  nsenter --target "$first" --mount --uts --ipc --net --pid --cgroup --root --wd -- env -i HOME=/root LANG=C.UTF-8 \
    TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# is_up NAME: has the machine finished its start? One with failed units has not.
is_up() {
  [ "$(on "$1" systemctl is-system-running 2>/dev/null)" = running ]
}
