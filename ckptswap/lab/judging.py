"""How a claim is judged from its parts, by one-sided p-values. Rules are in `docs/method.md`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckptswap.statistics import Tails
from ckptswap.statistics.combining import at_least, holm, of_all
from ckptswap.sweep.result import Finding

LEVEL = 0.05
"""How often a claim may be supported that is not true, and refuted that is."""
Number = float | int | None


@dataclass(frozen=True)
class ClaimPart:
    """One part of a claim, its name and numbers, and what was in the way.

    `p_for` is the p-value of 'it is so', None where nothing can tell; `against` are those of the rows that may
    refute it.
    """

    name: str
    numbers: Mapping[str, Number]
    p_for: float | None = None
    against: tuple[float, ...] = ()
    why: str = ""

    @property
    def p_values(self) -> dict[str, Number]:
        """What is told of it: that of all, and the smallest against it."""
        return {f"{self.name}.p_for": self.p_for, f"{self.name}.p_against": min(self.against, default=None)}


def judged(claim: str, text: str, rule: str, parts: Sequence[ClaimPart]) -> Finding:
    """Judge a claim: supported when every part is shown, not supported when a row refutes it by Holm's procedure.

    Its rule tells what was in the way, too.

    >>> parts = [ClaimPart("a", {}, 0.01, (0.9,)), ClaimPart("b", {}, why="no rows")]
    >>> finding = judged("c", "It holds.", "always", parts)
    >>> finding.verdict, finding.rule
    ('undecided', 'always. Open here: no rows')
    """
    reasons = dict.fromkeys(part.why for part in parts if part.why)
    if reasons:
        rule = f"{rule}. Open here: {'; '.join(reasons)}"
    shown = [part.p_for for part in parts if part.p_for is not None]
    p_for = of_all(shown) if len(shown) == len(parts) else None
    p_against = min(holm([p for part in parts for p in part.against]), default=None)
    numbers = {name: number for part in parts for name, number in (*part.numbers.items(), *part.p_values.items())}
    numbers |= {"p_for": p_for, "p_against": p_against}
    if p_against is not None and p_against <= LEVEL:
        return Finding(claim, text, rule, numbers, "not supported")
    is_shown = p_for is not None and p_for <= LEVEL
    return Finding(claim, text, rule, numbers, "supported" if is_shown else "undecided")


def all_below(name: str, cells: Sequence[Tails], why: str = "") -> ClaimPart:
    """A part about cells: every one lies below a bound; `why` not all can be told, where something is in the way.

    A cell without p-values leaves it open; any other may still refute it.

    >>> all_below("cells", [Tails(0.01, 0.99), Tails(0.04, 0.96)]).p_for
    0.04
    """
    known = [cell.below for cell in cells if cell.below is not None]
    why = why or _without(len(cells) - len(known), name)
    against = tuple(cell.above for cell in cells if cell.above is not None)
    return ClaimPart(
        f"{name}.cells", counts(name, cells), of_all(known) if known and not why else None, against, why
    )


def half_above(name: str, cells: Sequence[Tails], why: str = "") -> ClaimPart:
    """A part about cells: at least half of them lie above a bound, refuted where more than half lie below it.

    A cell without p-values shows neither.

    >>> part = half_above("cells", [Tails(0.99, 0.01), Tails(0.98, 0.02), Tails(0.01, 0.99)])
    >>> part.p_for, part.against
    (0.04, (1.0,))
    """
    missing = sum(cell == Tails() for cell in cells)
    if why or missing == len(cells):
        return ClaimPart(f"{name}.cells", counts(name, cells), why=why or _without(missing, name))
    above = at_least((len(cells) + 1) // 2, [_or_one(cell.above) for cell in cells])
    below = at_least(len(cells) // 2 + 1, [_or_one(cell.below) for cell in cells])
    return ClaimPart(f"{name}.cells", counts(name, cells), above, (below,))


def counts(name: str, cells: Sequence[Tails]) -> dict[str, Number]:
    """How many cells there are, and how many are shown to lie below and above, each by itself."""
    sides = {"reusable": [cell.below for cell in cells], "sensitive": [cell.above for cell in cells]}
    shown = {side: sum(p is not None and p <= LEVEL for p in p_values) for side, p_values in sides.items()}
    return {f"{name}.{part}": count for part, count in {"cells": len(cells), **shown}.items()}


def _or_one(p_value: float | None) -> float:
    return 1.0 if p_value is None else p_value


def _without(missing: int, name: str) -> str:
    return f"{name}: {missing} {'cell has' if missing == 1 else 'cells have'} no p-value" if missing else ""


def mean(values: Iterable[float | None]) -> float | None:
    """Average; None where there is nothing, or a value is missing.

    >>> mean([1.0, 2.0]), mean([1.0, None]), mean([])
    (1.5, None, None)
    """
    numbers = list(values)
    known = [value for value in numbers if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(numbers) else None


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Average what is not missing; None where nothing is known."""
    return mean(value for value in values if value is not None)


def minus(a: float | None, b: float | None) -> float | None:
    """Subtract; None where either is missing."""
    return None if a is None or b is None else a - b
