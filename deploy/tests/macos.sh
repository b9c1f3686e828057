#!/usr/bin/env bash
# Runs the deployment's scripts as they are for somebody on a Mac, as far as a Linux can stand in for one: `uname` says Darwin,
# there is no root, of the tools that only Linux has none may be used, and Homebrew brings the `multipass` that makes test
# machines. From nothing to a host and five brokers, all of them virtual machines; again, with nothing to do; a broker that is
# lost and comes back with another address; and teardown.
#
#   ./deploy/tests/macos.sh [--release]
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

brokers='broker1 broker2 broker3 broker4 broker5'
home=/home/mac

# mac COMMAND…: as the user of the Mac.
mac() {
  on host runuser -u mac -- env HOME="$home" PATH="$home/bin:/usr/bin:/bin" "$@"
}

# script NAME ARGUMENT…: as in host.sh, but on the Mac.
script() {
  local name=$1
  shift
  mac timeout 900 bash "$home/mesh/deploy/$name" "$@" >"$machines/said" 2>&1 </dev/null
}

# multipass COMMAND…: not as the scripts would have it, but behind their backs.
multipass() {
  on host /opt/multipass "$@" </dev/null
}

# begin_mac: turns the host that has Multipass into a Mac that has Homebrew.
begin_mac() {
  local tool bin=$machines/host/root$home/bin
  begin_multipass_host
  # What a Mac has from Homebrew, and the ssh that it comes with.
  on host apt-get install -y -q mosquitto-clients >/dev/null 2>&1
  on host useradd --create-home --shell /bin/bash mac
  mkdir "$bin"
  mv "$machines/host/root/usr/local/bin/multipass" "$machines/host/root/opt/multipass"
  cp -r "$machines/host/root/root/mesh" "$machines/host/root/root/packages" "$machines/host/root$home/"
  chmod 755 "$machines/relay"
  eventually 10 "the stand-in for Multipass takes calls" chmod 666 "$machines/relay/socket"
  sed -i "s#/root/mesh#$home/mesh#" "$machines/host/root/opt/multipass"
  printf '#!/bin/sh\necho Darwin\n' >"$bin/uname"
  printf '#!/bin/sh\n[ "$*" = "install --cask multipass" ] && ln -s /opt/multipass %s/multipass\n' "$home/bin" >"$bin/brew"
  for tool in apt-get apt-cache dpkg dpkg-deb dpkg-query ip systemctl journalctl nginx snap sudo runuser flock; do
    printf '#!/bin/sh\necho "%s $*" >>%s/used\nexit 1\n' "$tool" "$home" >"$bin/$tool"
  done
  chmod 755 "$bin"/*
  on host chown -R mac: "$home"
  # shellcheck disable=SC2034 # host.sh asks it
  front=mesh-host
}

is_well() {
  status_is 'ok 5 20' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")' \
    '[l["state"] for l in s["links"]].count("up")'
}

# address NAME: as Multipass gives it.
address() {
  multipass info "$1" --format csv | sed -n '2s/^[^,]*,[^,]*,\([^,]*\),.*/\1/p'
}

# tells TEXT: as `says`, without a program that has the text on its command line.
tells() {
  [[ $(cat "$machines/said") == *"$1"* ]]
}

from_nothing() {
  local start=$SECONDS name
  refuse "without a host no brokers are made" script deploy-brokers.sh
  expect "and it is said what comes first" says 'mesh-host is not made yet; run ./deploy/setup-environment.sh first'
  runs "the host is made, and set up" setup-environment.sh --packages "$home/packages/1"
  expect "its address is told" tells "mesh-host is at $(address mesh-host)"
  multipass launch --name other 24.04 >/dev/null
  runs "five virtual machines become brokers" deploy-brokers.sh --packages "$home/packages/1"
  password=$(sed -n 's/^ *password  *//p' "$machines/said")
  for name in $brokers; do
    expect "the address of $name is Multipass's, and told" tells "$name is at $(address "$name"), not at 192.168.100."
  done
  runs "the services are started" start-services.sh
  cp "$machines/said" "$machines/started"
  eventually 60 "all is well" is_well
  ok "five brokers and twenty links are up, $((SECONDS - start)) s after nothing was there"
}

# A client's program on the Mac, with what was told.
serves() {
  local host=$1 text=$2 client
  mac sh -c 'cd && mkdir -p .config && multipass exec mesh-host -- cat /etc/mesh/tls/ca.crt >ca.crt' </dev/null
  for client in mosquitto_pub mosquitto_sub; do
    printf '%s\n' "-h $host" '-p 8883' "--cafile $home/ca.crt" '-u mqtt' "-P $password" |
      on host install -o mac -m 600 /dev/stdin "$home/.config/$client"
  done
  mac timeout 20 mosquitto_pub -q 1 -r -t test/word -m "$text" </dev/null &&
    [ "$(mac timeout 20 mosquitto_sub -t test/word -C 1 </dev/null)" = "$text" ]
}

# shows_page: as it was told, without the rest of the world.
shows_page() {
  local tunnel command
  command=$(sed -n 's/.*while this runs: //p' "$machines/started")
  [ -n "$command" ] || fail "it is not told how the page is reached"
  mac timeout 60 sh -c "$command" </dev/null >"$machines/tunnel" 2>&1 &
  tunnel=$!
  eventually 30 "the page is at localhost, by the way that was told" mac python3 -c 'import urllib.request
assert urllib.request.urlopen("http://localhost:3000/").url.endswith("/login")'
  ok "the page is at localhost, by the way that was told"
  kill "$tunnel" 2>/dev/null || true
  wait "$tunnel" 2>/dev/null || true
  refuse "by that way nothing is to be had but the page" mac timeout 10 ssh -F "$home/.mqtt-mesh/ssh_config" \
    -o ClearAllForwardings=yes page true
}

again() {
  local before
  before=$(processes)
  runs "setting up again does nothing" setup-environment.sh --packages "$home/packages/1"
  runs "nor deploying" deploy-brokers.sh --packages "$home/packages/1"
  expect "the addresses are what they were" says 'they are what mesh.toml in mesh-host says'
  expect "each broker is as it should be" test "$(grep -c 'is as it should be' "$machines/said")" = 5
  runs "nor starting" start-services.sh
  expect "every process is the same" test "$(processes)" = "$before"
  runs "the machines are shown" show-brokers.sh
  expect "each that was made, with address and state, and no other" \
    test "$(grep -c '  10\.97\.0\.[0-9]*  *Running  *10\.97\.0\.[0-9]*$' "$machines/said") $(wc -l <"$machines/said")" = '6 7'
}

comes_back_elsewhere() {
  local before
  before=$(address broker3)
  multipass delete --purge broker3
  multipass stop broker5
  runs "a broker that is gone is made anew, and one that was stopped is started" \
    deploy-brokers.sh --packages "$home/packages/1"
  expect "it is told that its address is another" tells "broker3 is at $(address broker3), not at $before"
  expect "the stopped one was started" says 'broker5 is Stopped: it is started'
  eventually 90 "all is well again" is_well
  ok "all is well again"
  expect "and messages pass the balancer, with what was retained" serves "$(address mesh-host)" "elsewhere"
}

tears_down() {
  runs "teardown" teardown.sh
  expect "no broker is left, and the host stays, stopped" \
    test "$(multipass list | sed -n 's/^\([^,]*,[^,]*\),.*/\1/p' | sort | paste -s -d ' ')" = 'Name,State mesh-host,Stopped other,Running'
  runs "teardown again, and the rest with it" teardown.sh --purge
  expect "then only what somebody else made is there" \
    test "$(multipass list | sed -n 's/^\([^,]*\),.*/\1/p' | sort | paste -s -d ' ')" = 'Name other'
  refuse "nothing is left of the scripts' own" on host test -e "$home/.mqtt-mesh"
  refuse "and what only Linux has was never used" on host cat "$home/used"
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  found python3 || install python3
  in_machines "$0"
  exit
fi

begin_mac
from_nothing
expect "a message passes the balancer" serves "$(address mesh-host)" hello
shows_page
again
comes_back_elsewhere
tears_down
say "$expected passed, 0 failed"
