# shellcheck shell=bash
# Installs what is missing, by apt on Debian and Ubuntu and by Homebrew on macOS. Needs say.sh.

: "${checkout:?the script that sources this names the checkout}"

# found PROGRAM: is it installed? Daemons are often outside a user's PATH.
found() {
  PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" command -v "$1" >/dev/null 2>&1
}

is_mac() {
  [ "$(uname)" = Darwin ]
}

# as_root COMMAND…: runs it as root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif found sudo; then
    sudo "$@"
  else
    fail "root is needed for: $*; run it as root or install sudo"
  fi
}

# nginx_has_stream: does the installed Nginx have the stream module, as a file of its own or built in?
nginx_has_stream() {
  found nginx || return 1
  local module
  for module in /usr/lib/nginx/modules/ngx_stream_module.so /usr/lib64/nginx/modules/ngx_stream_module.so; do
    [ ! -e "$module" ] || return 0
  done
  case "$(PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" nginx -V 2>&1) " in
    *'--with-stream '*) return 0 ;;
    *) return 1 ;;
  esac
}

# install PACKAGE…: with the system's package manager.
install() {
  [ $# -gt 0 ] || return 0
  if found apt-get; then
    install_by_apt "$@"
  elif found brew; then
    say "brew install $*"
    brew install "$@" >/dev/null || fail "Homebrew could not install $*; see its message above"
  else
    fail "cannot install $*: neither apt-get nor brew is here; install them by hand and start again"
  fi
}

apt_is_current=''

# Debian starts a service as soon as its package is installed: Mosquitto on port 1883, Nginx on port 80. Nobody
# asked for those, so for this one installation policy-rc.d says no. Services that exist already are not touched.
install_by_apt() {
  local policy=/usr/sbin/policy-rc.d made='' log
  log=$(mktemp)
  say "apt-get install $*"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=yes
  fi
  local result=0
  {
    { [ -n "$apt_is_current" ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get update; } &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
  } >"$log" 2>&1 || result=$?
  apt_is_current=yes
  [ -z "$made" ] || as_root rm -f "$policy"
  if [ "$result" -ne 0 ]; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install $*; its last lines are above, all of them in $log"
  fi
  rm -f "$log"
}

# need_mosquitto, need_nginx, need_compiler: make sure that they are here.
need_mosquitto() {
  found mosquitto || install mosquitto
  found mosquitto || fail "mosquitto is still missing after its installation; is it in your PATH?"
}

need_mosquitto_clients() {
  if ! found mosquitto_pub || ! found mosquitto_sub; then
    if found apt-get; then install mosquitto-clients; else install mosquitto; fi
  fi
}

need_nginx() {
  if ! nginx_has_stream; then
    if found apt-get; then install nginx libnginx-mod-stream; else install nginx; fi
  fi
  nginx_has_stream || fail "this Nginx has no stream module; install a build that has one"
}

# need_python_clients: what the Python client examples need, in target/python-clients.
need_python_clients() {
  local folder=$checkout/target/python-clients wanted=$checkout/client-examples/python/requirements-dev.txt
  ! cmp -s "$wanted" "$folder/installed" || return 0
  found python3 || install python3
  say "installing what the Python examples need into target/python-clients"
  # Debian has the module that makes the folder in a package of its own.
  if ! python3 -m venv "$folder" >/dev/null 2>&1; then
    install python3-venv
    python3 -m venv "$folder" || fail "python3 -m venv $folder failed; see its message above"
  fi
  "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$wanted" ||
    fail "pip could not install what $wanted asks for; see its message above"
  cp "$wanted" "$folder/installed"
}

# need_openssl: makes the certificates of tests.
need_openssl() {
  found openssl || install openssl
}

need_compiler() {
  found cc && return 0
  if found apt-get; then install gcc libc6-dev; else fail "there is no C compiler; run: xcode-select --install"; fi
}

# rust_wanted: the oldest Rust that can build the workspace.
rust_wanted() {
  sed -n 's/^rust-version = "\(.*\)"/\1/p' "$checkout/Cargo.toml"
}

# rust_is_new_enough: is there a cargo that can build the workspace?
rust_is_new_enough() {
  local have
  have=$(cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
  [ -n "$have" ] || return 1
  [ "$(printf '%s\n%s\n' "$(rust_wanted)" "$have" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$(rust_wanted)" ]
}

# One test sets the clocks of brokers wrong. Where that cannot be it skips itself and says so.
need_clocks() {
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || ! found apt-get || (install libfaketime) || true
}

# rustup_target: the name that Rust has for this kind of machine. A Raspberry Pi may have a kernel of 64 bits and programs of
# 32.
rustup_target() {
  case "$(uname -sm) $(getconf LONG_BIT)" in
    'Linux x86_64 64') printf 'x86_64-unknown-linux-gnu' ;;
    'Linux aarch64 64') printf 'aarch64-unknown-linux-gnu' ;;
    'Darwin x86_64 64') printf 'x86_64-apple-darwin' ;;
    'Darwin arm64 64') printf 'aarch64-apple-darwin' ;;
    *) fail "there is no Rust $(rust_wanted) or later here; for $(uname -sm) install it from https://rustup.rs and start again" ;;
  esac
}

# sha256_of FILE
sha256_of() {
  if found sha256sum; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -c 1-64
}

# install_rustup: its own installer as a program and not as a script from the network, used only if it came whole. rustup
# has the same variable for a mirror.
install_rustup() {
  local folder from target
  target=$(rustup_target) || exit 1
  found curl || install curl ca-certificates
  from=${RUSTUP_UPDATE_ROOT:-https://static.rust-lang.org/rustup}/dist/$target/rustup-init
  folder=$(mktemp -d)
  say "no Rust $(rust_wanted) or later here; installing it with rustup into ${CARGO_HOME:-$HOME/.cargo}"
  {
    curl --proto '=https' --tlsv1.2 -sSf --retry 2 -o "$folder/rustup-init" "$from" &&
      curl --proto '=https' --tlsv1.2 -sSf --retry 2 -o "$folder/sha256" "$from.sha256"
  } || fail "$from cannot be fetched, see above; install Rust $(rust_wanted) or later from https://rustup.rs and start again"
  [ "$(sha256_of "$folder/rustup-init")" = "$(cut -c 1-64 "$folder/sha256")" ] ||
    fail "$from did not come whole: its sha256 is another one than that beside it; start again"
  chmod 755 "$folder/rustup-init"
  "$folder/rustup-init" -y -q --profile minimal --no-modify-path ||
    fail "Rust could not be installed, see above; install Rust $(rust_wanted) or later from https://rustup.rs and start again"
  rm -rf "$folder"
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
}

need_rust() {
  # rustup puts cargo here; a shell that was open before does not know it yet.
  [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  rust_is_new_enough && return 0
  found rustup || install_rustup
  rust_is_new_enough || rustup toolchain install --profile minimal stable ||
    fail "Rust $(rust_wanted) or later is needed; install it from https://rustup.rs and start again"
  rust_is_new_enough || rustup default stable >/dev/null
  rust_is_new_enough || fail "$(cargo --version) is too old; Rust $(rust_wanted) or later is needed"
}

# cargo-deb makes Debian packages; dpkg-shlibdeps tells it what programs need.
need_cargo_deb() {
  found dpkg-shlibdeps || install dpkg-dev
  cargo deb --version >/dev/null 2>&1 || {
    say "installing cargo-deb"
    cargo install --quiet --locked --no-default-features cargo-deb || fail "cargo-deb could not be installed; see above"
  }
}

# package_in FOLDER NAME ARCHITECTURE: prints the newest such package there.
package_in() {
  local file newest=''
  for file in "$1/$2"_*_"$3".deb; do
    [ -e "$file" ] || continue
    if [ -z "$newest" ] || [ "$file" -nt "$newest" ]; then newest=$file; fi
  done
  [ -n "$newest" ] || fail "there is no $2 for $3 in $1; run ./deploy/build-packages.sh on such a machine"
  (cd "$(dirname "$newest")" && printf '%s/%s\n' "$PWD" "$(basename "$newest")")
}

# is_installed PACKAGE VERSION
is_installed() {
  [ "$(dpkg-query -W -f '${Status} ${Version}' "$1" 2>/dev/null)" = "install ok installed $2" ]
}
