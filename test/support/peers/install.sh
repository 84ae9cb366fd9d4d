#!/bin/sh
# Installs Debian packages without starting any of what they bring: those named, else c-icap, e2guardian, ClamAV and Redis. Safe to run twice at the same time.
set -eu
[ $# -gt 0 ] || set -- c-icap libc-icap-mod-virus-scan clamav-daemon clamav clamdscan redis-server unzip e2guardian
exec 9>/tmp/matrix-icap-gateway-peers.lock
flock 9

guard=/usr/sbin/policy-rc.d
if [ -e "$guard" ]; then mv "$guard" "$guard.before"; fi
trap 'rm -f "$guard"; if [ -e "$guard.before" ]; then mv "$guard.before" "$guard"; fi' EXIT
printf '#!/bin/sh\nexit 101\n' > "$guard"
chmod +x "$guard"

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
