#!/usr/bin/env bash
# Compare two checkpoints, carry one kind of parameter over, and sweep for what breaks.
#   examples/swap.sh reconstruct.safetensors segment.safetensors
set -euo pipefail
donor=$1 recipient=$2
task=(--data lab:mni --metric dice --limit "${LIMIT:-50}" --threads 2)

echo "== what changed, by kind"
ckptswap diff "$donor" "$recipient" --by kind --sort rel_l2

echo "== the recipient with the donor's convolution biases"
swapped=$(ckptswap transplant --from "$donor" --to "$recipient" --kind conv.bias --force)
ckptswap evaluate "$recipient" "$swapped" "${task[@]}"

echo "== which running statistics of the encoder can be swapped"
ckptswap sweep --from "$donor" --to "$recipient" "${task[@]}" \
  --only 'bn.running_*' --layers 'encoder.0:1' --run swap-run --format json >sweep.json
python3 - <<'PYTHON'
import json

rows = json.load(open("sweep.json"))["rows"]
for row in rows:
    drop = "missing" if row["drop"] is None else f"{row['drop']:+.4f}"
    print(row["rank"], row["layer"], row["kind"], drop, row["verdict"])
PYTHON
