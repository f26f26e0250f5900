"""How well a cheap number tells beforehand which cells can be reused: rank correlation, ROC, thresholds.

All within a kind, since kinds differ in scale: a running variance is larger than a weight. Source of the question:
arXiv:2008.03411 (RMSE predicts reusability).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

from ckptswap.lab.judging import mean_of_known, minus
from ckptswap.lab.pairs import Pair
from ckptswap.statistics.ranks import auc, spearman
from ckptswap.sweep.scored_run import DEFAULT_TOLERANCE

PREDICTORS = ("rmse", "rel_l2", "cosine_distance", "first_order")
REUSABLE = DEFAULT_TOLERANCE
LEAST_CELLS = 5
Known = tuple[float, float]  # what is guessed by, and the share


def kind_correlation(pair: Pair, predictor: str) -> float | None:
    """Spearman's correlation with the share within a kind, mean over kinds with at least 5 cells."""
    kinds = [cells for cells in _by_kind([pair], predictor).values() if len(cells) >= LEAST_CELLS]
    return mean_of_known(spearman([x for x, _ in cells], [y for _, y in cells]) for cells in kinds)


def kind_auc(pairs: Sequence[Pair], predictor: str) -> float | None:
    """Area under the ROC curve for 'reusable', within a pair and kind; mean over those with both sorts."""
    return mean_of_known(_auc(cells) for pair in pairs for cells in _by_kind([pair], predictor).values())


def _auc(cells: Sequence[Known]) -> float | None:
    inside = [x for x, share in cells if share < REUSABLE]
    return auc(inside, [x for x, share in cells if share >= REUSABLE])


def threshold_gains(pairs: Sequence[Pair], predictor: str) -> dict[str, float | None]:
    """Network → balanced accuracy − 0.5 of thresholds that were fitted on all other networks, mean over kinds."""
    arms = dict.fromkeys(pair.arm for pair in pairs)
    return {arm: mean_of_known(_gains(pairs, arm, predictor)) for arm in arms}


def _gains(pairs: Sequence[Pair], arm: str, predictor: str) -> Iterator[float | None]:
    fitted = _by_kind([pair for pair in pairs if pair.arm != arm], predictor)
    tried = _by_kind([pair for pair in pairs if pair.arm == arm], predictor)
    for kind, cells in tried.items():
        limit = threshold(fitted.get(kind, []))
        yield minus(None if limit is None else balanced_accuracy(cells, limit), 0.5)


def threshold(cells: Sequence[Known]) -> float | None:
    """The number below which cells count as reusable, with the best balanced accuracy; the lowest of equals.

    >>> threshold([(0.1, 0.0), (0.3, 0.5), (0.2, 0.0)])
    0.25
    """
    values = sorted({x for x, _ in cells})
    middles = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    tried = [(accuracy, limit) for limit in middles if (accuracy := balanced_accuracy(cells, limit)) is not None]
    return max(tried, key=lambda pair: (pair[0], -pair[1]))[1] if tried else None


def balanced_accuracy(cells: Sequence[Known], limit: float) -> float | None:
    """Mean of the shares of reusable cells below the limit, and of others above; None without either.

    >>> balanced_accuracy([(0.1, 0.0), (0.3, 0.5)], 0.2)
    1.0
    """
    inside = [x < limit for x, share in cells if share < REUSABLE]
    outside = [x >= limit for x, share in cells if share >= REUSABLE]
    if not inside or not outside:
        return None
    return (sum(inside) / len(inside) + sum(outside) / len(outside)) / 2


def _by_kind(pairs: Iterable[Pair], predictor: str) -> dict[str, list[Known]]:
    by_kind: dict[str, list[Known]] = {}
    for cell in (cell for pair in pairs for cell in pair.cells):
        guess: float | None = getattr(cell, predictor)
        if guess is not None and math.isfinite(guess):
            by_kind.setdefault(cell.kind, []).append((guess, cell.share))
    return by_kind
