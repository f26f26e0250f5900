"""How sure we are: pure functions of per-sample scores, used by `evaluate` and `sweep` alike."""

from typing import Literal

Verdict = Literal["reusable", "sensitive", "undecided"]
