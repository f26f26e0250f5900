"""How many of a data set's samples a task takes, and which: `--limit N` draws them, `--limit first:N` does not.

Pure data; `task.order` draws, `task.data.draw` finds out evenly over what, and `statistics.Drawn` says it.
"""

import re
from dataclasses import dataclass

from ckptswap.errors import UsageError, brief

SEED = 3411
"""Of every draw, so that each variant, each command and each resumption has the same samples."""
_WORDS = re.compile(r"(first:)?([0-9]{1,15})")


@dataclass(frozen=True)
class Limit:
    """So many samples at the most: drawn at random, or the first ones."""

    samples: int
    is_first: bool = False

    @classmethod
    def of(cls, value: int | str | None) -> "Limit | None":
        """What `--limit` says; None where it says nothing. Raises `UsageError` for what is no limit.

        >>> Limit.of(8), Limit.of("8") == Limit.of(8), Limit.of("first:8")
        (Limit(samples=8, is_first=False), True, Limit(samples=8, is_first=True))
        """
        if value is None:
            return None
        match = None if isinstance(value, bool) else _WORDS.fullmatch(str(value))
        if match is None or not int(match[2]):
            remedy = "give a number of samples, 1 or more, to draw them at random; or first:N for the first N"
            raise UsageError(f"limit is {brief(value)}", remedy=remedy)
        return cls(int(match[2]), match[1] is not None)

    @classmethod
    def parsed(cls, text: int | str) -> int | str:
        """What `--limit` says, as a task's spec has it. Raises as `of` does."""
        limit = cls.of(text)
        assert limit is not None  # it is for no text only
        return limit.value

    @property
    def value(self) -> int | str:
        """As a task's spec has it."""
        return f"first:{self.samples}" if self.is_first else self.samples

    @property
    def words(self) -> str:
        """As a run's key has it, where what is drawn depends on the seed.

        >>> Limit(8).words, Limit(8, is_first=True).words
        ('8 at random, seed 3411', 'first:8')
        """
        return str(self.value) if self.is_first else f"{self.samples} at random, seed {SEED}"
