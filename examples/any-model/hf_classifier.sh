#!/usr/bin/env bash
# A classifier of Hugging Face's, on texts with labels; its folder has the tokenizer.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/hf_classifier && cd runs/hf_classifier
[[ -e late ]] || python "$here/hf_classifier.py"
ckptswap sweep --from early --to late --data text:reviews.jsonl --metric top1 --run sweep
ckptswap report sweep --format json -o rows.json
