#!/bin/sh
# c-icap that starts without clamd answers "clean" to everything, and goes on doing so after clamd comes up: wait for clamd.
set -eu
clamdscan --config-file=/etc/c-icap/clamd-client.conf --ping 900:1
exec c-icap -N -f /etc/c-icap/c-icap.conf
