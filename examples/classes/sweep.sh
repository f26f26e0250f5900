#!/usr/bin/env bash
# Two image classifiers of timm, and a folder of images for each class: which parts of A can B do with?
#   cd "$(mktemp -d)" && path/to/examples/classes/sweep.sh
set -euo pipefail
python "$(dirname "$0")/pair.py"
task=(--model timm:test_resnet --model-args num_classes=2 --data lines --normalize 0.5/0.25)
ckptswap evaluate a.safetensors b.safetensors "${task[@]}" --metric top1,loss
ckptswap sweep --from a.safetensors --to b.safetensors "${task[@]}" --metric loss,top1 --by kind --run classes
