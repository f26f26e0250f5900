#!/usr/bin/env bash
# A sweep on a Ray cluster, in eight tasks: sweep.sh DONOR RECIPIENT [flags of ckptswap sweep …]
#
# Run it in a folder that all nodes see (pip install 'ckptswap[ray]' on each). With RAY=HOST:PORT of a cluster;
# without, Ray is started on this machine for as long as the sweep takes.
set -euo pipefail

donor=$1 recipient=$2
shift 2
ckptswap sweep --from "$donor" --to "$recipient" --threads "${THREADS:-4}" --run run \
    --executor ray --jobs "${JOBS:-8}" ${RAY:+--ray-address "$RAY"} "$@"
ckptswap report run --top 10
