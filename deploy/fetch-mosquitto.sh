#!/usr/bin/env bash
# Puts the Mosquitto of another Debian release into a folder, beside the one that is installed. Nothing is installed.
#
#   ./deploy/fetch-mosquitto.sh SUITE FOLDER      such as: trixie target/mosquitto/trixie
#
# FOLDER/mosquitto (by which tests and labs use it: MESH_MOSQUITTO) then runs that broker with the C library and all other libraries of its own release. apt fetches the
# packages into folders of its own and checks them against the suite's signature. What is there already stays.
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

[ $# -eq 2 ] || fail "needs a suite and a folder; see the head of this script"
suite=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

[ ! -x "$folder/mosquitto" ] || exit 0
[ "$(uname)" = Linux ] || fail "Debian's packages run on Linux only"
for tool in apt-get apt-cache dpkg-deb; do
  command -v "$tool" >/dev/null || fail "there is no $tool here"
done
[ -r "$keyring" ] || fail "$keyring is missing; install debian-archive-keyring"

apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$folder/root"
# Where nothing counts as installed, everything that the broker needs comes from the suite.
: >"$apt/status"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian $suite main" >"$apt/sources.list"
options=(
  -q -q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
  -o "Dir::State::Lists=$apt/lists" -o "Dir::State::Status=$apt/status" -o "Dir::Cache=$apt/cache"
  # Root's downloads would else be made by a user who may not write here.
  -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=2
)

quietly() {
  "$@" >"$apt/log" 2>&1 || fail "cannot get Mosquitto of $suite: $(tail -n 1 "$apt/log")"
}

# The broker and the libraries that it needs, without the tools to set up a machine (adduser and the like).
packages() {
  apt-cache "${options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances mosquitto | grep -E '^(mosquitto|lib[a-z0-9.+-]*|zlib1g)$' | sort -u
}

quietly apt-get "${options[@]}" update
wanted=()
while IFS= read -r package; do wanted+=("$package"); done < <(packages)
[ ${#wanted[@]} -gt 0 ] || fail "$suite has no package mosquitto"
cd "$apt/packages"
quietly apt-get "${options[@]}" download "${wanted[@]}"
for package in ./*.deb; do
  quietly dpkg-deb --extract "$package" "$folder/root"
done

# A program of a newer C library needs that library's own loader. `exec` keeps the process the one that was started.
loader=$(find "$folder/root" -name 'ld-linux*.so.*' -o -name 'ld64.so.*' | head -n 1)
[ -n "$loader" ] || fail "the packages of $suite have no dynamic loader"
folders=()
while IFS= read -r library; do folders+=("$library"); done < <(
  find "$folder/root" -name '*.so.*' -printf '%h\n' | sort -u | grep -E '/lib/[^/]*-linux-[^/]*$'
)
# Installing a package would make the links from a library's short name to its file.
quietly env PATH="$PATH:/sbin:/usr/sbin" ldconfig -n "${folders[@]}"
libraries=$(IFS=: && printf '%s' "${folders[*]}")
printf '#!/bin/sh\nexec %q --inhibit-cache --library-path %q %q "$@"\n' \
  "$loader" "$libraries" "$folder/root/usr/sbin/mosquitto" >"$folder/mosquitto.new"
chmod 755 "$folder/mosquitto.new"
"$folder/mosquitto.new" -h >"$apt/log" 2>&1 || [ -s "$apt/log" ]
grep -q '^mosquitto version' "$apt/log" || fail "the broker of $suite does not run here: $(tail -n 1 "$apt/log")"
rm -rf "$apt"
# Only a folder that is complete has it.
mv "$folder/mosquitto.new" "$folder/mosquitto"
