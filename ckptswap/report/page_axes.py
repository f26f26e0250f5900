"""Axes as pure data: where a value stands between the ends, and which ticks are written."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ckptswap.report.scale import ColourScale

_TICKS = 5  # that an axis has at least, but for its ends
_NEAR = 0.05  # of an axis: ticks that are nearer to each other would be written over each other


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, straight in what `place` makes of a value."""

    low: float
    high: float
    ticks: tuple[float, ...]
    place: Callable[[float], float] = float

    def share(self, value: float) -> float:
        """Where a value stands, 0 at the low end and 1 at the high one.

        >>> Axis(0, 4, ()).share(1)
        0.25
        """
        start, stop = self.place(self.low), self.place(self.high)
        return (self.place(value) - start) / (stop - start)


def linear(values: Iterable[float]) -> Axis:
    """Over all values and 0, with round ticks.

    >>> linear([0.07, 0.32]).ticks
    (0.0, 0.1, 0.2, 0.3)
    """
    low, high = _ends([0.0, *values])
    return Axis(low, high, _round(low, high))


def logarithmic(values: Iterable[float]) -> Axis:
    """Over values above 0, with ticks at powers of ten, or at 1, 2, 5 times these where they span few.

    >>> logarithmic([0.02, 0.4]).ticks, logarithmic([0.028, 0.0291]).ticks
    ((0.02, 0.05, 0.1, 0.2), (0.028, 0.0285, 0.029))
    """
    known = list(values)
    low, high = _ends(known or [0.1, 1.0], factor=True)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1,) if len(powers) > 4 else (1, 2, 5)
    ticks = (float(f"{each}e{power}") for power in powers for each in times)
    within = tuple(tick for tick in ticks if low <= tick <= high)
    return Axis(low, high, within if len(within) > 1 else _round(low, high), math.log10)


def symmetric_log(values: Iterable[float], tolerance: float) -> Axis:
    """As a heatmap's colours: linear around 0, by the logarithm beyond the tolerance.

    >>> symmetric_log([0.4, -0.02], 0.01).ticks
    (-0.01, 0.0, 0.01, 0.1, 0.4)
    """
    low, high = _ends([0.0, 1.5 * tolerance, *values])  # the tolerance is seen, however small all are
    scale = ColourScale(tolerance, max(-low, high))
    axis = Axis(low, high, (), scale.place)
    ticks: list[float] = []
    for tick in sorted(scale.ticks, key=lambda tick: (abs(tick) != tolerance, abs(tick))):
        if low <= tick <= high and all(abs(axis.share(tick) - axis.share(other)) > _NEAR for other in ticks):
            ticks.append(tick)
    return Axis(low, high, tuple(sorted(ticks)), scale.place)


def _round(low: float, high: float) -> tuple[float, ...]:
    """Round numbers between two, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(times for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{at * step:.12g}") for at in range(first, last + 1))


def _ends(values: Iterable[float], *, factor: bool = False) -> tuple[float, float]:
    """The least and the largest; apart from each other, where all are one."""
    known = list(values)
    low, high = min(known), max(known)
    if low < high:
        return low, high
    return (low / 2, high * 2) if factor else (low, high + 1)
