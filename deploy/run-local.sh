#!/usr/bin/env bash
# Runs the whole network on this machine: five Mosquitto brokers in a full mesh, Nginx in front, mesh-health,
# mesh-logs, and the page at http://127.0.0.1:3000.
# Installs what is missing, builds, and stays in the foreground; Ctrl-C ends everything.
#
#   ./deploy/run-local.sh [--brokers N] [--base-port P] [--state DIR] [--netns] [--fresh]
set -euo pipefail

# shellcheck source=deploy/lib/all.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/all.sh"

case ${1-} in
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

steps 4
step "Looking for Mosquitto and Nginx"
need_mosquitto
need_mosquitto_clients
need_nginx
step "Looking for a Rust toolchain"
need_compiler
need_rust
step "Building (a few minutes the first time)"
cargo build --release --locked --manifest-path "$checkout/Cargo.toml" -p mesh-plugin -p mesh-health -p mesh-logs -p mesh-dashboard -p meshctl ||
  fail "the build failed; see the compiler's messages above"
step "Starting the network"
cd "$checkout"
exec "${CARGO_TARGET_DIR:-$checkout/target}/release/meshctl" lab up "$@"
