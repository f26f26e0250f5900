#!/usr/bin/env bash
# Checkpoints of Lightning, which hold the hyperparameters of their class.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/lightning_file && cd runs/lightning_file
[[ -e step40.ckpt ]] || python "$here/lightning_file.py"
ckptswap sweep --from step10.ckpt --to step40.ckpt --model "lightning:$here/lightning_file.py:Classifier" \
  --data shapes --metric top1 --run sweep
ckptswap report sweep --format json -o rows.json
