"""The executor that does the work itself, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckptswap.sweep.loop import score_missing

if TYPE_CHECKING:
    from ckptswap.executors import Meter
    from ckptswap.sweep.run_folder.journal import Journal
    from ckptswap.sweep.runner import Sweep


class Inline:
    """One process, whose model, data and captured graph are those of the proposal."""

    def run(self, proposal: Sweep, journal: Journal, meter: Meter) -> None:
        score_missing(proposal.scorer, proposal.variants, journal, meter)
