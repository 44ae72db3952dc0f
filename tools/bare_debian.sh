#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Proves `./dev run` and `./dev test` from a clean clone inside a bare Debian 12 root. Needs root and debootstrap.
#
#   tools/bare_debian.sh FOLDER run                 serves the default model there and asks it one question
#   tools/bare_debian.sh FOLDER test [SUITE ...]    runs the test suites there
#
# FOLDER becomes the root file system and is kept, so that a second call skips debootstrap.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '3,9p' "$0"; exit 2; }
readonly root="$1" what="$2"
shift 2
readonly source="$(git -C "$(dirname "$0")" rev-parse --show-toplevel)"

[ -x "$root/bin/bash" ] || debootstrap --variant=minbase bookworm "$root"
for folder in proc sys dev; do
  mountpoint -q "$root/$folder" || mount --rbind "/$folder" "$root/$folder"
  mount --make-rslave "$root/$folder"  # unmounting here must not reach the host
done
cleanup() { for folder in proc sys dev; do umount --recursive --lazy "$root/$folder" || true; done; }
trap cleanup EXIT
# The way out: name resolution, the host's certificates and apt's settings (a proxy, perhaps).
cp /etc/resolv.conf /etc/hosts "$root/etc/"
mkdir -p "$root/etc/ssl" "$root/etc/apt/apt.conf.d"
cp -L "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/host.crt"
cp -r /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/*registry* "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
# A copy of the clone, not a mount: what is not committed must not be seen.
rm -rf "$root/puna"
git clone --quiet --no-local "$source" "$root/puna"

inside() {
  chroot "$root" /usr/bin/env -i HOME=/home PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI=true \
    PIP_CERT=/etc/ssl/host.crt /bin/bash -c "$1"
}

case "$what" in
  test) inside "cd /puna && ./dev test $*" ;;
  run)
    inside 'cd /puna && exec ./dev run -- --port 8765' &
    server=$!
    for _ in $(seq 900); do
      sleep 1
      kill -0 "$server" || { echo "bare_debian: ./dev run ended early" >&2; exit 1; }
      inside 'exec 3<>/dev/tcp/127.0.0.1/8765' 2>/dev/null && break
    done
    curl -fsS http://127.0.0.1:8765/v1/chat/completions -H 'Content-Type: application/json' \
      -d '{"messages":[{"role":"user","content":"Name the capital of France."}],"temperature":0,"max_tokens":32}'
    echo
    pkill -TERM -f 'puna serve.*--port 8765'
    wait "$server"
    ;;
  *) sed -n '3,9p' "$0"; exit 2 ;;
esac
