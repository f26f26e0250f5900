#!/usr/bin/env bash
# A sweep on a Slurm cluster, as an array of eight jobs: sweep.sh DONOR RECIPIENT [flags of ckptswap sweep …]
#
# Run it where jobs are submitted, in a folder that all nodes see (pip install 'ckptswap[slurm]'). It waits for the
# jobs and shows what they find; Ctrl-C leaves them running, and the same command collects later.
set -euo pipefail

donor=$1 recipient=$2
shift 2
ckptswap sweep --from "$donor" --to "$recipient" --threads "${THREADS:-4}" --run run \
    --executor slurm --jobs "${JOBS:-8}" --slurm "${SLURM:-time=120,mem=16GB}" "$@"
ckptswap report run --top 10
