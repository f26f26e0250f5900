"""What it takes to build a sweep's engine again, elsewhere or later: pure data."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from ckptswap.checkpoint import Checkpoint
from ckptswap.sweep.donors import MADE
from ckptswap.sweep.spec import SweepSpec


@dataclass(frozen=True)
class SourceFile:
    """A checkpoint as a worker opens it: its absolute path, or the word by which it is made, and the names it goes
    by (the file's → ours).
    """

    path: str
    renames: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> SourceFile:
        """The file of an open checkpoint."""
        path = checkpoint.path if checkpoint.format == MADE else os.path.abspath(checkpoint.path)
        return cls(path, dict(checkpoint.renames))


@dataclass(frozen=True)
class SweepSource:
    """A sweep's spec, and where it was told it.

    `key` is the hash of the conditions that it must give again. `places` is where Python looks for the user's
    modules, `cwd` what the spec's relative paths start from. `calibrated_on` is the fingerprint of what the spec's
    calibration must give.
    """

    spec: SweepSpec
    key: str
    donors: tuple[SourceFile, ...]
    recipient: SourceFile
    cwd: str
    places: tuple[str, ...]
    calibrated_on: str | None = None


def places() -> tuple[str, ...]:
    """Where this process looks for modules, as absolute paths."""
    return tuple(os.path.abspath(place) for place in sys.path)
