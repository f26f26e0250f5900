"""What a sweep will cost: some batches are timed, and stand for all others."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from ckptswap.scoring.scorer import Cost, Way
from ckptswap.task.tree import Form, values_of

TIMED = 8
"""Batches that are timed at most, of different forms, of each way of running them."""

REPEATS, ENOUGH = 5, 0.3
"""How often a batch is timed at most, and for how many seconds: beside busy neighbours one pass tells little."""


def averaged(timed: Callable[[], Sequence[float]]) -> list[float]:
    """The mean times of the parts of some work, over several runs after one to warm up.

    >>> averaged(lambda: [0.25, 0.5])
    [0.25, 0.5]
    """
    timed()
    runs = [timed()]
    while len(runs) < REPEATS and sum(map(sum, runs)) < ENOUGH:
        runs.append(timed())
    return [sum(part) / len(runs) for part in zip(*runs, strict=True)]


def stand_ins(batches: Sequence[Form], way: Callable[[Form], Hashable]) -> Mapping[Form, float]:
    """The forms that are timed for all, and to how many of its batches all those amount that it stands for: those
    that are run the same way and are nearest in size, counted by their values.

    `batches` are the forms of all, (samples, shape, dtype). Of each way the forms that occur most are timed.

    >>> import torch
    >>> small, large = ((1, (side,), torch.float32) for side in (4, 8))
    >>> stand_ins([small, large, large], lambda form: "full") == {small: 1.0, large: 2.0}
    True
    """
    values = {form: max(values_of(form), 1) for form in batches}
    amounts: dict[Form, float] = {}
    for group in dict.fromkeys(map(way, values)):
        own = [form for form in batches if way(form) == group]
        chosen = [form for form, _ in Counter(own).most_common(TIMED)]
        for form in own:
            near = min(chosen, key=lambda other: abs(values[other] - values[form]))
            amounts[near] = amounts.get(near, 0.0) + values[form] / values[near]
    return amounts


def together(parts: Sequence[Cost]) -> Cost:
    """The cost of several parts of the work; shares are weighted by what full passes would take.

    >>> parts = [Cost("replay", 0.5, 2.0, 8, 3.0), Cost("full", 1.0, 4.0, None, 1.0)]
    >>> together(parts)
    Cost(engine='replay', share=0.625, seconds=6.0, peak=8, whole_pass=4.0)
    """
    passes = [part.whole_pass or 0.0 for part in parts]
    share = sum(part.share * whole for part, whole in zip(parts, passes, strict=True)) / (sum(passes) or 1.0)
    peaks = [part.peak for part in parts if part.peak is not None]
    engine: Way = next((part.engine for part in parts if part.peak is not None), "full")
    seconds = sum(part.seconds for part in parts)
    return Cost(engine, share, seconds, max(peaks, default=None), sum(passes))
