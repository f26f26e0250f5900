"""Patterns that a person types, against names that a stranger may have chosen: matched in bounded time."""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from glob import escape
from itertools import zip_longest
from math import comb
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from ckptswap.errors import UsageError

WAYS_MOST = 1_000_000  # ways through one name that an expression may have to try: some tenths of a second
SECONDS_MOST = 3.0  # processor time that one expression may take over all names
REPEATS_MOST = 20  # a repeat of more, around something that can match in several ways, counts as one without end

Test = Callable[[str], bool]
Match = Callable[[str], re.Match[str] | None]


def glob(pattern: str) -> Test:
    """fnmatch over the whole name; `=NAME` is one literal name.

    >>> glob("*.bias")("c.bias"), glob("=*")("c.bias")
    (True, False)
    """
    if pattern.startswith("="):
        return pattern[1:].__eq__
    match = re.compile(translate(pattern)).match  # which never goes back behind a `*`
    return lambda text: match(text) is not None


def starred(pattern: str) -> Callable[[str], tuple[str, ...] | None]:
    """fnmatch that gives what each `*` matched, the first as much as it can; None where the name does not fit.

    From the right, each piece between two `*` is put as far right as it goes: that leaves most to those before.

    >>> starred("*.conv*.weight")("a.conv1.b.conv2.weight")
    ('a.conv1.b', '2')
    """
    globs = [translate(piece) for piece in pattern.split("*")]
    # How many letters a glob without `*` matches is known: each literal, `?` and `[…]` is one.
    pieces = [(re.compile(text).fullmatch, int(parser.parse(text).getwidth()[0])) for text in globs]

    def fit(name: str) -> tuple[str, ...] | None:
        (begins, first), *between, (ends, last) = pieces if len(pieces) > 1 else (*pieces, *pieces)
        if len(pieces) == 1:
            return () if begins(name) else None
        end = len(name) - last
        if end < first or not begins(name[:first]) or not ends(name[end:]):
            return None
        matched: list[str] = []
        for matches, width in reversed(between):
            at = next((at for at in range(end - width, first - 1, -1) if matches(name[at : at + width])), None)
            if at is None:
                return None
            matched.append(name[at + width : end])
            end = at
        return (name[first:end], *reversed(matched))

    return fit


def starred_path(pattern: str) -> Callable[[str], tuple[str, ...] | None]:
    """Match a whole path, and give what each star stands for: `*` within a name, `**` any number of whole folders,
    the first as many as it can; all else is literal. None where the path does not fit.

    >>> starred_path("**/rgb/f*[1].png")("a/b/rgb/f2[1].png"), starred_path("**/*.png")("c.png")
    (('a/b', '2'), ('', 'c'))
    """
    parts = [
        None if part == "**" else starred("*".join(map(escape, part.split("*")))) for part in pattern.split("/")
    ]

    def fit(path: str) -> tuple[str, ...] | None:
        names = path.split("/")
        ends: list[set[int]] = [{len(names)}]  # from the right: how many names may be used up before each part
        for part in reversed(parts):
            before = ends[-1]
            if part is None:
                ends.append(set(range(max(before, default=-1) + 1)))
            else:
                ends.append({at for at, name in enumerate(names) if at + 1 in before and part(name) is not None})
        if 0 not in ends[-1]:
            return None
        stars: list[str] = []
        begin = 0
        for part, before in zip(parts, reversed(ends[:-1]), strict=True):
            end = max(before) if part is None else begin + 1
            stars += ["/".join(names[begin:end])] if part is None else part(names[begin]) or ()
            begin = end
        return tuple(stars)

    return fit


def begins_path(tests: Sequence[Test | None], segments: Sequence[str]) -> bool:
    """Whether the tests use up some leading segments; None stands for any number of them.

    >>> begins_path([None, "conv".__eq__], ["a", "b", "conv", "weight"])
    True
    """
    places = {0}
    """How many segments may have been used up so far."""
    for test in tests:
        if test is None:
            places = set(range(min(places), len(segments) + 1))
        else:
            places = {at + 1 for at in places if at < len(segments) and test(segments[at])}
        if not places:
            return False
    return True


class Expression:
    """A regular expression that answers in bounded time, or says that it cannot. `what` names it in messages.

    The ways through a name that it could try are counted first. Raises `UsageError` for one that cannot be read,
    or repeats what can itself be repeated in several ways (`(a+)+`, `(a|ab)*`); and where a name is too long.

    >>> Expression("(a+)+b", "--map")
    Traceback (most recent call last):
    ckptswap.errors.UsageError: --map '(a+)+b' could take for ever: repeat nothing that holds a repeat itself
    """

    def __init__(self, text: str, what: str) -> None:
        self.named = f"{what} {text!r}"
        self._spent = 0.0
        try:
            with warnings.catch_warnings(action="ignore"):  # of brackets that may mean more in a Python to come
                self.pattern, tree = re.compile(text), parser.parse(text)
            exact = not self.pattern.flags & re.IGNORECASE
            self._whole, self._part = (_ways(tree, exact, ends=ends) for ends in (True, False))
        except (re.error, RecursionError, OverflowError) as error:
            remedy = str(error) if isinstance(error, re.error) else "it is too large"
            raise UsageError(f"{self.named} is not a regular expression", remedy=remedy) from None
        except _EndlessError:
            remedy = "repeat nothing that holds a repeat itself"
            raise UsageError(f"{self.named} could take for ever", remedy=remedy) from None

    def fullmatch(self, name: str) -> re.Match[str] | None:
        """The whole of a name."""
        return self._timed(self.pattern.fullmatch, name, *self._whole)

    def search(self, name: str) -> re.Match[str] | None:
        """Anywhere in a name."""
        factor, degree = self._part
        return self._timed(self.pattern.search, name, factor * (len(name) + 1), degree)

    def _timed(self, match: Match, name: str, factor: int, degree: int) -> re.Match[str] | None:
        if factor * comb(len(name) + degree, degree) > WAYS_MOST or self._spent > SECONDS_MOST:
            remedy = "write it with fewer repeats of '.'"
            raise UsageError(f"{self.named} would take too long on {name[:40]!r}", remedy=remedy)
        begin = time.thread_time()
        match_of_name = match(name)
        self._spent += time.thread_time() - begin
        return match_of_name


class _EndlessError(Exception):
    """The ways through a name grow faster than any power of its length."""


Ways = tuple[int, int]  # (factor, degree): at most `factor` × C(n + degree, degree) ways through n letters


def _ways(tree: Iterable[Any], exact: bool, *, ends: bool = False) -> Ways:
    """How many ways a sequence of parsed nodes can go through a name.

    A repeat of one letter that what follows does not begin with has one way: it takes all there are. So has one at
    the end, where the whole name is to be matched (`ends`).
    """
    nodes = list(_flat(tree))
    factor, degree = 1, 0
    for (op, value), following in zip_longest(nodes, nodes[1:]):
        if op not in _REPEATS or not _is_one_way(value, following, exact, ends):
            more, higher = _ways_of(op, value, exact)
            factor, degree = factor * more, degree + higher
    return min(factor, 10 * WAYS_MOST), degree


def _flat(tree: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    """The nodes of a sequence, those of its groups among them."""
    for op, value in tree:
        yield from _flat(value[3]) if op is ops.SUBPATTERN else [(op, value)]


_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
_SINGLE = (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN, ops.AT, ops.GROUPREF, ops.FAILURE)


def _ways_of(op: Any, value: Any, exact: bool) -> Ways:
    if op in _SINGLE:
        return 1, 0
    if op in _REPEATS:
        low, high, tree = value
        factor, degree = _ways(tree, exact)
        if (factor, degree) == (1, 0):
            return (1, 1) if high > REPEATS_MOST else (high - low + 1, 0)
        if high > REPEATS_MOST:
            raise _EndlessError
        return factor**high * (high - low + 1), degree * high
    if op is ops.BRANCH:
        factors, degrees = zip(*(_ways(tree, exact) for tree in value[1]), strict=True)
        return max(factors) if exact and _begin_apart(value[1]) else sum(factors), max(degrees)
    if op in (ops.ASSERT, ops.ASSERT_NOT, ops.ATOMIC_GROUP):
        return _ways(value if op is ops.ATOMIC_GROUP else value[1], exact)
    raise _EndlessError


def _begin_apart(trees: Sequence[Iterable[Any]]) -> bool:
    """Whether no two alternatives begin with the same letter."""
    firsts = [next(iter(_flat(tree)), (None, None)) for tree in trees]
    return all(op is ops.LITERAL for op, _ in firsts) and len({code for _, code in firsts}) == len(firsts)


def _is_one_way(repeat: Any, following: Any, exact: bool, ends: bool) -> bool:
    nodes = list(_flat(repeat[2]))
    if len(nodes) != 1 or nodes[0][0] not in _SINGLE:
        return False
    if following is None:
        return ends
    return exact and following[0] is ops.LITERAL and not _takes(nodes[0], following[1])


def _takes(node: Any, code: int) -> bool:
    """Whether a node that matches one letter may match this one."""
    op, value = node
    if op is ops.LITERAL or op is ops.NOT_LITERAL:
        return bool(value == code) == (op is ops.LITERAL)
    if op is not ops.IN or any(part is ops.CATEGORY and what not in _CATEGORIES for part, what in value):
        return True
    inside = any(
        (part is ops.LITERAL and what == code)
        or (part is ops.RANGE and what[0] <= code <= what[1])
        or (part is ops.CATEGORY and re.match(_CATEGORIES[what], chr(code)) is not None)
        for part, what in value
    )
    return inside != (value[0][0] is ops.NEGATE)


_CATEGORIES = {
    ops.CATEGORY_DIGIT: r"\d", ops.CATEGORY_SPACE: r"\s", ops.CATEGORY_WORD: r"\w",
    ops.CATEGORY_NOT_DIGIT: r"\D", ops.CATEGORY_NOT_SPACE: r"\S", ops.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
