"""The executor that does the work itself, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptswap.sweep.executors import Meter
    from ckptswap.sweep.journal import Journal
    from ckptswap.sweep.run import Proposal


class Inline:
    """One process, whose model, data and captured graph are those of the proposal."""

    def run(self, proposal: Proposal, journal: Journal, meter: Meter) -> None:
        from ckptswap.sweep.walk import walk

        walk(proposal.task, proposal.engine, proposal.variants, journal, meter, lambda _, every: every)
