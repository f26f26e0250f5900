"""Run the program, in this process or as one of its own, see what came out, and make small things to run it on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import programs
from jsonschema import Draft202012Validator
from PIL import Image

from ckptswap.cli.main import main

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "docs" / "schemas"
TASK = ["--data", "scans", "--group", r"(s\d+)_", "--batch-size", "8", "--threads", "1"]
SWAP = ["--from", "reconstruct.safetensors", "--to", "segment.safetensors"]


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote on its two streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=_refuse)


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def run(*arguments: object) -> Done:
    """The program in this process and the current folder, through its own entry point; stdout is no terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    code: object = None
    try:
        with (
            patch.object(sys, "argv", ["ckptswap", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert isinstance(code, int), f"main() left with {code!r}"
    return Done(code, *(each.buffer.getvalue().decode("utf-8") for each in (out, err)))  # type: ignore[attr-defined]


def good(*arguments: object) -> Done:
    """Like `run`, for a command that must end with 0."""
    done = run(*arguments)
    assert done.code == 0, done.err
    return done


def program(*arguments: object) -> list[str]:
    """The command line that starts the real program."""
    return [sys.executable, "-m", "ckptswap", *map(str, arguments)]


def run_process(*arguments: object, env: Mapping[str, str] | None = None) -> Done:
    """The program as a process of its own, in the current folder."""
    done = programs.run(
        program(*arguments), capture_output=True, text=True, encoding="utf-8", env={**os.environ, **(env or {})}
    )
    return Done(done.returncode, done.stdout, done.stderr)


def validate(schema: str, data: Any) -> None:
    """Hold an output against its schema in docs/."""
    Draft202012Validator(json.loads((SCHEMAS / f"{schema}.schema.json").read_text("utf-8"))).validate(data)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder: path → size and time of the last change."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def draw_scans(folder: Path, side: int = 16, count: int = 18, seed: int = 0) -> None:
    """`images/` and `masks/`: a bright square in noise; two neighbours a group (`s03_0.png`, `s03_1.png`)."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for at in range(count):
        mask = np.zeros((side, side), np.uint8)
        top, left = rng.integers(1, side // 2, 2)
        mask[top : top + side * 3 // 8, left : left + side * 3 // 8] = 255
        image = np.clip(mask * 0.5 + 40 + rng.normal(0, 20, mask.shape), 0, 255).astype(np.uint8)
        for kind, array in (("images", image), ("masks", mask)):
            Image.fromarray(array).save(folder / kind / f"s{at // 2:02d}_{at % 2}.png")


def train_pair(model: str, args: str, data: str, steps: int) -> None:
    """`init`, `segment` and `reconstruct.safetensors` in the current folder."""
    common = ["--model", model, "--model-args", args, "--data", data, "--steps", steps, "--threads", 1]
    common += ["--lr", 0.02]
    good("train", "segment", *common, "--save-init", "init.safetensors", "-o", "segment.safetensors")
    good("train", "reconstruct", *common, "--init-from", "init.safetensors", "-o", "reconstruct.safetensors")
