"""The scorers of a model by the names that `--engine` has for them."""

from collections.abc import Mapping, Sequence

from ckptswap.checkpoint import Checkpoint
from ckptswap.scoring.close import CloseScorer
from ckptswap.scoring.full import FullScorer
from ckptswap.scoring.replay import MEMORY, ReplayScorer
from ckptswap.scoring.scorer import How
from ckptswap.task.task import Task
from ckptswap.task.tree import Tree

ENGINES: Mapping[How, type[FullScorer]] = {
    "auto": ReplayScorer,
    "replay": ReplayScorer,
    "full": FullScorer,
    "close": CloseScorer,
}


def scorer_of(
    task: Task,
    donor: Checkpoint | Sequence[Checkpoint],
    recipient: Checkpoint,
    how: How = "auto",
    memory: int | None = None,
    calibration: Sequence[Tree] = (),
) -> FullScorer:
    """The scorer that `--engine` names; `memory` bounds what a replay's intermediate values take, in bytes.

    Raises `MismatchError` when the recipient does not fit the model.
    """
    donors = [donor] if isinstance(donor, Checkpoint) else donor
    scorer = ENGINES[how](task, donors, recipient, calibration)
    scorer.how, scorer.memory = how, MEMORY if memory is None else memory
    return scorer
