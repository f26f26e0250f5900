#!/usr/bin/env bash
# A language model of Hugging Face's whose output layer is its embedding, on lines of text.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p runs/hf_decoder && cd runs/hf_decoder
[[ -e late ]] || python "$here/hf_decoder.py"
ckptswap sweep --from early --to late --data text:sentences.txt --metric perplexity --run sweep
ckptswap report sweep --format json -o rows.json
