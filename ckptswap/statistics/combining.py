"""Several p-values, one answer: all of them, any of them, at least so many. Pure functions of plain numbers.

Sources: Berger, Technometrics 24 (1982) 295 (intersection–union test); Benjamini & Heller, Biometrics 64 (2008)
1215 (partial conjunction); Holm, Scand. J. Stat. 6 (1979) 65. None of them asks how the p-values hang together.
"""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust for their number (step-down): those at or below a level are wrong, any of them, no oftener than that.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for done, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - done) * p_values[at]))
        adjusted[at] = least
    return adjusted


def of_all(p_values: Sequence[float]) -> float:
    """The p-value of 'all of it is so', from those of each part: an intersection–union test, without correction.

    Raises `ValueError` where there is none: what has no part says nothing.

    >>> of_all([0.01, 0.04])
    0.04
    """
    return at_least(len(p_values), p_values)


def at_least(least: int, p_values: Sequence[float]) -> float:
    """The p-value of 'at least so many of these are so' (partial conjunction, Bonferroni's form).

    Raises `ValueError` for a number that is not in 1…n.

    >>> at_least(1, [0.01, 0.04, 0.5]), at_least(2, [0.01, 0.04, 0.5]), at_least(3, [0.01, 0.04, 0.5])
    (0.03, 0.08, 0.5)
    """
    if not 1 <= least <= len(p_values):
        raise ValueError(f"at least {least} of {len(p_values)} p-values: it takes a number from 1 to that of all")
    return min(1.0, (len(p_values) - least + 1) * sorted(p_values)[least - 1])
