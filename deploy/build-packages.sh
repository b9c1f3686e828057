#!/usr/bin/env bash
# Builds the Debian packages into target/debian: mqtt-mesh-host for the machine with the balancer, and
# mqtt-mesh-broker for each broker's machine. They run on this Debian or Ubuntu, and on later ones.
#
#   ./deploy/build-packages.sh [--debug|--release] [--revision N] [--out DIR]
#
# --debug       fast to build, slow to run: for tests; else --release
# --revision N  the last part of the packages' version; 1 if not given
# --out DIR     where they are put; what is there of earlier versions goes
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

profile=release
revision=1
out=${CARGO_TARGET_DIR:-$checkout/target}/debian
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --debug) profile=dev ;;
    --release) profile=release ;;
    --revision)
      revision=${2:?--revision needs a number}
      shift
      ;;
    --out)
      out=${2:?--out needs a folder}
      shift
      ;;
    *) fail "unknown option $1; see --help" ;;
  esac
  shift
done

need_compiler
need_rust
need_cargo_deb

# Packages for tests are not made small.
compression=()
[ "$profile" = release ] || compression=(--fast)

mkdir -p "$out"
cd "$checkout"
cargo build --locked --profile "$profile" -p mesh-plugin -p mesh-health -p mesh-logs -p mesh-dashboard \
  -p meshctl ||
  fail "the build failed; see the compiler's messages above"
for crate in meshctl mesh-plugin; do
  cargo deb --locked --package "$crate" --profile "$profile" --no-build --strip --deb-revision "$revision" \
    --output "$out/" "${compression[@]+"${compression[@]}"}" ||
    fail "cargo deb cannot make the package of $crate; its message is above"
done
