#!/bin/sh
# Writes what follows from mesh.toml, with passwords of its own making, into the volume that all services share.
set -eu

meshctl render --config /etc/mesh/mesh.toml --out /run/mesh
while read -r broker _; do
  mkdir -p "/run/mesh/own/$broker"
  # A file beside the container's output: mesh-logs has no way to that.
  printf 'log_dest file /var/log/mesh/%s.log\n' "$broker" >"/run/mesh/own/$broker/log.conf"
done </run/mesh/inventory
meshctl check --config /etc/mesh/mesh.toml
