#!/usr/bin/env bash
# Makes the certificates of a mesh: a small authority of its own (ca.crt, ca.key), and a certificate and key for the
# balancer and for each broker. Run again, it makes what is missing, has other addresses, or ends within 30 days; the
# authority stays, so clients that trust ca.crt go on to.
#
#   ./deploy/make-certs.sh DIR NAME=ADDRESS[,ADDRESS…]…
#
# DIR      where they are kept; keys can be read by their owner only
# NAME     balancer, or the id of a broker; an ADDRESS is an IP address or a host name
#
# ca.key signs, and no machine of the mesh needs it: keep it elsewhere if you can.
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

authority_days=3650
days=730
renew_within=$((30 * 24 * 3600))

# sign NAME ADDRESSES: a key and a certificate for it, valid for these addresses.
sign() {
  local name=$1 addresses=$2
  openssl ecparam -name prime256v1 -genkey -noout -out "$name.key.new"
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$addresses" >"$name.ext"
  openssl req -new -key "$name.key.new" -subj "/CN=$name" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -CAserial ca.srl -CAcreateserial -days "$days" \
    -sha256 -extfile "$name.ext" -out "$name.crt.new" 2>/dev/null
  mv "$name.key.new" "$name.key"
  mv "$name.crt.new" "$name.crt"
  printf '%s\n' "$addresses" >"$name.addresses"
  rm "$name.csr" "$name.ext"
}

# is_good NAME ADDRESSES: is there a certificate for these addresses that lasts, signed by this authority?
is_good() {
  [ -f "$1.crt" ] && [ -f "$1.key" ] && [ "$(cat "$1.addresses" 2>/dev/null)" = "$2" ] &&
    openssl x509 -in "$1.crt" -noout -checkend "$renew_within" >/dev/null &&
    openssl verify -CAfile ca.crt "$1.crt" >/dev/null 2>&1
}

# names ADDRESS,…: as a certificate has them.
names() {
  local address list=''
  for address in ${1//,/ }; do
    if [[ $address == *:* || $address =~ ^[0-9]+(\.[0-9]+){3}$ ]]; then
      list="$list,IP:$address"
    else
      list="$list,DNS:$address"
    fi
  done
  printf '%s\n' "${list#,}"
}

case ${1--h} in
  -h | --help)
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  -*) fail "unknown option $1; see --help" ;;
esac
[ $# -ge 2 ] || fail "give a folder and at least one NAME=ADDRESS; see --help"
found openssl || install openssl
folder=$1
shift
for pair in "$@"; do
  case $pair in
    [a-z]*=?*) ;;
    *) fail "$pair is not NAME=ADDRESS" ;;
  esac
done

umask 077
mkdir -p "$folder"
cd "$folder"
# Two runs at once, one of them perhaps the timer's, would mix a key with another certificate.
if found flock; then
  exec 9>.lock
  flock 9
fi
if [ ! -f ca.key ] || [ ! -f ca.crt ]; then
  if [ -f ca.key ] || [ -f ca.crt ]; then
    fail "$folder has only one of ca.key and ca.crt; put the other one back, or remove it"
  fi
  openssl ecparam -name prime256v1 -genkey -noout -out ca.key
  openssl req -x509 -new -key ca.key -sha256 -days "$authority_days" -subj "/CN=mqtt-mesh authority" -out ca.crt \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
  say "made an authority; clients with TLS need $folder/ca.crt"
fi
for pair in "$@"; do
  name=${pair%%=*}
  addresses=$(names "${pair#*=}")
  if is_good "$name" "$addresses"; then
    say "$name has its certificate"
  else
    sign "$name" "$addresses"
    say "made a certificate for $name ($addresses), good for $days days"
  fi
done
chmod 644 ./*.crt
