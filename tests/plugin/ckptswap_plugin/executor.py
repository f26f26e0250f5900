"""`--executor plugin`: in this process, the last variant first; scores do not depend on the order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptswap.sweep.loop import Told, score_missing
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.runner import Sweep
from ckptswap.task.spec import TaskSpec


class Backwards:
    """An executor returns when the journal lacks nothing but what failed."""

    def run(self, sweep: Sweep, journal: Journal, progress: Told) -> None:
        score_missing(sweep.scorer, sweep.variants[::-1], journal, progress)


def build(spec: TaskSpec, jobs: int | None, options: Mapping[str, Any]) -> Backwards:
    return Backwards()
