#!/usr/bin/env bash
# Installs the Debian packages on test machines with a real systemd, one with the balancer and three brokers, and shows
# how the services live: started, refused, hung, killed, reloaded, upgraded, removed.
#
#   ./deploy/tests/systemd.sh [--release]
#
# --release   with the programs as they are shipped; else with debug builds, which the other tests need anyway
set -euo pipefail

# shellcheck source=deploy/tests/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

brokers='broker1 broker2 broker3'

journal_has() {
  on host journalctl --quiet --unit "$1" --output cat | grep -q -e "$2"
}

is_newer_than() {
  [ "$(unit mesh-health NRestarts)" -gt "$1" ] && is mesh-health ActiveState active
}

packages_install() {
  local broker pids=''
  for broker in $brokers; do
    install_on "$broker" mqtt-mesh-broker 1 &
    pids="$pids $!"
  done
  install_on host mqtt-mesh-host 1
  for broker in $pids; do wait "$broker"; done
  expect "nothing of ours is started by the installation" is mesh-health ActiveState inactive
  expect "the distribution's Nginx serves, as its package has it" is nginx ActiveState active
  distribution=$(unit nginx MainPID)
}

configure() {
  local broker
  on host tee /etc/mesh/mesh.toml >/dev/null <<'END'
# Changed by the operator.
[[broker]]
id = "broker1"
address = "192.168.100.10:1883"
[[broker]]
id = "broker2"
address = "192.168.100.11:1883"
[[broker]]
id = "broker3"
address = "192.168.100.12:1883"
[balancer]
stream_module = "/usr/lib/nginx/modules/ngx_stream_module.so"
[health]
dead_after = "3s"
[logs]
database = "/var/lib/mesh-logs/mesh.db"
[[logs.source]]
name = "mesh"
kind = "journal"
command = "journalctl -o json -f -u mesh-health -u mesh-nginx -u mesh-logs -u mesh-dashboard {after}"
node = "host"
[[logs.source]]
name = "nginx"
path = "/var/lib/mesh/nginx/*.log"
format = "nginx"
node = "host"
END
  on host meshctl render --out /root/rendered >/dev/null
  for broker in $brokers; do
    cp "$machines/host/root/root/rendered/$broker/mosquitto.conf" "$machines/$broker/root/etc/mesh/"
    on "$broker" chown root:mosquitto /etc/mesh/mosquitto.conf
    on "$broker" chmod 640 /etc/mesh/mosquitto.conf
    on "$broker" systemctl restart mosquitto
  done
  expect "passwords made by root are for the daemons' user only" \
    test "$(on host stat -c '%U %a' /etc/mesh/secrets/mesh-health)" = 'mesh 600'
  rm -r "$machines/host/root/root/rendered"
}

refuses_bad_settings() {
  on host cp /etc/mesh/mesh.toml /root/good.toml
  printf '[health]\ndead_afer = "3s"\n' >>"$machines/host/root/etc/mesh/mesh.toml"
  refuse "a wrong mesh.toml is not started on" on host systemctl start mesh-health
  expect "the exit code says configuration" is mesh-health ExecMainStatus 64
  expect "the journal says what is wrong, and where" journal_has mesh-health 'mesh.toml'
  on host systemctl start mesh-nginx || true
  eventually 10 "mesh-nginx fails" is mesh-nginx ActiveState failed
  expect "mesh-nginx refuses it too" is mesh-nginx ExecMainStatus 64
  # Several times RestartSec= later.
  sleep 2
  expect "wrong settings are not tried again" is mesh-health NRestarts 0
  expect "nor by mesh-nginx" is mesh-nginx NRestarts 0
  on host cp /root/good.toml /etc/mesh/mesh.toml
}

starts_when_it_knows() {
  # Nobody answers there, not even to refuse: a verdict takes as long as dead_after.
  ip link set port-broker3 down
  on host systemctl enable --quiet mesh.target mesh-nginx mesh-health mesh-logs mesh-dashboard
  on host systemctl start --no-block mesh.target
  eventually 10 "mesh-health waits for the verdict on broker3" is mesh-health StatusText 'no verdict yet on broker3'
  expect "it is not active before there is a verdict on every broker" is mesh-health ActiveState activating
  eventually 20 "mesh-health is active" is mesh-health ActiveState active
  expect "when it is active, there is a verdict on every broker" \
    status_is 0 '[b["health"] for b in s["brokers"]].count("unknown")'
  ip link set port-broker3 up
  eventually 60 "all is well" status_is 'ok 3' 's["state"]' '[b["health"] for b in s["brokers"]].count("healthy")'
  ok "the target starts them all, and all is well"
}

is_unprivileged() {
  local pid
  for unit in mesh-health mesh-nginx mesh-dashboard; do
    for pid in $(on host cat "/sys/fs/cgroup/system.slice/$unit.service/cgroup.procs"); do
      [ "$(on host stat -c %U "/proc/$pid")" = mesh ] || fail "process $pid of $unit does not run as mesh"
    done
  done
  # 1000 is CAP_NET_ADMIN and nothing else.
  on host grep -q '^CapEff:.0000000000001000$' "/proc/$(unit mesh-health MainPID)/status" &&
    has_no_powers mesh-nginx && has_no_powers mesh-dashboard && has_no_powers mesh-logs &&
    [ "$(on host stat -c %U "/proc/$(unit mesh-logs MainPID)")" = mesh-logs ]
}

has_no_powers() {
  on host grep -q '^CapEff:.0000000000000000$' "/proc/$(unit "$1" MainPID)/status"
}

is_sandboxed() {
  expect "mesh-health runs as its own user, with CAP_NET_ADMIN; the others with nothing, mesh-logs as one more" is_unprivileged
  is_exposed_at_most 2.5 mesh-health
  for unit in mesh-nginx mesh-logs mesh-dashboard; do
    is_exposed_at_most 2.0 "$unit"
  done
  # Root, with the network: it signs, and logs in to brokers.
  is_exposed_at_most 5.5 mesh-certs
  expect "and the snap of Multipass can begin in it, which goes back into the mounts of process 1" certs_may_leave_mounts
}

certs_may_leave_mounts() {
  local folder=/run/systemd/system/mesh-certs.service.d result=0
  on host mkdir -p "$folder"
  printf '[Service]\nExecStart=\nExecStart=/usr/bin/nsenter --mount=/proc/1/ns/mnt true\n' |
    on host tee "$folder/snap.conf" >/dev/null
  on host systemctl daemon-reload
  on host systemctl start mesh-certs || result=1
  on host rm -r "$folder"
  on host systemctl daemon-reload
  return "$result"
}

# is_exposed_at_most LEVEL UNIT: as systemd-analyze judges the sandbox, from 0 to 10.
is_exposed_at_most() {
  local said
  said=$(on host systemd-analyze security --no-pager --threshold="$(printf '%s' "$1" | tr -d .)" "$2.service") ||
    fail "$2 is exposed to more than $1: $said"
  ok "$2 is exposed to $1 at most:$(printf '%s' "$said" | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/ \1/p')"
}

moves_sessions() {
  expect "that user may close Nginx's connections in the kernel" status_is True 's["balancer"]["can_move_sessions"]'
  on broker1 systemctl kill --signal=STOP mosquitto
  eventually 30 "the client is moved off a broker that hangs" connections_are 2
  hears "after the move"
  ok "a client is moved off a broker that hangs, and hears the next message"
  eventually 10 "broker2 serves" status_is 'broker2 True' 's["primary"]' 's["balancer"]["confirmed"]'
  on broker1 systemctl kill --signal=CONT mosquitto
}

journal_has_fields() {
  on host journalctl --quiet --unit mesh-health --output json EVENT=broker.dead BROKER=broker1 >"$machines/dead"
  expect "an event's fields are fields of the journal" \
    grep -q '"PRIORITY":"4".*"REASON":"\|"REASON":".*"PRIORITY":"4"' "$machines/dead"
}

# finds QUERY: is there such a line in the database?
finds() {
  [ -n "$(on host meshctl logs -n 1 --json "$1" 2>/dev/null)" ]
}

# page PATH: what the page's server answers.
page() {
  on host python3 -c 'import sys, urllib.request
print(urllib.request.urlopen("http://127.0.0.1:3000" + sys.argv[1]).read().decode())' "$1"
}

page_finds() {
  page "/api/v1/logs?q=$1" | grep -q '"rows": *\[{'
}

reads_all() {
  local down
  down=$(on host python3 -c 'import urllib.request
page = urllib.request.urlopen("http://127.0.0.1:3002/metrics").read().decode()
print(*[line for line in page.splitlines() if line.startswith("mesh_logs_source_up") and line.endswith(" 0")])')
  [ -z "$down" ] || {
    on host journalctl --quiet --unit mesh-logs --lines 5 --output cat
    printf '%s\n' "$down"
    return 1
  }
}

keeps_lines() {
  expect "mesh-logs can read all of its sources" reads_all
  eventually 20 "events of mesh-health are found with their fields" finds 'event:broker.dead broker:broker1 service:mesh-health'
  eventually 20 "so are the clients in Nginx's files" finds 'service:nginx "connected to" node:host'
  ok "mesh-logs finds mesh-health's events in the journal, and Nginx's lines in its files"
  eventually 20 "the page shows them" page_finds event:broker.dead
  ok "the page shows them, also those that were stored just now"
  expect "nobody else may read the database" \
    test "$(on host stat -c '%U %G %a' /var/lib/mesh-logs /var/lib/mesh-logs/mesh.db | tr '\n' ' ')" = \
    'mesh-logs mesh 770 mesh-logs mesh 660 '
  on host systemctl kill --signal=KILL mesh-logs
  eventually 20 "a mesh-logs that was killed is started again" is mesh-logs NRestarts 1
  eventually 20 "and goes on" finds 'service:mesh-logs "mesh-logs serves"'
  ok "a killed mesh-logs is started again and goes on"
  refuse "its start notes no gap" finds event:logs.gap
}

survives_a_hang() {
  local before
  before=$(unit mesh-health NRestarts)
  on host systemctl kill --signal=STOP mesh-health
  eventually 40 "the watchdog ends a mesh-health that hangs, and starts another" is_newer_than "$before"
  expect "the watchdog ends a mesh-health that hangs, and starts another" journal_has mesh-health 'Watchdog timeout'
}

survives_a_kill() {
  local before master changed generation
  before=$(unit mesh-health NRestarts)
  master=$(unit mesh-nginx MainPID)
  generation=$(status 's["generation"]')
  changed=$(on host stat -c %y /var/lib/mesh/nginx/upstream.conf)
  on host systemctl kill --signal=KILL mesh-health
  eventually 20 "a mesh-health that was killed is started again" is_newer_than "$before"
  eventually 20 "it adopts what runs" \
    status_is "broker2 $generation True" 's["primary"]' 's["generation"]' 's["balancer"]["confirmed"]'
  [ "$(on host stat -c %y /var/lib/mesh/nginx/upstream.conf)" = "$changed" ] || fail "upstream.conf was written again"
  expect "a killed mesh-health is started again and adopts what runs" is mesh-nginx MainPID "$master"
}

reloads() {
  local master
  master=$(unit mesh-nginx MainPID)
  sed -i 's/^\[balancer\]/&\nworker_connections = 2048/' "$machines/host/root/etc/mesh/mesh.toml"
  on host systemctl reload mesh-nginx
  grep -q 'worker_connections 2048' "$machines/host/root/var/lib/mesh/nginx/nginx.conf" || fail "nginx.conf is the old one"
  sed -i 's/^worker_connections.*/stream_module = "\/nowhere.so"/; /ngx_stream_module/d' \
    "$machines/host/root/etc/mesh/mesh.toml"
  refuse "a reload that Nginx refuses is told" on host systemctl reload mesh-nginx
  expect "and leaves the nginx.conf that it takes" \
    grep -q 'worker_connections 2048' "$machines/host/root/var/lib/mesh/nginx/nginx.conf"
  on host cp /root/good.toml /etc/mesh/mesh.toml
  hears "after the reload"
  expect "no session is cut by any of it" connections_are 2
  expect "Nginx is still the same" is mesh-nginx MainPID "$master"
}

# ends_soon NAME: it has a certificate that ends in 20 days, of the mesh's own authority.
ends_soon() {
  local tls=$machines/host/root/etc/mesh/tls
  openssl x509 -req -in <(openssl req -new -key "$tls/$1.key" -subj "/CN=$1") -CA "$tls/ca.crt" -CAkey "$tls/ca.key" \
    -CAcreateserial -days 20 -sha256 -out "$tls/$1.crt" \
    -extfile <(printf 'subjectAltName=%s\n' "$(cat "$tls/$1.addresses")") 2>/dev/null
}

# shown: the day on which the certificate ends that Nginx shows.
shown() {
  on host openssl s_client -connect 192.168.100.1:8883 </dev/null 2>/dev/null | openssl x509 -noout -enddate
}

shows_another_than() {
  local now
  now=$(shown)
  [ -n "$now" ] && [ "$now" != "$1" ]
}

certs_ended() {
  [ "$(unit mesh-certs ActiveState)" != activating ] && [ "$(unit mesh-certs ExecMainStatus)" = "$1" ]
}

# Each day a timer looks, and what ends within a month is renewed under a client that stays connected.
renews() {
  local old master toml=$machines/host/root/etc/mesh/mesh.toml
  master=$(unit mesh-nginx MainPID)
  on host systemctl start mesh-certs
  ok "where there are no certificates, nothing is to be renewed"
  sed -i 's#^\[balancer\]#&\ntls = "192.168.100.1:8883"\ncertificate = "/etc/mesh/tls/balancer.crt"\ncertificate_key = "/etc/mesh/tls/balancer.key"#' "$toml"
  on host systemctl start mesh-certs
  expect "one that is missing is made" on host test -s /etc/mesh/tls/balancer.crt
  ends_soon balancer
  on host systemctl reload mesh-nginx
  eventually 10 "Nginx shows a certificate" shows_another_than ''
  on host stdbuf -oL mosquitto_sub -d -h 192.168.100.1 -p 8883 --cafile /etc/mesh/tls/ca.crt -i tls -k 60 -t 'test/#' \
    >"$machines/tls" 2>&1 </dev/null &
  eventually 10 "a client connects with TLS" grep -q SUBACK "$machines/tls"
  old=$(shown)
  # As if its time had passed while the machine was off.
  on host systemctl enable --quiet mesh-certs.timer
  on host touch --date='3 days ago' /var/lib/systemd/timers/stamp-mesh-certs.timer
  on host systemctl start mesh-certs.timer
  eventually 90 "the timer has it renewed, and Nginx shows it" shows_another_than "$old"
  ok "the timer has a certificate renewed that ends soon, and Nginx shows it"
  eventually 30 "it has ended well" certs_ended 0
  hears "after the renewal"
  expect "no session is cut by it" connections_are 2
  expect "nor one with TLS" test "$(grep -c CONNACK "$machines/tls")" = 1
  expect "Nginx is still the same" is mesh-nginx MainPID "$master"
  # Brokers whose certificates are made here, on machines where nobody may log in.
  on host cp /etc/mesh/mesh.toml /root/with-tls.toml
  sed -i 's#^address = "\(.*\):1883"#&\ntls = "\1:8883"#; s#^\[balancer\]#[mosquitto]\ntls_dir = "/etc/mesh/tls"\n&#' "$toml"
  refuse "brokers that it cannot reach make it fail" on host systemctl start mesh-certs
  expect "its journal says what to do" journal_has mesh-certs 'nobody has said how the brokers are reached'
  on host sh -c 'echo "ssh nobody" >/etc/mesh/way-to-brokers'
  refuse "also where it knows the way" on host systemctl start mesh-certs
  expect "for each of them" journal_has mesh-certs 'broker3 does not have the certificate that is here: run deploy-brokers.sh'
  on host rm /etc/mesh/way-to-brokers
  on host systemctl reset-failed mesh-certs
  on host cp /root/good.toml /etc/mesh/mesh.toml
  on host systemctl reload mesh-nginx
}

upgrades() {
  local master health
  master=$(unit mesh-nginx MainPID)
  health=$(unit mesh-health MainPID)
  install_on host mqtt-mesh-host 2
  install_on broker3 mqtt-mesh-broker 2
  expect "an upgrade keeps the operator's mesh.toml" on host cmp --quiet /root/good.toml /etc/mesh/mesh.toml
  [ "$(unit mesh-health MainPID)" != "$health" ] || fail "mesh-health was not started anew"
  expect "and starts mesh-health anew, not Nginx" is mesh-nginx MainPID "$master"
  hears "after the upgrade"
  expect "and cuts no session" connections_are 2
}

goes_without_trace() {
  on host apt-get remove -y -q mqtt-mesh-host >/dev/null 2>&1
  expect "a removal ends what runs" refuse_processes
  expect "and keeps configuration and state" on host test -s /etc/mesh/mesh.toml -a -s /var/lib/mesh/nginx/upstream.conf
  on host apt-get purge -y -q mqtt-mesh-host >/dev/null 2>&1
  expect "a purge leaves no file" \
    test -z "$(on host find /etc /usr /var/lib /var/log -path /var/lib/dpkg -prune -o -name '*mesh*' -print)"
  refuse "and no user" on host getent passwd mesh
  refuse "not that of mesh-logs either" on host getent passwd mesh-logs
  expect "the distribution's Nginx has been left alone" is nginx MainPID "$distribution"

  on broker3 apt-get purge -y -q mqtt-mesh-broker >/dev/null 2>&1
  refuse "a broker's package leaves no user either" on broker3 getent passwd mesh-journal
  on broker3 systemctl start mosquitto
  expect "without its package a broker is the distribution's Mosquitto again" is_stock broker3
}

is_stock() {
  local pid
  pid=$(on "$1" systemctl show --value --property MainPID mosquitto)
  on "$1" grep -q -a /etc/mosquitto/mosquitto.conf "/proc/$pid/cmdline"
}

refuse_processes() {
  ! on host sh -c 'cat /proc/[0-9]*/cmdline | tr "\0" "\n" | grep -q "[m]esh"'
}

if [ -z "${MESH_TEST_RUN-}" ]; then
  prepare "$@"
  need_openssl
  in_machines "$0"
  exit
fi

begin_network "$brokers"
packages_install
configure
refuses_bad_settings
starts_when_it_knows
client_connects
is_sandboxed
moves_sessions
journal_has_fields
keeps_lines
survives_a_hang
survives_a_kill
reloads
renews
upgrades
goes_without_trace
say "$expected passed, 0 failed"
