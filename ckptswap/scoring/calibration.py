"""What batch norm's statistics are estimated on, as pure data; `recalibration` does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Calibration:
    """On how many batches of which data (spec and arguments, as for a task) statistics are estimated.

    `data` None: the training part of `lab:mni`, where that is what is scored.
    """

    batches: int
    data: str | None = None
    data_args: Mapping[str, Any] = field(default_factory=dict)
