"""Every error a user can meet: what happened, where, and what to do about it. Whatever else escapes is a fault of
ours, and exits with 70.
"""

import difflib
import heapq
from collections.abc import Iterable, Mapping, Sequence, Sized

EXIT_DIFFERENT = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141
EXIT_TERMINATED = 143

NEAR_MOST = 200
"""Letters of a name beyond which nothing is near: comparing takes their square, and a file may be hostile."""
BRIEF = 60  # letters of a value in a message
HEAD_MOST, TAIL_MOST = 1600, 400
"""Letters of a message, or of a remedy, that are kept of its beginning and its end: it may quote a stranger's
names."""
ALIGNED_MOST = 20  # names that are compared letter by letter, of all that are there


class CkptswapError(Exception):
    """The root of the tree. `message` says what and where, `remedy` what to do.

    >>> str(CkptswapError("a.pt is empty", remedy="save it again"))
    'a.pt is empty: save it again'
    """

    exit_code = EXIT_USAGE

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.remedy = _readable(message), _readable(remedy)

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence, which says where, and no frames of ours."""
        return [f"{type(self).__name__}: {self}"]


def _readable(text: str) -> str:
    """What a person can read of a text: a file may hold a name of a million letters."""
    if len(text) <= HEAD_MOST + TAIL_MOST:
        return text
    return f"{text[:HEAD_MOST]} … {text[-TAIL_MOST:]}"


class UsageError(CkptswapError):
    """A flag or an argument that makes no sense, alone or with the others."""


class SelectionError(UsageError):
    """A selection that cannot be parsed, or that matches nothing."""


class FileError(CkptswapError):
    """A file or folder that is missing, unreadable, or in the way."""


class FormatError(FileError):
    """A checkpoint that is damaged, hostile, or of no format we know."""


class MismatchError(CkptswapError):
    """Two checkpoints, or a checkpoint and a model, that do not fit each other."""


class TaskError(CkptswapError):
    """A model, data or metric that cannot be built, or that does not fit the others."""


class ModelError(TaskError):
    """A model spec that cannot be built or run."""


class DataError(TaskError):
    """Data that cannot be found, read or paired."""


class MetricError(TaskError):
    """A metric that does not exist or does not fit the model's output."""


class RunError(CkptswapError):
    """A run folder that is missing, damaged, taken, or made under other conditions."""


class Stopped(CkptswapError):
    """The work was asked to end, and did after the block in hand; `exit_code` tells by which signal."""

    def __init__(self, message: str, *, remedy: str = "", exit_code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code


class DependencyError(CkptswapError):
    """An extra that is not installed."""


def near(name: str, known: Iterable[str], count: int = 3) -> str:
    """'did you mean …' for a misspelt name, or '' when nothing is near.

    >>> near("conv.wieght", ["conv.weight", "bn.bias"])
    "did you mean 'conv.weight'?"
    """
    if len(name) > NEAR_MOST:
        return ""
    pairs = {name[at : at + 2] for at in range(max(1, len(name) - 1))}

    def likeness(other: str) -> tuple[int, int]:
        """How many pairs of letters are shared: looking for these is quick, aligning is not."""
        return sum(pair in other for pair in pairs), -abs(len(other) - len(name))

    likely = heapq.nlargest(ALIGNED_MOST, (other for other in known if len(other) <= 2 * NEAR_MOST), key=likeness)
    meant = difflib.get_close_matches(name, likely, n=count)
    return f"did you mean {' or '.join(map(repr, meant))}?" if meant else ""


def brief(value: object) -> str:
    """A value in a few words, for messages: what it is, and of data the size only, never the numbers.

    >>> brief("top"), brief([1, 2]), brief({"a": 1}.items())
    ("'top'", 'a list of 2', 'a dict_items of 1')
    """
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"
    kind = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return f"a {kind} of the shape {list(shape)}"
    if callable(value):
        return f"the {kind} {getattr(value, '__name__', '')}".rstrip()
    return f"a {kind} of {len(value)}" if isinstance(value, Sized) else f"a {kind}"


def non_finite_words(counts: Mapping[str, tuple[int, int]]) -> str | None:
    """NaN and infinities of each side in words; one word for both where their counts are equal.

    >>> non_finite_words({"a": (1, 0), "b": (0, 2_000)})
    'a 1 NaN; b 2,000 Inf'
    """
    words = {
        side: ", ".join(f"{count:,} {word}" for count, word in zip(pair, ("NaN", "Inf"), strict=True) if count)
        for side, pair in counts.items()
    }
    if len(words) == 2 and len(set(words.values())) == 1:
        words = {"both": words.popitem()[1]}
    return "; ".join(f"{side} {text}" for side, text in words.items() if text) or None


def listing(names: Sequence[str], most: int = 10) -> str:
    """At most `most` names, then how many more there are.

    >>> listing(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
