"""What is scored: the recipient with some of its tensors replaced; pure data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BASELINE = "baseline"
"""The recipient's own name in a journal."""
NEUTRAL = -1
"""The donor of a zero control: the recipient itself, as `ckptswap.neutral` makes it."""


class Variant(NamedTuple):
    """The recipient with these tensors taken from one of the donors (or `NEUTRAL`), under the name that the
    journal gives it.

    `alpha` 1 takes the donor's bits, others go part of the way (see `checkpoint.overlay`). `recalibrated`: batch
    norm's statistics are then estimated anew. `exact`: no score that is only close counts.
    """

    id: str
    names: tuple[str, ...]
    donor: int = 0
    alpha: float = 1.0
    recalibrated: bool = False
    exact: bool = False


RECIPIENT = Variant(BASELINE, ())
"""The variant that takes nothing."""


@dataclass(frozen=True)
class Calibration:
    """On how many batches of which data (spec and arguments, as for a task) batch norm's statistics are estimated.

    `data` None: the training part of `lab:mni`, where that is what is scored.
    """

    batches: int
    data: str | None = None
    data_args: Mapping[str, Any] = field(default_factory=dict)
