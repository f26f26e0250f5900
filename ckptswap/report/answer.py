"""What a sweep says, in three lines."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from textwrap import wrap

from ckptswap.errors import listing
from ckptswap.report.rows import filtered_words, is_partial, row_names, sections
from ckptswap.report.text import (
    keeps_numbers,
    number,
    plural,
    safe,
    shorten,
    shorten_all,
    shorten_between_numbers,
)
from ckptswap.statistics import LEAST_GROUPS, REUSABLE
from ckptswap.sweep.result import Mode, Row, Status, SweepResult

LINES = 3
_METRIC = 32  # cells of its name, which may be a path
_ROOMS = ((3, 48, 0), (3, 40, 1), (2, 32, 1), (1, 32, 1), (1, 24, 2), (1, 16, 3))
"""How many rows are named, in how many cells, and how brief the rest is: the first that three lines have room for.
1 leaves out what the table counts too, 2 what would tell more, 3 what may break unseen."""
_WHOLE = 10_000  # cells, in which any name is whole
_FREE: dict[Status, str] = {
    "identical": "equal in both",
    "no-effect": "never read",
    "mismatch": "not fitting",
    "failed": "failed",
}


def answer(result: SweepResult, waiting: int = 0, *, whole: bool = False) -> tuple[str, ...]:
    """What the sweep says, in at most three lines: what breaks the network, what can be reused, how much is
    undecided and what would tell; `waiting` rows are not scored yet. Before them, where it is so, that the
    baseline is no better than a prediction that looks at nothing. Names that are long are cut, unless they are
    to be `whole`; their numbers stay.

    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", score=0.4, drop=0.5, verdict="sensitive")
    >>> for sentence in answer(SweepResult("dice", "max", 0.01, 0.9, None, 72, rows=(row,))):
    ...     print(sentence)
    c conv.bias breaks it: dice −0.5 of 0.9.
    Nothing is shown to be reusable within 0.01.
    """
    measured = [row for row in result.rows if row.status == "measured" and row.drop is not None]
    statuses = Counter(row.status for row in result.rows)
    rest = unscored(statuses, waiting)
    odd = _worse_than_nothing(result)
    if not measured:
        none = "No row is left" if result.filtered else "Nothing is scored yet"
        some = rest if result.complete else f"{none}: {rest}"
        return (*odd, f"{some if rest else none}.")
    for most, width, brief in _ROOMS:
        names = _Names(result, most, _WHOLE if whole else width, brief)
        parts = [part(result, measured, names) for part in (_first, _reusable, _undecided)]
        rest = unscored({} if names.brief else statuses, waiting)
        sentences = [f"{part}." for part in (*parts, rest) if part]
        if len(wrap(" ".join(sentences), 80)) <= LINES:
            break
    return (*odd, *sentences)


def told(result: SweepResult, waiting: int = 0, *, whole: bool = False) -> str:
    """The same in one paragraph, and first of how many rows these are a part."""
    return " ".join((*(f"{words}." for words in filtered_words(result)), *answer(result, waiting, whole=whole)))


class _Names:
    """What rows are called: at most so many, each in so many cells; and how `brief` the rest is."""

    def __init__(self, result: SweepResult, most: int, width: int, brief: int) -> None:
        self.most, self.width, self.brief = most, width, brief
        several = len(result.donors) > 1
        names = zip(result.rows, row_names(result.rows), strict=True)
        self.whole = {
            id(row): f"{name} from {safe(result.donors[row.donor].path)}" if several else name
            for row, name in names
        }

    def of(self, row: Row) -> str:
        return shorten_between_numbers(self.whole[id(row)], self.width)

    def listed(self, rows: Sequence[Row]) -> str:
        """The first ones, which do not look alike, and how many more there are."""
        names = [self.whole[id(row)] for row in rows]
        first = names[: self.most]
        cuts = shorten_all(first, self.width), [shorten_between_numbers(name, self.width) for name in first]
        best = max(cuts, key=lambda cut: (len(set(cut)), sum(map(keeps_numbers, first, cut))))
        return listing([*best, *names[self.most :]], self.most)


def _reusable(result: SweepResult, rows: Sequence[Row], names: _Names) -> str:
    """Which rows can be reused, whole kinds first and then the largest, and what to mind of that."""
    able = [row for _, part in sections(rows) for row in sorted(part, key=_size) if row.verdict in REUSABLE]
    within = f"within {number(result.tolerance)}{_on_fewer(result, rows) if names.brief < 3 else ''}"
    if not able:
        return "" if result.filtered else f"Nothing is shown to be reusable {within}"
    unused = sum(row.verdict == "unused" for row in able)
    remarks = ["each alone" if len(able) > 1 else "", within]
    remarks += [f"{unused:,} unused" if unused else "", _uncontrolled(able)] if names.brief < 1 else []
    remarks += [_unseen(rows)] if names.brief < 3 else []
    which = f"All {len(rows):,}" if 1 < len(rows) == len(able) else names.listed(able)
    return f"{which} can be reused ({', '.join(filter(None, remarks))})"


def _on_fewer(result: SweepResult, rows: Sequence[Row]) -> str:
    """On how many samples these rows' verdicts rest, where that is not all."""
    known = [row.samples for row in rows if row.samples is not None]
    least, most = min(known, default=result.samples), max(known, default=result.samples)
    if least == result.samples:
        return ""
    return f", on {least} {f'to {most} ' if most > least else ''}of {result.samples} samples"


def _size(row: Row) -> int:
    return -row.numel


def _uncontrolled(able: Sequence[Row]) -> str:
    """Of how many rows zeros were not tried, which the network might bear as well."""
    left = sum(row.zero_drop is None for row in able)
    return f"{'' if left == len(able) else f'{left:,} with '}no zero control" if left else ""


def _undecided(result: SweepResult, rows: Sequence[Row], names: _Names) -> str:
    """How many are undecided, and what would tell."""
    amount = sum(row.verdict == "undecided" for row in rows)
    if not amount or names.brief > 1:
        return f"{amount:,} undecided" if amount else ""
    if result.groups is not None and result.groups < LEAST_GROUPS:
        few = f"{plural(result.groups, 'group')} of samples {'tells' if result.groups == 1 else 'tell'} nothing"
        return f"{amount:,} undecided: {few}, {LEAST_GROUPS} or more would"
    is_pooled = result.mode != "only" or any(row.place is None for row in rows)
    ways = "more groups" if is_pooled or not any(row.kind for row in rows) else "more groups or --by kind"
    return f"{amount:,} undecided: {ways} would tell"


def unscored(statuses: Mapping[Status, int], waiting: int = 0) -> str:
    """How many rows are not scored, by why; `waiting` are not scored yet.

    >>> unscored({"measured": 3, "mismatch": 16, "identical": 1})
    '1 is equal in both, 16 are not fitting'
    """
    amounts = [(statuses.get(status, 0), words) for status, words in _FREE.items()] + [(waiting, "not scored yet")]
    return ", ".join(f"{_are(amount)} {words}" for amount, words in amounts if amount)


def _unseen(rows: Sequence[Row]) -> str:
    """What a mean that is within the tolerance does not exclude."""
    share = max((row.unseen for row in rows if row.unseen is not None), default=None)
    return f"up to {share:.1%} of groups may break unseen" if share is not None else ""


def worse_than_nothing(metric: str, score: float, trivial: float) -> str:
    """Say that a score is worse than that of a prediction that looks at nothing, and what to do.

    >>> worse_than_nothing("dice", 0.1, 0.3)[:67]
    'dice is 0.1, worse than the 0.3 of a prediction that looks at nothi'
    """
    return (
        f"{metric} is {number(score)}, worse than the {number(trivial)} of a prediction that looks at nothing: "
        "check normalization, labels and --output before you trust a table."
    )


def _worse_than_nothing(result: SweepResult) -> tuple[str, ...]:
    if result.trivial is None:
        return ()
    if result.trivial == result.baseline and not result.tolerance:
        same = f"{result.metric} is {number(result.baseline)}, as it is for a prediction that looks at nothing"
        more = "take samples of more than one class, or more of them, or say which drop matters: --tolerance."
        return (f"{same}: {more}",)
    lost = result.trivial - result.baseline if result.direction == "max" else result.baseline - result.trivial
    return (worse_than_nothing(result.metric, result.baseline, result.trivial),) if lost > 0 else ()


def _first(result: SweepResult, rows: Sequence[Row], names: _Names) -> str:
    """What breaks the network, or costs most, on the samples that it was scored on; or that nothing costs."""
    worst = max(rows, key=lambda row: row.drop or 0.0)
    name = names.of(worst)
    whole = f"all of {name}" if result.mode == "only" and worst.kind is None else name
    what = taken(result.mode, whole)
    some = f" on {worst.samples} of {result.samples} samples" if is_partial(result, worst) else ""
    cost = f"{_cost(result, worst)}{some}"
    if (worst.drop or 0) <= 0:
        return f"Nothing costs: the worst is {what}, {cost}"
    if worst.verdict in REUSABLE:
        return f"Nothing breaks it: the worst is {what}, {cost}"
    what = what if what.startswith(name) else what[0].upper() + what[1:]
    if worst.verdict != "sensitive":
        return f"{what} costs most: {cost}"
    more = sum(row.verdict == "sensitive" for row in rows) - 1
    return f"{what} breaks it: {cost}{f'; so {_do(more)} {more:,} more' if more else ''}"


def _do(amount: int) -> str:
    return "does" if amount == 1 else "do"


def _cost(result: SweepResult, row: Row) -> str:
    """How the metric changes, and from what.

    >>> row = Row("c", "conv.bias", ("c.bias",), 4, "measured", score=175.9, drop=164.0)
    >>> _cost(SweepResult("mse", "min", 0.01, 11.9, None, 72, rows=()), row)
    'mse +164 on 11.9'
    """
    drop = row.drop or 0.0
    moved = -drop if result.direction == "max" else drop
    signed = number(moved, signed=True).replace("-", "−", 1) if moved else "±0"
    metric, baseline = shorten(safe(result.metric), _METRIC), number(_baseline_of(result, row))
    return f"{metric} {signed} {'on' if moved > 0 else 'of'} {baseline}"


def _baseline_of(result: SweepResult, row: Row) -> float:
    """The baseline on the row's own samples, with which its drop is paired."""
    if row.score is None or row.drop is None:
        return result.baseline
    drop = row.drop if result.direction == "max" else -row.drop
    if math.isclose(row.score, -drop, rel_tol=1e-9):  # their sum would be what rounding leaves of 0
        return 0.0
    return row.score + drop if math.isfinite(row.score + drop) else result.baseline


def change(result: SweepResult, drop: float) -> str:
    """A drop in words, for a metric of which more is better, and for one of which less is.

    >>> change(SweepResult("mse", "min", 0.01, 0.9, None, 72, rows=()), 164.0)
    '+164 worse'
    """
    shown = number(drop, signed=True)
    return f"a drop of {shown}" if result.direction == "max" else f"{shown} worse"


def taken(mode: Mode, name: str) -> str:
    """What the variant of a cell takes from the donor.

    >>> taken("all-but", "conv1 conv.bias"), taken("prefix", "conv1")
    ('all but conv1 conv.bias', 'all layers up to conv1')
    """
    return {
        "only": name,
        "all-but": f"all but {name}",
        "prefix": f"all layers up to {name}",
        "suffix": f"all layers from {name} on",
    }.get(mode, name)


def _are(amount: int) -> str:
    return f"{amount:,} {'is' if amount == 1 else 'are'}"
