"""How a claim is judged from its parts; each part upheld, refuted or open. Rules are in `docs/method.md`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptswap.sweep.result import Finding

State = Literal["upheld", "refuted", "open"]
Number = float | int | None


@dataclass(frozen=True)
class Condition:
    """One condition of a claim: what came of it, by which numbers, and what was in the way."""

    state: State
    numbers: Mapping[str, Number]
    why: str = ""


def judged(claim: str, text: str, rule: str, parts: Sequence[Condition]) -> Finding:
    """Judge a claim by its parts: supported when all are upheld, not supported when any is refuted.

    Its rule tells what was in the way, too.

    >>> judged("c", "It holds.", "always", [Condition("upheld", {"n": 1}), Condition("open", {}, "why")]).verdict
    'undecided'
    """
    reasons = dict.fromkeys(part.why for part in parts if part.why)
    if reasons:
        rule = f"{rule}. Open here: {'; '.join(reasons)}"
    numbers = {name: number for part in parts for name, number in part.numbers.items()}
    states = {part.state for part in parts}
    if "refuted" in states:
        return Finding(claim, text, rule, numbers, "not supported")
    return Finding(claim, text, rule, numbers, "undecided" if "open" in states else "supported")


def beyond(low: float | None, high: float | None, bound: float) -> tuple[State, str]:
    """Place an interval: wholly above the bound is upheld, wholly at or below it refuted.

    >>> beyond(0.1, 0.2, 0.0), beyond(-0.1, 0.2, 0.0)
    (('upheld', ''), ('open', ''))
    """
    if low is None or high is None:
        return "open", "there is no interval (it takes at least 8 groups)"
    if low > bound:
        return "upheld", ""
    return ("refuted", "") if high <= bound else ("open", "")


def half(name: str, counts: Mapping[str, int], why: str) -> Condition:
    """Place a kind's cells: at least half sensitive is upheld, more than half reusable refuted; open with a `why`.

    >>> half("cells", {"cells": 4, "sensitive": 0, "reusable": 3}, "").state
    'refuted'
    """
    is_upheld = 2 * counts["sensitive"] >= counts["cells"]
    state: State = "upheld" if is_upheld else "refuted" if 2 * counts["reusable"] > counts["cells"] else "open"
    return Condition("open" if why else state, _named(name, counts), why)


def all_reusable(name: str, counts: Mapping[str, int], why: str) -> Condition:
    """Place a kind's cells: all reusable is upheld, unless there is a reason against it; one sensitive refutes.

    >>> all_reusable("cells", {"cells": 2, "sensitive": 1, "reusable": 1}, "too few seeds").state
    'refuted'
    """
    if counts["sensitive"]:
        return Condition("refuted", _named(name, counts))
    is_upheld = counts["reusable"] == counts["cells"] and not why
    return Condition("upheld" if is_upheld else "open", _named(name, counts), why)


def _named(name: str, counts: Mapping[str, int]) -> dict[str, Number]:
    return {f"{name}.{part}": count for part, count in counts.items()}


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
