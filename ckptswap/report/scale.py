"""The scale of a heatmap's colours as pure data, which pages, notebooks and figures share."""

import math
from dataclasses import dataclass

_LEAST = 10  # tolerances at which the colours end at the earliest, so that drops within one stay pale
_DECADES = 1000  # how far below the largest drop the scale tells drops apart where the tolerance is 0
_GAP = 2.5  # times that a tick is off the tolerance and off the end, to be read beside them


@dataclass(frozen=True)
class ColourScale:
    """Drop → place between −1 (the best) and 1 (the worst): linear around 0, by the logarithm beyond the
    tolerance (symmetric-log), so that small drops do not vanish beside one large one.

    `largest` is the largest finite |drop| that is shown.
    """

    tolerance: float
    largest: float

    @property
    def end(self) -> float:
        """The |drop| of the strongest colour: the largest, or ten tolerances where all are smaller."""
        return max(self.largest, _LEAST * self.tolerance) or 1.0

    @property
    def unit(self) -> float:
        """Where the logarithm begins: the tolerance, or a thousandth of the end where that is 0."""
        return self.tolerance or self.end / _DECADES

    def place(self, drop: float) -> float:
        """Where a drop stands; beyond the end is at the end.

        >>> [round(ColourScale(0.01, 1.0).place(drop), 2) for drop in (-0.01, 0.0, 0.01, 0.1, 1.0, 9.0)]
        [-0.15, 0.0, 0.15, 0.52, 1.0, 1.0]
        """
        share = math.log1p(min(abs(drop), self.end) / self.unit) / math.log1p(self.end / self.unit)
        return math.copysign(share, drop)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Drops to write beside the colours: 0, the tolerance, powers of ten, the end; both ways.

        >>> ColourScale(0.02, 1.4).ticks
        (-1.4, -0.1, -0.02, 0.0, 0.02, 0.1, 1.4)
        """
        powers = range(math.floor(math.log10(self.unit)), math.ceil(math.log10(self.end)))
        between = [10.0**power for power in powers if _GAP * self.unit <= 10.0**power <= self.end / _GAP]
        above = [*filter(None, [self.tolerance]), *between, self.end]
        return (*(-tick for tick in reversed(above)), 0.0, *above)
