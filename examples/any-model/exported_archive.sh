#!/usr/bin/env bash
# An exported archive is the network; files of tensors are scored in it, on arrays of an npz.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/exported_archive && cd runs/exported_archive
[[ -e net.pt2 ]] || python "$here/exported_archive.py"
ckptswap sweep --from early.pt --to late.pt --model export:net.pt2 --data npz:shapes.npz --metric dice --run sweep
ckptswap report sweep --format json -o rows.json
