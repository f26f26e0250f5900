"""The program in a shell script under `set -euo pipefail`: paths into variables, JSON into another program."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import programs

SCRIPT = r"""
set -euo pipefail
ckptswap() { "$PYTHON" -m ckptswap "$@"; }

changed=$(ckptswap diff init.safetensors segment.safetensors --format json 2>/dev/null |
  "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["summary"]["changed"])')
echo "changed $changed"

if ckptswap diff init.safetensors segment.safetensors --exit-code > /dev/null
then echo same; else echo "code $?"; fi
if ckptswap diff nowhere segment.safetensors 2> error.txt; then echo fine; else echo "code $?"; fi

variant=$(ckptswap transplant --from reconstruct.safetensors --to segment.safetensors --kind conv.bias)
test -f "$variant"
echo "wrote $variant"

ckptswap sweep --from reconstruct.safetensors --to segment.safetensors --data scans --threads 1 \
  --kind conv.bias --run "a run" --format json | "$PYTHON" -m json.tool > table.json
ckptswap report "a run" --format csv | head -n 1
ckptswap report 'a run' --format csv -o drops.csv
echo done
"""


def test_script(work: Path) -> None:
    environment = {**os.environ, "PYTHON": programs.python()}
    done = subprocess.run(["bash", "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "changed 46",
        "code 1",
        "code 2",
        "wrote segment+conv.bias@reconstruct.safetensors",
        Path("drops.csv").read_text("utf-8").splitlines()[0],
        "done",
    ]
    assert Path("error.txt").read_text().count("\n") == 1
    assert len(json.loads(Path("table.json").read_text("utf-8"))["rows"]) == 8
    assert "run: a run" in done.stderr
