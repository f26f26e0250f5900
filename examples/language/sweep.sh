#!/usr/bin/env bash
# Two language models as save_pretrained leaves them: which parts of A can B do with?
#   cd "$(mktemp -d)" && path/to/examples/language/sweep.sh
set -euo pipefail
python "$(dirname "$0")/pair.py"
ckptswap evaluate B --data text:valid.txt --metric perplexity --explain
ckptswap sweep --from A --to B --data text:valid.txt --metric perplexity --by kind --run language
ckptswap sweep --from A --to B --data text:valid.txt --metric kl --by kind --run without-labels
