#!/usr/bin/env bash
# A language model with an adapter of PEFT: what of the adapter can be left out?
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/peft_adapter && cd runs/peft_adapter
[[ -e adapter ]] || python "$here/peft_adapter.py"
ckptswap sweep --from base --to peft:adapter --data text:questions.txt --metric perplexity --run sweep
ckptswap report sweep --format json -o rows.json
