#!/usr/bin/env bash
# Renews the certificates that end within 30 days, and has Nginx and the brokers take them without cutting a session;
# mesh-certs.timer runs it each day. Certificates that were given it cannot renew: it has them taken when there are new
# ones, and says when there should be.
#
#   ./deploy/renew-certs.sh
#
# It reaches the brokers as deploy-brokers.sh did last, but as root and without asking anybody. Where it cannot, it says so
# and fails, and the balancer has its certificate all the same.
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"
on_macos mac_renew "$@"

case ${1-} in
  '') ;;
  -h | --help)
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) fail "unknown option $1; see --help" ;;
esac

# lasts FILE DAYS: does the certificate?
lasts() {
  as_root openssl x509 -in "$1" -noout -checkend $(($2 * 24 * 3600)) >/dev/null
}

# end_of FILE: the day on which it ends.
end_of() {
  as_root openssl x509 -in "$1" -noout -enddate | sed 's/^notAfter=//'
}

# has_tls BROKER
has_tls() {
  files_of "$1" | grep '^certificate ' >/dev/null
}

# renew BROKER: it gets what is new of its certificates. Passwords and rights wait for deploy-brokers.sh.
renew() {
  on_broker "$1" true </dev/null || fail "$1 ($(address_of "$1")) cannot be reached as root does ($(as_root cat "$way_file"))"
  ! is_unfinished "$1" || fail "$1 was left half-done"
  if carry_files "$1" authority certificate key; then
    reread "$1"
    is_in_step "$1"
    end_change "$1"
    say "$1 has its new certificate, and goes on"
  else
    say "$1 has its certificate"
  fi
}

need_mesh
render
brokers=$(inventory | sed 's/ .*//')
# shellcheck disable=SC2086 # they are words
need_certificates nginx $brokers
troubles=0

# trouble TEXT: something a human has to do; the rest is done first.
trouble() {
  printf '%s\n' "$1" >&2
  troubles=$((troubles + 1))
}

# shellcheck disable=SC2119 # mesh.toml may be in the middle of a change
if balancer_is_stale; then
  as_root systemctl reload mesh-nginx || trouble "mesh-nginx does not take its new certificate; see journalctl -u mesh-nginx"
  say "mesh-nginx has read its certificate again"
fi
with_tls=()
for broker in $brokers; do
  ! has_tls "$broker" || with_tls+=("$broker")
done
if [ "${#with_tls[@]}" -gt 0 ]; then
  if recall_way; then
    for broker in "${with_tls[@]}"; do
      # One that cannot be reached does not keep the others from theirs.
      (renew "$broker") ||
        trouble "$broker does not have the certificate that is here: run deploy-brokers.sh $broker before the old one ends"
    done
  else
    trouble "nobody has said how the brokers are reached, so they keep the certificates that they have: run deploy-brokers.sh"
  fi
fi
files=$(for name in nginx $brokers; do files_of "$name"; done | sed -n 's/^certificate //p' | sort -u)
for file in $files; do
  # What is made here has been renewed by now.
  lasts "$file" 30 || trouble "$file ends on $(end_of "$file"); put a new one there"
done
[ ! -e "$own_tls/ca.crt" ] || lasts "$own_tls/ca.crt" 180 ||
  trouble "the authority $own_tls/ca.crt ends on $(end_of "$own_tls/ca.crt"): remove it and ca.key, deploy again, and give clients the new one"
[ "$troubles" -eq 0 ] || fail "$troubles things are left to do, see above"
