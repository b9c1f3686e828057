#!/usr/bin/env bash
# Runs the deployment's scripts as they are on test machines with a real systemd: a host, and five Debians that answer
# over ssh. From nothing to a mesh that serves; again, with nothing to do; the doors that are to be shut; new users and
# certificates, a changed mesh.toml and new versions while clients are connected; a broker that was broken by hand; one that
# is not there.
#
#   ./deploy/tests/deploy.sh [--release]
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

brokers='broker1 broker2 broker3 broker4 broker5'

# tells TEXT: as `says`, without a program that has the text on its command line.
tells() {
  [[ $(cat "$machines/said") == *"$1"* ]]
}

# imports: as `meshctl import` leaves it: a database with a retained message that the first broker begins with, and own
# directives, of which one broker has more than the others.
imports() {
  local broker etc=$machines/host/root/etc/mesh old=$machines/old stock
  mkdir "$old"
  printf '%s\n' 'listener 18999 127.0.0.1' 'allow_anonymous true' 'user root' 'persistence true' \
    "persistence_location $old/" >"$old/mosquitto.conf"
  mosquitto -c "$old/mosquitto.conf" >/dev/null 2>&1 &
  stock=$!
  eventually 10 "a Mosquitto of before takes a message" mosquitto_pub -p 18999 -q 1 -r -t home/lamp -m on
  kill -TERM "$stock"
  wait "$stock"
  for broker in $brokers; do
    mkdir -p "$etc/extra/$broker"
    printf 'message_size_limit 250000\n' >"$etc/extra/$broker/own.conf"
  done
  printf 'listener 2883 192.168.100.11\n' >"$etc/extra/broker2/door.conf"
  # One more door, with certificates that nothing but its own directives names.
  "$checkout/deploy/make-certs.sh" "$etc/own" door=192.168.100.13 >/dev/null
  printf '%s\n' 'listener 2884 192.168.100.13' 'certfile /etc/mesh/own/door.crt' 'keyfile /etc/mesh/own/door.key' \
    >"$etc/extra/broker4/door.conf"
  mkdir "$etc/broker1"
  cp "$old/mosquitto.db" "$etc/broker1/"
  sed -i 's#^\[mosquitto\]#&\nextra_dir = "extra/{broker}"\nfirst_database = "{broker}/mosquitto.db"#' "$etc/mesh.toml"
}

# has_imported: what was imported is with the brokers.
has_imported() {
  local broker
  expect "the first broker begins with the imported database" says 'broker1 begins with what is stored in'
  for broker in $brokers; do
    expect "$broker has the retained message that was imported" \
      test "$(on host mosquitto_sub -h "$(address "$broker")" -t home/lamp -C 1 -W 10)" = on
  done
  expect "own directives are in use" reaches host 192.168.100.11 2883
  refuse "where they are meant to be" reaches host 192.168.100.10 2883
  expect "with the files that they name" shows 192.168.100.13:2884 own/door
  expect "which are for root and Mosquitto only" \
    test "$(on broker4 sh -c 'stat -c "%U %G %a" /etc/mesh/own/*' | sort -u)" = 'root mosquitto 640'
  refuse "and no other broker has" on broker3 test -e /etc/mesh/own
  refuse "the database is not there to be given again" on host test -e /etc/mesh/broker1/mosquitto.db
}

# takes_websockets: as somebody who has browsers or Node-RED among the clients.
takes_websockets() {
  sed -i -e 's/^address = "\(.*\):1883"/&\nwebsockets = "\1:8083"/' \
    -e 's/^\[balancer\]/&\nwebsockets = "127.0.0.1:8083"\nwebsockets_tls = "0.0.0.0:8084"/' "$machines/host/root/etc/mesh/mesh.toml"
}

# A client by WebSockets that stays. Each connection that it needs leaves a line.
browser_connects() {
  MQTT_PASSWORD=$password "$checkout/target/python-clients/bin/python" "$checkout/client-examples/python/subscriber.py" \
    --websockets --broker 192.168.100.1:8084 --ca-file "$machines/host/root/etc/mesh/tls/ca.crt" --username mqtt \
    --longest-pause 1 --topic 'test/#' >"$machines/browser" 2>"$machines/browser.said" </dev/null &
  eventually 20 "a client by WebSockets subscribes" grep -q '^subscription to' "$machines/browser.said"
  ok "a client connects by WebSockets with TLS"
}

browser_connections_are() {
  [ "$(grep -c '^connected to .*, session ' "$machines/browser.said")" = "$1" ]
}

# browser_hears TEXT: it has heard what was published at the balancer, as the other one has.
browser_hears() {
  eventually 10 "the client by WebSockets hears «$1»" grep -q -F "test/word	$1" "$machines/browser"
}

# address BROKER
address() {
  printf '192.168.100.%s\n' $((9 + ${1#broker}))
}

from_nothing() {
  runs "the host is set up" setup-environment.sh --no-multipass --packages /root/packages/1
  imports
  takes_websockets
  runs "five machines become brokers" deploy-brokers.sh --ssh admin --packages /root/packages/1
  password=$(sed -n 's/^ *password  *//p' "$machines/said")
  cp "$machines/said" "$machines/deployed"
  expect "a first user is made, and how to connect is told" \
    tells "mosquitto_pub -h 192.168.100.1 -p 8883 --cafile /etc/mesh/tls/ca.crt -u mqtt -P ${password:-none} "
  expect "a broker's passwords and keys are for root and Mosquitto only" \
    test "$(on broker1 sh -c 'cd /etc/mesh && stat -c "%U %G %a" mosquitto.conf passwords acl tls/broker1.key' | sort -u)" = \
    'root mosquitto 640'
  expect "and no broker has the key of another, or that which signs" \
    test "$(on broker1 ls /etc/mesh/tls | tr '\n' ' ')" = 'broker1.crt broker1.key ca.crt '
  runs "the services are started" start-services.sh
  eventually 60 "all is well" status_is 'ok 5 20' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")' \
    '[l["state"] for l in s["links"]].count("up")'
  ok "five brokers and twenty links are up"
  # From here on Mosquitto's clients on the host log in as that user.
  on host install -d -m 700 /root/.config
  for client in mosquitto_pub mosquitto_sub; do
    printf '%s\n' '-p 8883' '--cafile /etc/mesh/tls/ca.crt' '-u mqtt' "-P $password" |
      on host install -m 600 /dev/stdin "/root/.config/$client"
  done
  client_connects
  ok "a client connects as it was told"
  browser_connects
  cp "$machines/deployed" "$machines/said"
  has_imported
}

# finds QUERY: is there such a line in the database?
finds() {
  [ -n "$(on host meshctl logs -n 1 --json "$1" 2>/dev/null)" ]
}

reads_journals() {
  local broker
  for broker in $brokers; do
    eventually 30 "lines of $broker are found" finds "broker:$broker service:mosquitto"
  done
  ok "the log lines of every broker are found on the host"
  # As whoever has stolen it.
  as_logs() { on host runuser -u mesh-logs -- env HOME=/var/lib/mesh-logs timeout 5 ssh "$@" </dev/null 2>&1; }
  expect "the key reads Mosquitto's journal, whatever it is asked to do" \
    test "$(as_logs broker1 id | grep -c -v __CURSOR)" = 0
  refuse "and opens no way to anywhere else" as_logs -W 192.168.100.11:1883 broker1
}

again() {
  local before
  # Older than what the brokers have by now.
  on host sh -c 'mkdir /etc/mesh/broker2 && cp /etc/mesh/broker1/mosquitto.db.given /etc/mesh/broker2/mosquitto.db'
  before="$(processes)$(unit mesh-nginx MainPID) $(unit mesh-health MainPID)"
  runs "setting up again does nothing" setup-environment.sh --no-multipass --packages /root/packages/1
  runs "nor deploying" deploy-brokers.sh --ssh admin --packages /root/packages/1
  expect "each broker is as it should be" test "$(grep -c 'is as it should be' "$machines/said")" = 5
  expect "a broker with messages of its own gets no older ones" says 'broker2 has stored messages of its own'
  on host rm -r /etc/mesh/broker2
  refuse "and no second first user is made" says password
  runs "nor starting" start-services.sh
  expect "every process is the same" test "$(processes)$(unit mesh-nginx MainPID) $(unit mesh-health MainPID)" = "$before"
}

# may_connect NAME PASSWORD BROKER…: at each of these?
may_connect() {
  local name=$1 word=$2 broker
  shift 2
  for broker in "$@"; do
    on host env XDG_CONFIG_HOME=/nonexistent mosquitto_pub -h "192.168.100.$((9 + ${broker#broker}))" -u "$name" -P "$word" \
      -t test/x -m x 2>/dev/null || return 1
  done
}

# shows ADDRESS NAME: is it the certificate of that name, below /etc/mesh, that is shown there?
shows() {
  [ "$(on host openssl s_client -connect "$1" </dev/null 2>/dev/null | openssl x509 -noout -serial)" = "$(serial_of "$2")" ]
}

serial_of() {
  openssl x509 -noout -serial -in "$machines/host/root/etc/mesh/$1.crt"
}

# Users come and go, and certificates are renewed, while a client stays where it is.
changes_access() {
  local before second old
  before="$(processes)$(unit mesh-nginx MainPID)"
  second=$(on host meshctl user add --generate second 2>/dev/null)
  refuse "a new user is not known to the brokers yet" may_connect second "$second" broker1
  # As if these had come near their end.
  old="$(serial_of tls/balancer) $(serial_of tls/broker1)"
  on host rm /etc/mesh/tls/balancer.crt /etc/mesh/tls/broker1.crt
  expect "certificates are looked after each day" on host systemctl is-active --quiet mesh-certs.timer
  expect "what looks after them reaches brokers as they were reached before" on host systemctl start mesh-certs
  refuse "the new user is not known to them by that" may_connect second "$second" broker1
  runs "they are told of the new user" deploy-brokers.sh --ssh admin --packages /root/packages/1
  expect "each goes on" test "$(grep -c 'and goes on' "$machines/said")" = 5
  # shellcheck disable=SC2086 # they are words
  expect "the new user may connect to each" may_connect second "$second" $brokers
  refuse "they are other certificates than before" test "$old" = "$(serial_of tls/balancer) $(serial_of tls/broker1)"
  eventually 10 "the balancer shows the new one" shows 192.168.100.1:8883 tls/balancer
  expect "the balancer shows the new one" shows 192.168.100.1:8883 tls/balancer
  expect "and the broker too" shows 192.168.100.10:8883 tls/broker1
  on host env XDG_CONFIG_HOME=/nonexistent stdbuf -oL mosquitto_sub -d -h 192.168.100.10 -u second -P "$second" -t test/x \
    >"$machines/second" 2>&1 </dev/null &
  eventually 10 "the new user is connected" grep -q SUBACK "$machines/second"
  on host meshctl user remove second >/dev/null
  runs "a user is removed at one broker" deploy-brokers.sh --ssh admin --packages /root/packages/1 broker1
  refuse "and may connect there no more" may_connect second "$second" broker1
  eventually 10 "the session of that user is ended" grep -q -i refused "$machines/second"
  ok "the session of that user is ended"
  hears "after all that"
  browser_hears "after all that"
  expect "the client that was there all the time is there still" connections_are 1
  expect "and that by WebSockets too" browser_connections_are 1
  expect "and every process is the same" test "$(processes)$(unit mesh-nginx MainPID)" = "$before"
}

# offer_newer_mosquitto: what the machines' apt has now is newer than what they run.
offer_newer_mosquitto() {
  local broker folder=$machines/newer
  dpkg-deb -R "$(base_folder)"/opt/packages/mosquitto_*.deb "$folder"
  sed -i 's/^Version: .*/&+newer1/' "$folder/DEBIAN/control"
  dpkg-deb -Znone --root-owner-group -b "$folder" "$machines/mosquitto-newer.deb" >/dev/null
  for broker in $brokers; do
    cp "$machines/mosquitto-newer.deb" "$machines/$broker/root/opt/packages/"
    (cd "$machines/$broker/root/opt/packages" && dpkg-scanpackages -m . >Packages 2>/dev/null)
  done
}

# Everything on every broker is replaced while a fleet publishes and subscribes: the plugin, Mosquitto itself, and the
# configuration, which has links turn to TLS.
upgrades_while_serving() {
  local fleet broker
  offer_newer_mosquitto
  sed -i 's/^link_tls = false/link_tls = true/; s/^\[mosquitto\]/&\nautosave_interval = "30s"/' \
    "$machines/host/root/etc/mesh/mesh.toml"
  sed -i 's/250000/260000/' "$machines/host/root/etc/mesh/extra/broker4/own.conf"
  rm "$machines/host/root/etc/mesh/own/door.crt"
  "$checkout/deploy/make-certs.sh" "$machines/host/root/etc/mesh/own" door=192.168.100.13 >/dev/null
  rm "$machines/host/root/etc/mesh/extra/broker2/door.conf"
  MQTT_PASSWORD=$password client fleet.py --balancer 192.168.100.1:8883 --websockets 192.168.100.1:8084 --user mqtt \
    --ca "$machines/host/root/etc/mesh/tls/ca.crt" --folder "$machines/fleet" \
    broker1=192.168.100.10 broker2=192.168.100.11 broker3=192.168.100.12 broker4=192.168.100.13 broker5=192.168.100.14 \
    >"$machines/told" &
  fleet=$!
  eventually 60 "the fleet is there" test -e "$machines/fleet/ready"
  runs "all brokers are upgraded under a fleet" deploy-brokers.sh --ssh admin --packages /root/packages/2 --upgrade
  expect "who serves came last, and handed over its clients first" \
    test "$(grep -e '^\[6/6\]' -e 'serves; its clients' "$machines/said" | tr -s ' ')" = \
    "$(printf '[6/6] broker1\n broker1 serves; its clients go to another broker first')"
  kill -TERM "$fleet"
  hears_of "$fleet"
  for broker in $brokers; do
    expect "$broker has the new plugin, the newer Mosquitto and the changed configuration" is_upgraded "$broker"
  done
  expect "a file that own directives name is the changed one" shows 192.168.100.13:2884 own/door
  expect "own directives are the changed ones" on broker4 grep -q 260000 /etc/mesh/extra/broker4/own.conf
  refuse "and what was taken out is gone" reaches host 192.168.100.11 2883
  hears "after the upgrade"
  browser_hears "after the upgrade"
  expect "the client that was there from the beginning had to connect again once" connections_are 2
  expect "and that by WebSockets too" browser_connections_are 2
  expect "links go over TLS now" test "$(on broker1 ss -Htn state established 'dport = :8883' | wc -l)" = 4
  runs "the services read mesh.toml" start-services.sh
}

is_upgraded() {
  on "$1" dpkg-query --show mqtt-mesh-broker | grep -q -e '-2$' &&
    on "$1" dpkg-query --show mosquitto | grep -q '+newer1$' &&
    on "$1" grep -q -x 'autosave_interval 30' /etc/mesh/mosquitto.conf
}

mends() {
  local before unfinished
  on broker4 systemctl stop mosquitto
  eventually 20 "mesh-health notices" status_is dead 's["brokers"][3]["health"]'
  refuse "a mesh that is not well is not upgraded" script deploy-brokers.sh --ssh admin --packages /root/packages/2 --upgrade
  expect "with a sentence that says what to do" says 'the mesh is not well, or mesh-health does not run; see meshctl status'
  # As a deployment leaves it that was killed before it came to the restart.
  on broker3 touch /etc/mesh/unfinished
  unfinished=$(on broker3 systemctl show --value --property MainPID mosquitto)
  expect "the package of a broker can be removed while its journal is read" \
    on broker5 sh -c 'rm /etc/mesh/mosquitto.conf; apt-get purge -y -q mqtt-mesh-broker >/dev/null'
  before=$(processes | sed 's/broker3=.*//')
  runs "brokers that were stopped, broken and left half-done are mended" \
    deploy-brokers.sh --ssh admin --packages /root/packages/2
  expect "and no other is touched" test "$(processes | sed 's/broker3=.*//')" = "$before"
  refuse "what was left half-done is in use now" \
    test "$(on broker3 systemctl show --value --property MainPID mosquitto)" = "$unfinished"
  refuse "and is noted no more" on broker3 test -e /etc/mesh/unfinished
}

# The plugin for dynamic security writes its own configuration: it is given once.
gives_dynamic_security() {
  local file=/var/lib/mosquitto/dynamic-security.json
  on broker3 mosquitto_ctrl dynsec init /root/dynamic-security.json admin admins >/dev/null
  mkdir -p "$machines/host/root${file%/*}"
  cp "$machines/broker3/root/root/dynamic-security.json" "$machines/host/root$file"
  sed -i "s#^\[mosquitto\]#&\ndynamic_security_file = \"$file\"#" "$machines/host/root/etc/mesh/mesh.toml"
  runs "a broker gets dynamic security" deploy-brokers.sh --ssh admin --packages /root/packages/2 broker3
  expect "its configuration is Mosquitto's own" test "$(on broker3 stat -c '%U %a' "$file")" = 'mosquitto 600'
  eventually 20 "it takes a command" on broker3 mosquitto_ctrl -h 192.168.100.12 -u admin -P admins dynsec createRole visitor
  eventually 20 "it is written" on broker3 grep -q visitor "$file"
  runs "deployed again" deploy-brokers.sh --ssh admin --packages /root/packages/2 broker3
  expect "it is as it should be" says 'broker3 is as it should be'
  expect "and what the plugin wrote is there still" on broker3 grep -q visitor "$file"
}

refuses() {
  printf 'max_keepalive 60\n' >"$machines/broker5/root/etc/mesh/extra/broker5/stray.conf"
  refuse "own directives that nobody knows of end it" \
    script deploy-brokers.sh --ssh admin --packages /root/packages/2 broker5
  expect "with what to do" says 'broker5 has own directives in /etc/mesh/extra/broker5/stray.conf that did not come from here'
  printf 'listener 2885 192.168.100.13\ncafile /etc/mesh/own/nowhere.crt\n' \
    >"$machines/host/root/etc/mesh/extra/broker4/nowhere.conf"
  refuse "own directives that name a file that is nowhere end it" \
    script deploy-brokers.sh --ssh admin --packages /root/packages/2 broker4
  expect "with its name" says 'own directives of broker4 name /etc/mesh/own/nowhere.crt, which neither it nor this machine has'
  rm "$machines/host/root/etc/mesh/extra/broker4/nowhere.conf"
  ip link set port-broker3 down
  refuse "a machine that is not there ends it" script deploy-brokers.sh --ssh admin --packages /root/packages/2 broker3
  expect "with a sentence that says what to do" says 'broker3 (192.168.100.12) cannot be used over ssh as admin'
  ip link set port-broker3 up
  refuse "an unknown broker is refused" script deploy-brokers.sh --ssh admin broker9
  expect "with those that there are" says 'mesh.toml has no broker9; it has: broker1'
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  need_python_clients
  need_mosquitto
  need_mosquitto_clients
  in_machines "$0"
  exit
fi

begin_network "$brokers"
hand_out_scripts
hand_out_keys admin
watch_command_lines
from_nothing
reads_journals
again
tries_mqtt
tries_http
tries_addresses
tries_files
changes_access
upgrades_while_serving
keeps_secrets
mends
gives_dynamic_security
refuses
say "$expected passed, 0 failed"
