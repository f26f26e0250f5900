#!/usr/bin/env bash
# A segmentation network of torchvision's, on Pascal VOC's folders; 255 in a mask does not count.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/torchvision_masks && cd runs/torchvision_masks
[[ -e late.pt ]] || python "$here/torchvision_masks.py"
ckptswap sweep --from early.pt --to late.pt \
  --model torchvision:lraspp_mobilenet_v3_large --model-args num_classes=4 --data voc --metric iou --by kind --run sweep
ckptswap report sweep --format json -o rows.json
