#!/bin/sh
# Installs from Debian's packages what the end-to-end tests need beside the integration tests' peers, without starting any of it.
exec "$(dirname "$0")/../support/peers/install.sh" nginx-light caddy haproxy python3 python3-venv
