#!/usr/bin/env bash
# A network of one's own with two inputs, and its data: two functions in a file.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/own_file && cd runs/own_file
[[ -e late.pt ]] || python "$here/own_file.py"
ckptswap sweep --from early.pt --to late.pt --model "$here/own_file.py:network" --data "$here/own_file.py:weeks" \
  --metric mse --run sweep
ckptswap report sweep --format json -o rows.json
