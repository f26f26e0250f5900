#!/usr/bin/env bash
# A classifier of timm's, on a folder of pictures for each class.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/timm_classifier && cd runs/timm_classifier
[[ -e late.pt ]] || python "$here/timm_classifier.py"
ckptswap sweep --from early.pt --to late.pt --model timm:test_resnet --model-args num_classes=3 \
  --data shapes --metric top1 --run sweep
ckptswap report sweep --format json -o rows.json
