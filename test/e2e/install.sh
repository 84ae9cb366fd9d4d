#!/bin/sh
# Installs from Debian's packages what the end-to-end tests need beside the integration tests' peers, without starting any of it.
set -eu
exec 9>/tmp/matrix-icap-gateway-peers.lock
flock 9

guard=/usr/sbin/policy-rc.d
if [ -e "$guard" ]; then mv "$guard" "$guard.before"; fi
trap 'rm -f "$guard"; if [ -e "$guard.before" ]; then mv "$guard.before" "$guard"; fi' EXIT
printf '#!/bin/sh\nexit 101\n' > "$guard"
chmod +x "$guard"

export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=300 update
apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends nginx-light python3 python3-venv
