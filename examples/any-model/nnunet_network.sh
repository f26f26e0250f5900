#!/usr/bin/env bash
# nnU-Net's network, which registers every module twice, by a function that builds it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/nnunet_network && cd runs/nnunet_network
[[ -e late.pth ]] || python "$here/nnunet_network.py"
ckptswap sweep --from early.pth --to late.pth --model "$here/nnunet_network.py:network" \
  --data shapes --metric dice --run sweep
ckptswap report sweep --format json -o rows.json
