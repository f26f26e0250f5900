#!/usr/bin/env bash
# A folder that smp's save_pretrained wrote says what it is; masks lie beside images.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/smp_folder && cd runs/smp_folder
[[ -e late ]] || python "$here/smp_folder.py"
ckptswap sweep --from early --to late --data shapes --metric iou --run sweep
ckptswap report sweep --format json -o rows.json
