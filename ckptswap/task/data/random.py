"""`random:SHAPE`: no data at all but random numbers, for scores that need no labels.

`random:3x64x64` gives images of normal numbers; `random:tokens:128` documents of 128 token ids of the model's
vocabulary (`config.json` in its folder, or `--data-args vocab=N`), which are their own labels. `samples` (32) and
`seed` (0).
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch

from ckptswap.errors import DataError
from ckptswap.task.data.request import DataRequest, refuse_unknown, whole

SAMPLES = 32
VALUES_MOST, SAMPLES_MOST, NUMBER_MOST = 1 << 27, 1_000_000, 1 << 31
"""Values of one sample; samples; and how large a vocabulary or a seed may be."""
_TOKENS = r"[1-9]\d{0,8}"
_SHAPE = rf"{_TOKENS}([x×]{_TOKENS}){{0,7}}"


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
    """Draw random numbers of a shape. Raises `DataError` where it is none, or there would be too many."""
    what = f"random:{shape}"
    words, _, size = shape.rpartition(":")
    if words not in ("", "tokens") or not re.fullmatch(_TOKENS if words else _SHAPE, size):
        raise DataError(f"{what} has no shape", remedy="write random:3x64x64, or random:tokens:128")
    refuse_unknown(args, ("samples", "seed", *(("vocab",) if words else ())), what)
    tokens = whole(args, "vocab", known_vocabulary(request), what) if words else None
    if words and tokens is None:
        raise DataError(f"nothing says how many tokens the model knows for {what}", remedy="--data-args vocab=N")
    samples, seed = whole(args, "samples", SAMPLES, what) or SAMPLES, args.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise DataError(f"seed of {what} is {seed!r}", remedy="it must be a whole number, 0 or more")
    sides = tuple(map(int, re.split("[x×]", size)))
    limits = {
        "size of a sample": (prod(sides), VALUES_MOST),
        "samples": (samples, SAMPLES_MOST),
        "vocab": (tokens or 0, NUMBER_MOST),
        "seed": (seed, NUMBER_MOST),
    }
    for name, (value, most) in limits.items():
        if value > most:
            raise DataError(f"{name} of {what} is {value:,}", remedy=f"{most:,} is the most")
    return Random(sides, samples, seed, tokens)


def known_vocabulary(request: DataRequest) -> Any:
    """How many tokens the configuration in the model's folder says; None where it says nothing."""
    config = request.configuration()
    inner = config.get("text_config")
    return (inner if isinstance(inner, Mapping) else config).get("vocab_size")
