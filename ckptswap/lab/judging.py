"""How a claim is judged from its parts; each part upheld, refuted or open. Rules are in `docs/method.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ckptswap.sweep.result import Finding

State = Literal["upheld", "refuted", "open"]
Number = float | int | None


@dataclass(frozen=True)
class Part:
    """One condition of a claim: what came of it, by which numbers, and what was in the way."""

    state: State
    numbers: Mapping[str, Number]
    why: str = ""


def judged(claim: str, text: str, rule: str, parts: Sequence[Part]) -> Finding:
    """The claim with its parts' numbers; its rule tells what was in the way.

    >>> judged("c", "It holds.", "always", [Part("upheld", {"n": 1}), Part("open", {}, "no data")]).verdict
    'undecided'
    """
    reasons = dict.fromkeys(part.why for part in parts if part.why)
    if reasons:
        rule = f"{rule}. Open here: {'; '.join(reasons)}"
    numbers = {name: number for part in parts for name, number in part.numbers.items()}
    return Finding(claim, text, rule, numbers, verdict([part.state for part in parts]))


def verdict(states: Sequence[State]) -> Literal["supported", "not supported", "undecided"]:
    """All parts upheld, any refuted, or neither.

    >>> verdict(["upheld", "refuted", "open"])
    'not supported'
    """
    if "refuted" in states:
        return "not supported"
    return "undecided" if "open" in states else "supported"


def beyond(low: float | None, high: float | None, bound: float) -> tuple[State, str]:
    """Wholly above the bound: upheld; wholly at or below it: refuted.

    >>> beyond(0.1, 0.2, 0.0), beyond(-0.1, 0.2, 0.0)
    (('upheld', ''), ('open', ''))
    """
    if low is None or high is None:
        return "open", "there is no interval (it takes at least 8 groups)"
    if low > bound:
        return "upheld", ""
    return ("refuted", "") if high <= bound else ("open", "")
