# shellcheck shell=bash
# Who may connect, and by what machines are known: passwords, access control, certificates. They are made here if mesh.toml
# asks for them, and are carried to the brokers, for root and Mosquitto only. Needs say.sh, packages.sh and brokers.sh.

: "${checkout:?the script that sources this names the checkout}"
: "${mesh_toml:?brokers.sh is sourced before}"

# Certificates that mesh.toml names in this folder are made here, and made anew before they end; those elsewhere are given.
own_tls=/etc/mesh/tls

first_user=mqtt

# files_of NAME: what a broker, or nginx, needs beside its configuration: lines of a kind and a path.
files_of() {
  as_root cat "${rendered:?render comes first}/$1/files"
}

# need_access NAME…: makes what these, brokers or nginx, need and lack, as far as it is the scripts' to make.
need_access() {
  local name kind path
  need_certificates "$@"
  need_first_user "$@"
  for name in "$@"; do
    while read -r kind path; do
      # Own directives may be none, what they name may be there already, and with what a broker begins it may have begun.
      case $kind in '' | directives | named | dynamic-security | database) continue ;; esac
      as_root test -f "$path" ||
        fail "mesh.toml names $path, which is not there; put it there, or take it out of $mesh_toml"
    done <<<"$(files_of "$name")"
  done
}

# need_certificates NAME…
need_certificates() {
  local name wanted=() said
  for name in "$@"; do
    if [ "$name" = nginx ]; then
      ! files_of nginx | grep -x "certificate $own_tls/balancer.crt" >/dev/null || wanted+=("balancer=$(balancer_names)")
    else
      ! files_of "$name" | grep -x "certificate $own_tls/$name.crt" >/dev/null || wanted+=("$name=$(address_of "$name")")
    fi
  done
  [ "${#wanted[@]}" -gt 0 ] || return 0
  # Clients on this machine may read ca.crt there.
  as_root /usr/bin/install -d -m 755 "$own_tls"
  said=$(as_root "$checkout/deploy/make-certs.sh" "$own_tls" "${wanted[@]}") || fail "certificates cannot be made, see above"
  printf '%s\n' "$said" | grep '^ *made ' || true
  # mesh-nginx is no root, and mesh-logs, which reads what strangers write, is in its group.
  # shellcheck disable=SC2016 # it is root's shell that fills this in
  ! as_root test -f "$own_tls/balancer.key" ||
    as_root sh -c 'chown mesh "$1" && chmod 600 "$1"' - "$own_tls/balancer.key" || fail "mesh-nginx cannot be given its key"
}

# balancer_names: by what clients may call this machine. A name that make-certs.sh was given by hand stays.
balancer_names() {
  {
    printf 'localhost\n127.0.0.1\n'
    uname -n
    host_addresses
    { as_root cat "$own_tls/balancer.addresses" 2>/dev/null || true; } | tr , '\n' | sed 's/^[A-Z]*://'
  } | sort -u | paste -s -d , -
}

# host_addresses: this machine's own, first the one that the rest of the world sees, if there is a way there.
host_addresses() {
  {
    ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p' || true
    ip -4 -brief address show scope global | grep -o '[0-9.]*/' | tr -d /
  } | awk '!seen[$0]++'
}

# need_first_user NAME…: if there was never a user, there is one now, whose password is told this once.
need_first_user() {
  local file password
  file=$(for name in "$@"; do files_of "$name"; done | sed -n 's/^passwords //p' | sort -u)
  [ -n "$file" ] && [ "$(printf '%s\n' "$file" | wc -l)" = 1 ] || return 0
  ! as_root test -e "$file" || return 0
  # A builtin prints it: it is on no command line.
  password=$(as_root meshctl user add --config "$mesh_toml" --generate "$first_user" 2>/dev/null) ||
    fail "the first user cannot be made; see: meshctl user add $first_user"
  show_first_user "$password"
}

# show_first_user PASSWORD
show_first_user() {
  local host port ca=''
  host=$(host_addresses | sed -n 1p)
  port=$(as_root sed -n 's/^ *listen .*:\([0-9]*\) ssl .*/\1/p' "$rendered/nginx/nginx.conf" | head -n 1)
  if [ -n "$port" ]; then
    ca=" --cafile $own_tls/ca.crt"
  else
    port=$(as_root sed -n 's/^ *listen .*:\([0-9]*\) so_keepalive.*/\1/p' "$rendered/nginx/nginx.conf" | head -n 1)
  fi
  say "There is a first user now. This is the only time that the password is shown; to change it: meshctl user add $first_user"
  say ''
  say "  host       $host, port $port${ca:+, with TLS}"
  say "  user       $first_user"
  say "  password   $1"
  [ -z "$ca" ] || say "  authority  $own_tls/ca.crt; clients on other machines need a copy"
  say "  try it     mosquitto_pub -h $host -p $port$ca -u $first_user -P $1 -t hello -m world"
  say ''
}

# is_stale UNIT FILE…: does it run with an older one of these?
is_stale() {
  local since file
  since=$(date -d "$(systemctl show --value --property StateChangeTimestamp "$1")" +%s)
  shift
  for file in "$@"; do
    [ "$since" -gt "$(as_root stat -c %Y "$file")" ] || return 0
  done
  return 1
}

# balancer_is_stale [FILE]: does Nginx run with an older certificate than there is, or than this file is?
balancer_is_stale() {
  # shellcheck disable=SC2046 # paths that Nginx can read have no white space
  systemctl --quiet is-active mesh-nginx && is_stale mesh-nginx $(files_of nginx | sed 's/^[^ ]* //') "$@"
}
