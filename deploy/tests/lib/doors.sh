# shellcheck shell=bash
# What strangers, ordinary users, other people's browsers and other users of a machine try, and may not have. Needs say.sh,
# expect.sh, machines.sh, host.sh; and `password`, the first user's.

: "${checkout:?the script that sources this names the checkout}"
: "${machines:?machines.sh is sourced before}"

# client PROGRAM ARGUMENT…: runs one of deploy/tests/clients, which says of each thing whether it is so.
client() {
  local program=$1
  shift
  exec "$checkout/target/python-clients/bin/python" "$checkout/deploy/tests/clients/$program" "$@"
}

# hears_of PROCESS: what it has told in $machines/told when it ends.
hears_of() {
  local line result=0
  wait "$1" || result=$?
  while read -r line; do
    case $line in
      'ok: '*) ok "${line#ok: }" ;;
      *) say "$line" ;;
    esac
  done <"$machines/told"
  [ "$result" -eq 0 ] || fail "something is not so, see above"
}

tries_mqtt() {
  DOORS_PASSWORD=${password:?} DOORS_HEALTH=$(cat "$machines/host/root/etc/mesh/secrets/mesh-health") \
    client doors.py --balancer 192.168.100.1 --ca "$machines/host/root/etc/mesh/tls/ca.crt" --user mqtt \
    broker1=192.168.100.10 broker2=192.168.100.11 broker5=192.168.100.14 >"$machines/told" &
  hears_of $!
}

# asks PORT METHOD PATH [HEADER=VALUE…]: prints the status with which a server on the host answers on loopback. With the header
# Operator it shows what operators know, which is on no command line.
asks() {
  on host python3 -c 'import http.client, sys
port, method, path, *headers = sys.argv[1:]
headers = dict(header.split("=", 1) for header in headers)
if headers.pop("Operator", None):
    headers["Authorization"] = "Bearer " + open("/etc/mesh/secrets/operator").read().strip()
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
connection.request(method, path, headers=headers)
print(connection.getresponse().status)' "$@"
}

# answers_with STATUS TEXT ASKED…
answers_with() {
  local wanted=$1 text=$2 got
  shift 2
  got=$(asks "$@")
  expect "$text ($got)" test "$got" = "$wanted"
}

# by_nobody_is_told TEXT: what meshctl says to a user who is no operator.
by_nobody_is_told() {
  # shellcheck disable=SC2016 # it is the host's shell that fills this in
  on host sh -c 'runuser -u nobody -- meshctl drain broker5 2>&1 | grep -q -e "$1"' - "$1"
}

tries_http() {
  answers_with 303 "the page asks who is there" 3000 GET /
  answers_with 401 "it tells nothing before that" 3000 GET /api/v1/status
  answers_with 200 "it answers operators" 3000 GET /api/v1/status Operator=yes
  answers_with 421 "it does not answer who calls it by another" 3000 GET / Host=evil.example:3000
  answers_with 403 "another page may not have a broker drained by it" 3000 POST /api/v1/brokers/broker5/drain \
    Origin=http://evil.example Sec-Fetch-Site=cross-site X-Mesh-Action=1
  answers_with 403 "nor by a form, which cannot set a header" 3000 POST /api/v1/brokers/broker5/drain
  answers_with 200 "mesh-health answers programs" 3001 GET /v1/status
  answers_with 421 "not who calls it by a foreign name" 3001 GET /v1/status Host=evil.example:3001
  answers_with 403 "a browser may not have it drain a broker" 3001 POST /v1/brokers/broker5/drain \
    Origin=http://evil.example
  answers_with 403 "not even from a page that is called as it is" 3001 POST /v1/brokers/broker5/drain \
    Origin=http://127.0.0.1:3001 Sec-Fetch-Site=same-origin
  answers_with 403 "nor may who does not show that he is an operator" 3001 POST /v1/brokers/broker5/drain
  answers_with 403 "or shows what is wrong" 3001 POST /v1/brokers/broker5/drain Authorization='Bearer 0123456789abcdef'
  refuse "another user may not by meshctl" on host runuser -u nobody -- meshctl drain broker5
  expect "who is told so" by_nobody_is_told 'only operators may ask for that, as root'
  expect "none of that had any effect" status_is 'enabled' 's["brokers"][4]["admin"]'
  answers_with 200 "an operator may, by the page" 3000 POST /api/v1/brokers/broker5/drain Operator=yes X-Mesh-Action=1
  eventually 10 "broker5 is drained" status_is 'draining' 's["brokers"][4]["admin"]'
  expect "and by meshctl" on host meshctl enable broker5
  eventually 10 "broker5 is enabled again" status_is 'enabled' 's["brokers"][4]["admin"]'
  ok "each has its effect"
}

# reaches MACHINE ADDRESS PORT: does something take connections there, tried from that machine?
reaches() {
  on "$1" python3 -c 'import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()' "$2" "$3" 2>/dev/null
}

tries_addresses() {
  local port
  # Another network that the machines are on too.
  ip -n broker1 address add 10.99.0.10/24 dev eth0
  ip -n host address add 10.99.0.1/24 dev eth0
  expect "a broker is reached at its own address" reaches host 192.168.100.10 1883
  for port in 1883 8883 8083; do
    refuse "not at another one of its machine, port $port" reaches host 10.99.0.10 "$port"
    refuse "nor on that machine's loopback" reaches broker1 127.0.0.1 "$port"
  done
  ip -n broker1 address delete 10.99.0.10/24 dev eth0
  ip -n host address delete 10.99.0.1/24 dev eth0
  expect "the balancer is reached with TLS" reaches broker1 192.168.100.1 8883
  expect "and by WebSockets with TLS" reaches broker1 192.168.100.1 8084
  for port in 1883 8083 3000 3001 3002 18829; do
    refuse "of the host nothing else is, port $port" reaches broker1 192.168.100.1 "$port"
  done
}

# Other users of the machines.
tries_files() {
  local user file
  expect "the daemons' user may read the password of mesh-health" \
    on host runuser -u mesh -- grep -q . /etc/mesh/secrets/mesh-health
  for user in nobody mesh-logs; do
    for file in secrets/mesh-health secrets/mesh-link secrets/operator passwords tls/ca.key tls/balancer.key; do
      refuse "on the host $user may not read $file" on host runuser -u "$user" -- cat "/etc/mesh/$file"
    done
  done
  expect "everybody may read what a client trusts" on host runuser -u nobody -- grep -q CERTIFICATE /etc/mesh/tls/ca.crt
  for user in nobody mesh-journal; do
    for file in mosquitto.conf passwords acl tls/broker1.key; do
      refuse "on a broker's machine $user may not read $file" on broker1 runuser -u "$user" -- cat "/etc/mesh/$file"
    done
  done
}

# watch_command_lines: from now on, of all machines; they are processes of this one too.
watch_command_lines() {
  client cmdlines.py >"$machines/cmdlines" &
  watcher=$!
}

# secrets: what nobody else may see, a line each.
secrets() {
  printf '%s\n' "$password"
  cat "$machines"/host/root/etc/mesh/secrets/*
  # The second line of a key is nobody else's.
  for key in "$machines"/host/root/etc/mesh/tls/*.key; do
    sed -n 2p "$key"
  done
  sed 's/^[^:]*://' "$machines/host/root/etc/mesh/passwords"
}

# open_files: those of all machines that everybody may read and that have a secret in them.
open_files() {
  local name first
  for name in host ${brokers:?}; do
    first=$(leader "$name")
    find "$machines/$name/changed" "/proc/$first/root/run" "/proc/$first/root/tmp" "/proc/$first/root/dev/shm" \
      -type f -perm /o+r -size -4M -exec grep -l -F -f "$machines/secrets" {} + 2>/dev/null || true
  done
}

# logged_secrets: how many lines of all journals and of the log database have one.
logged_secrets() {
  local name
  {
    for name in host $brokers; do
      on "$name" journalctl --quiet --output cat
    done
    cat "$machines"/host/root/var/lib/mesh/nginx/*.log
    on host meshctl logs -n 100000 --json since:1h
  } | grep -c -F -f "$machines/secrets" || true
}

logs_a_secret() {
  [ "$(logged_secrets)" -gt 0 ]
}

keeps_secrets() {
  secrets >"$machines/secrets"
  expect "there are secrets to look for" test "$(grep -c . "$machines/secrets")" -ge 10
  tail -n 1 "$machines/secrets" >"$machines/host/root/root/planted"
  chmod 644 "$machines/host/root/root/planted"
  expect "a secret in a file that everybody may read would be found" test "$(open_files)" = "$machines/host/changed/root/planted"
  rm "$machines/host/root/root/planted"
  expect "there is none on any machine" test -z "$(open_files)"
  # What is planted is no secret, but is looked for like one.
  printf 'planted-by-the-test\n' >>"$machines/secrets"
  expect "none is in a journal, Nginx's log or the database" test "$(logged_secrets)" = 0
  on host logger planted-by-the-test
  eventually 10 "one in a journal would be found" logs_a_secret
  ok "one in a journal would be found"
  on host sh -c 'sleep 0.5; : planted-by-the-test'
  kill -TERM "$watcher"
  wait "$watcher" || true
  expect "one on a command line would be seen" grep -q planted-by-the-test "$machines/cmdlines"
  expect "mesh-health and the brokers were among those seen" \
    test "$(grep -c -e '^/usr/bin/mesh-health' -e '^mosquitto_pub.*deploy' -e 'meshctl user add' "$machines/cmdlines")" -ge 3
  sed -i '$d' "$machines/secrets"
  refuse "no secret was on a command line, from nothing to here" grep -F -f "$machines/secrets" "$machines/cmdlines"
}
