#!/bin/sh
# One night: ingest, score and report what lies in $SOURCE/<night>. Stops at the first step that fails; run it again to
# continue. Ray starts on this machine, or RAY_ADDRESS names a cluster.
#
#   SOURCE    folder or prefix with a folder of images for each night
#   STORE     folder or prefix for archives, bundles and runs
#   CATEGORY  category of the images
#   MANIFEST  optional: name of an image manifest in the folder of the night, which then names the categories
#   DEVICE    optional: auto, cpu or cuda
set -eu
: "${SOURCE:?set SOURCE to the folder or prefix of the nights}" "${STORE:?set STORE to the folder or prefix of the results}"
: "${CATEGORY:=}" "${MANIFEST:=}" "${DEVICE:=auto}"
night=${1:-$(date -u +%F)}
set -- "$SOURCE/$night" "$STORE/archives/$night"
[ -z "$CATEGORY" ] || set -- "$@" --category "$CATEGORY"
[ -z "$MANIFEST" ] || set -- "$@" --manifest "$SOURCE/$night/$MANIFEST"
uniad-ray ingest "$@"
uniad-ray score "$STORE/archives/$night" --bundles "$STORE/bundles" --out "$STORE/runs/$night" --device "$DEVICE"
uniad-ray report "$STORE/runs/$night"
