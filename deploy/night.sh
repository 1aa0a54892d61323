#!/bin/sh
# The next night: ingests, scores and reports what is new, and sends alarms. Run it again to continue an interrupted one.
# Ray starts on this machine, or RAY_ADDRESS names a cluster. Arguments are passed on to `uniad-ray nightly`.
#
#   CONFIG    file of the nights, such as deploy/nightly.yaml; local or s3://
set -eu
: "${CONFIG:?set CONFIG to the file of the nights, such as deploy/nightly.yaml}"
status=0
uniad-ray nightly --config "$CONFIG" "$@" || status=$?
# With alarms the night is complete and its messages are sent: a scheduler must not repeat it like a job that failed.
[ "$status" -ne 3 ] || status=0
exit "$status"
