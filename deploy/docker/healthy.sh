#!/bin/bash
# Does the daemon at this port of this machine say that it is well?
#
#   healthy.sh PORT
set -euo pipefail

exec 3<>"/dev/tcp/127.0.0.1/$1"
printf 'GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" >&3
read -r _ code _ <&3
[ "$code" = 200 ]
