"""`random:SHAPE`: no data at all but random numbers, for scores that need no labels.

`random:3x64x64` gives images of normal numbers; `random:tokens:128` documents of 128 token ids of the model's
vocabulary (`config.json` in its folder, or `--data-args vocab=N`), which are their own labels. `samples` (32) and
`seed` (0).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from ckptswap.errors import DataError
from ckptswap.task.data.request import DataRequest, refuse_unknown, whole

SAMPLES = 32


class Random:
    """Items are a tensor, or a dict of token ids with labels; drawn again from a seed of their own each time."""

    def __init__(self, shape: tuple[int, ...], samples: int, seed: int, vocabulary: int | None) -> None:
        self._shape, self._samples, self._seed, self._vocabulary = shape, samples, seed, vocabulary
        self.notes = ("these are random numbers: scores say how far outputs move, and nothing of a task",)

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, at: int) -> Any:
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + at)
        if self._vocabulary is None:
            return torch.randn(self._shape, generator=draw)
        ids = torch.randint(0, self._vocabulary, self._shape, generator=draw)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def built(shape: str, args: Mapping[str, Any], request: DataRequest) -> Random:
    """Draw random numbers of a shape. Raises `DataError` where it is none."""
    what = f"random:{shape}"
    refuse_unknown(args, ("samples", "seed", "vocab"), what)
    words, _, size = shape.rpartition(":")
    sides = re.fullmatch(r"[1-9]\d{0,8}([x×][1-9]\d{0,8})*", size)
    if sides is None or words not in ("", "tokens"):
        raise DataError(f"{what} has no shape", remedy="write random:3x64x64, or random:tokens:128")
    vocabulary = None
    if words:
        config = request.configuration()
        config = config.get("text_config", config)
        vocabulary = whole(args, "vocab", config.get("vocab_size"), what)
        if vocabulary is None:
            raise DataError(
                f"nothing says how many tokens the model knows for {what}", remedy="--data-args vocab=N"
            )
    samples, seed = whole(args, "samples", SAMPLES, what), args.get("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise DataError(f"seed of {what} is {seed!r}", remedy="it must be a whole number, 0 or more")
    return Random(tuple(map(int, re.split("[x×]", size))), samples or SAMPLES, seed, vocabulary)
