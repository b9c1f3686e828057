# shellcheck shell=bash
# The file system that every test machine starts from: a Debian with systemd, as a cloud image has it, and with the
# packages that the scripts install, so that a machine needs no network for them. And one with nothing in it, which has a
# network. Needs say.sh and packages.sh.

# Kept between runs, since making it takes half a minute; not in the checkout.
base_cache=${MESH_TEST_CACHE:-/var/cache/mqtt-mesh-tests}

# MESH_TEST_RELEASE=noble: machines are Ubuntus, as those of Multipass.
base_release=${MESH_TEST_RELEASE:-bookworm}
base_packages=systemd,systemd-sysv,dbus,libpam-systemd,cloud-init,netplan.io,openssh-server,sudo,iproute2,procps,python3,ca-certificates
# What an Ubuntu has besides, and its cloud-init counts on.
case $base_release in
  jammy | noble) base_packages=$base_packages,locales,lsb-release ;;
esac
# What machines install by themselves.
base_offered='mosquitto mosquitto-clients nginx libnginx-mod-stream nftables'

# Another recipe has another name.
base_recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c 1-16)

# base_folder: prints where the base is.
base_folder() {
  printf '%s/base-%s-%s-%s\n' "$base_cache" "$base_release" "$(dpkg --print-architecture)" "$base_recipe"
}

# bootstrap RELEASE FOLDER OPTION…: makes the file system of a Debian or Ubuntu.
bootstrap() {
  local release=$1 folder=$2 keyring=/usr/share/keyrings/ubuntu-archive-keyring.gpg archive=()
  shift 2
  case $release in
    jammy | noble)
      [ -e "$keyring" ] || {
        printf '%s is missing, by which Ubuntu is known; it is in the package ubuntu-keyring\n' "$keyring" >&2
        return 1
      }
      archive=("deb [signed-by=$keyring] http://archive.ubuntu.com/ubuntu $release main universe")
      ;;
  esac
  as_root mmdebstrap --variant=minbase --include=apt "$@" "$release" "$folder" "${archive[@]+"${archive[@]}"}"
}

# make_base: makes the base if it is not there. All of it appears at once, by rename.
make_base() {
  local base log
  base=$(base_folder)
  as_root mkdir -p "$base_cache"
  # Two runs at once make it once.
  exec 9>"$base_cache/lock"
  flock 9
  if [ ! -d "$base" ]; then
    found mmdebstrap || install mmdebstrap
    found dpkg-scanpackages || install dpkg-dev
    say "making the file system of test machines, kept in $base"
    # Those that no run has used lately, and what a run that was killed has left.
    as_root find "$base_cache" -mindepth 1 -maxdepth 1 -name 'base-*' \( -mtime +14 -o -name '*.making' \) -exec rm -rf {} +
    log=$(mktemp)
    {
      bootstrap "$base_release" "$base.making" --include="$base_packages" &&
        as_root bash -euc "$(declare -f furnish_base as_in_a_cloud); furnish_base $base.making '$base_offered'" &&
        as_root mv "$base.making" "$base"
    } >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      fail "the file system of test machines cannot be made; the last lines are above, all of them in $log"
    }
    rm -f "$log"
  fi
  as_root touch "$base"
  exec 9>&-
}

# furnish_base FOLDER PACKAGES: what makes a Debian a machine of the tests.
furnish_base() {
  local base=$1 packages=$2 unit
  cp /etc/resolv.conf "$base/etc/resolv.conf"
  chroot "$base" apt-get update
  # shellcheck disable=SC2086 # a list of words
  chroot "$base" apt-get install -y --no-install-recommends --download-only $packages
  mkdir "$base/opt/packages"
  mv "$base"/var/cache/apt/archives/*.deb "$base/opt/packages/"
  (cd "$base/opt/packages" && dpkg-scanpackages -m . >Packages)
  printf 'deb [trusted=yes] file:/opt/packages ./\n' >"$base/etc/apt/sources.list"
  rm -rf "$base"/etc/apt/sources.list.d/* "$base"/var/lib/apt/lists/* "$base/etc/resolv.conf"
  chroot "$base" apt-get update
  # Each machine has its own.
  rm -f "$base"/etc/ssh/ssh_host_* "$base/etc/hostname"
  : >"$base/etc/machine-id"
  # There is no network to fetch from, and no hardware to look after.
  for unit in apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service; do
    ln -sf /dev/null "$base/etc/systemd/system/$unit"
  done
  as_in_a_cloud "$base"
}

# as_in_a_cloud FOLDER: what a cloud's image has, and what cloud-init needs in a container.
as_in_a_cloud() {
  local base=$1
  cat >"$base/etc/cloud/cloud.cfg.d/99-tests.cfg" <<'END'
datasource_list: [NoCloud, None]
# Packages come from the machine itself.
apt: {preserve_sources_list: true}
system_info:
  default_user:
    name: ubuntu
    lock_passwd: true
    sudo: ["ALL=(ALL) NOPASSWD:ALL"]
    shell: /bin/bash
END
  # netplan matches the permanent address of an interface, which a veth has not.
  mv "$base/usr/libexec/netplan/generate" "$base/usr/libexec/netplan/generate.real"
  cat >"$base/usr/libexec/netplan/generate" <<'END'
#!/bin/bash
(exec -a "$0" /usr/libexec/netplan/generate.real "$@")
result=$?
sed -i 's/^PermanentMACAddress=/MACAddress=/' /run/systemd/network/10-netplan-* 2>/dev/null
exit $result
END
  # A container has no udevd, and `netplan apply` asks for it.
  printf '#!/bin/sh\nexit 0\n' >"$base/usr/bin/udevadm"
  chmod 755 "$base/usr/libexec/netplan/generate" "$base/usr/bin/udevadm"
}

# plain_debian RELEASE: prints where the file system of that Debian or Ubuntu is, with nothing in it that was not asked for; it is made
# if it is not there.
plain_debian() {
  local debian log
  debian=$base_cache/docker-$1-$(dpkg --print-architecture)
  if [ ! -d "$debian" ]; then
    found mmdebstrap || install mmdebstrap >&2
    say "making the file system of $1, kept in $debian" >&2
    mkdir -p "$base_cache"
    log=$(mktemp)
    { rm -rf "$debian.making" && bootstrap "$1" "$debian.making" && mv "$debian.making" "$debian"; } \
      >"$log" 2>&1 || {
      tail -n 20 "$log" >&2
      fail "the file system of $1 cannot be made; the last lines are above, all of them in $log"
    }
    rm -f "$log"
  fi
  printf '%s\n' "$debian"
}

# rust_answers: do the servers from which Rust and the crates come?
rust_answers() {
  local url
  for url in "https://static.rust-lang.org/dist/channel-rust-$(rust_wanted).toml.sha256" https://index.crates.io/config.json; do
    curl -sSf --max-time 20 -o /dev/null "$url" 2>/dev/null || return 1
  done
}
