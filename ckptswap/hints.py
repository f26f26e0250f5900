"""Which flags would bring the names of two sides together: remedies are tried here before an error names them."""

import glob
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import CkptswapError
from ckptswap.renaming import Rule, map_all, matched, parse_rules, strip_all
from ckptswap.selection import Selection
from ckptswap.shape_order import can_be_paired
from ckptswap.shell import joined

Shapes = Mapping[str, tuple[int, ...]]
RULES_MOST = 3
LEAST = 2  # tensors that a rule must bring together: one by itself may have its shape by chance
ADAPTER = "peft adapter"
"""The format of an adapter's folder, which has its low-rank factors and not the weights that these change."""
_LOOKED_AT = 2000
_PLACES_MOST = 20
_TRIED = 8


class Prefixes(NamedTuple):
    """What stands before a name on the one side, and on the other."""

    old: str
    new: str


def prefix_rules(names: Shapes, wanted: Shapes) -> list[Prefixes]:
    """Prefixes whose exchange gives names that are wanted, of the same shape; the best first, `RULES_MOST` at
    most.

    >>> theirs = {"net.fc.weight": (2, 3), "net.fc.bias": (2,), "loss.weight": (2,)}
    >>> prefix_rules(theirs, {"fc.weight": (2, 3), "fc.bias": (2,)})
    [Prefixes(old='net.', new='')]
    """
    left = {name: shape for name, shape in names.items() if name not in wanted}
    free = {name: shape for name, shape in wanted.items() if name not in names}
    rules: list[Prefixes] = []
    while len(rules) < RULES_MOST:
        hits = {rule: _hits(rule, left, free) for rule in _likely(left, free)}
        best = max(hits, key=lambda rule: (len(hits[rule]), -len(rule.old)), default=None)
        if best is None or len(hits[best]) < LEAST:
            break
        rules.append(best)
        left = {name: shape for name, shape in left.items() if name not in hits[best]}
        free = {name: shape for name, shape in free.items() if name not in hits[best].values()}
    return rules


def _hits(rule: Prefixes, left: Shapes, free: Shapes) -> dict[str, str]:
    begun = {name: rule.new + name[len(rule.old) :] for name in left if name.startswith(rule.old)}
    return {name: new for name, new in begun.items() if free.get(new) == left[name]}


def _likely(left: Shapes, free: Shapes) -> list[Prefixes]:
    """The exchanges that most names ask for: those that share a dotted end and a shape with a wanted one."""
    places = defaultdict(list)
    for name, shape in free.items():
        for start in _starts(name):
            places[name[start:], shape].append(name[:start])
    votes: Counter[Prefixes] = Counter()
    for name, shape in islice(left.items(), _LOOKED_AT):
        for start in _starts(name):
            news = places.get((name[start:], shape), ())[:_PLACES_MOST]
            votes.update(Prefixes(name[:start], new) for new in news if name[:start] != new)
    return [rule for rule, _ in sorted(votes.items(), key=lambda voted: (-voted[1], len(voted[0].old)))[:_TRIED]]


def _starts(name: str) -> Iterator[int]:
    """Where a dotted part begins, for the last few parts of a long name; the name itself last."""
    at = len(name)
    for _ in range(16):
        if (at := name.rfind(".", 0, at)) < 0:
            break
        yield at + 1
    yield 0


def flags_for(rules: Iterable[Prefixes], *, both: bool = False) -> list[str]:
    """The command line's words for these rules, in an order in which the first that fits is the narrowest.

    `both`: a prefix is taken off both sides, as between two files. What a glob cannot say is left out.

    >>> flags_for([Prefixes("net.", "")]), flags_for([Prefixes("a.", "b.")])
    (['--strip-prefix', 'net.'], ['--map', 'a.*=b.*'])
    """
    sayable = [rule for rule in rules if not {"*", "="} & {*rule.old, *rule.new}]
    if len(sayable) == 1 and (not sayable[0].new or (both and not sayable[0].old)):
        return ["--strip-prefix", sayable[0].old or sayable[0].new]
    sayable.sort(key=lambda rule: -len(rule.old))
    return [word for rule in sayable for word in ("--map", f"{glob.escape(rule.old)}*={rule.new}*")]


def exclusions(extra: Sequence[Entry], fitting: Collection[Entry]) -> list[str]:
    """Patterns for `--exclude` that name all of `extra` and nothing that fits, the shortest there are.

    >>> import numpy as np
    >>> a = Checkpoint.from_arrays({name: np.zeros(1) for name in ("fc.bias", "loss.a", "loss.b", "n")})
    >>> exclusions([a["loss.a"], a["loss.b"], a["n"]], [a["fc.bias"]])
    ['loss.*', 'n']
    """
    taken = {prefix for entry in fitting for prefix in _prefixes(entry.name)}
    free = {entry.name: [prefix for prefix in _prefixes(entry.name) if prefix not in taken] for entry in extra}
    stems = dict.fromkeys(prefixes[0] if prefixes else name for name, prefixes in free.items())
    return [pattern for stem in stems for pattern in _patterns(stem, extra, fitting)]


def _prefixes(name: str) -> Iterator[str]:
    """The dotted prefixes of a name, the shortest first, of the first few parts."""
    yield from accumulate(f"{part}." for part in name.split(".", 16)[:16][:-1])


def _patterns(stem: str, extra: Sequence[Entry], fitting: Collection[Entry]) -> list[str]:
    """One pattern, or exact names where it would mean something else as well: it may be a kind."""
    is_whole = any(entry.name == stem for entry in extra)
    if not set(stem) & {"*", "?", "[", ","} and not stem.startswith("="):
        pattern = stem if is_whole else f"{stem}*"
        means = Selection.parse(only=[pattern])
        if not any(entry in means for entry in fitting):
            return [pattern]
    names = [entry.name for entry in extra]
    return [f"={name}" for name in names if name == stem or (not is_whole and name.startswith(stem))]


def joining_flags(other: Checkpoint, reference: Checkpoint) -> tuple[list[str], int]:
    """Flags under which more names of two files are the same, and how many more; none where that is no clear gain.

    >>> import numpy as np
    >>> names = {side: [f"{side}.x", f"{side}.y"] for side in "ab"}
    >>> a, b = (Checkpoint.from_arrays({name: np.zeros(2) for name in names[side]}) for side in "ab")
    >>> joining_flags(a, b)
    (['--map', 'a.*=b.*'], 2)
    """
    ours, theirs = ({name: entry.shape for name, entry in side.items()} for side in (other, reference))
    flags = flags_for(prefix_rules(ours, theirs), both=True)
    before = _shared_with([], other, reference)
    gained = _shared_with(flags, other, reference) - before if flags else 0
    left = min(len(other), len(reference)) - before
    return (flags, gained) if gained >= LEAST and 2 * gained >= left else ([], 0)


def names_apart(other: Checkpoint, reference: Checkpoint) -> str | None:
    """A sentence where two files share no name, or where flags would bring more of them together; else None."""
    if all(name in reference for name in other):
        return None
    flags, gained = joining_flags(other, reference)
    shared = _shared_with([], other, reference)
    if shared and not flags:
        return None
    there = f"no tensor of {other.path} has the name of one of {reference.path}"
    adapter = next((side.path for side in (other, reference) if side.format.startswith(ADAPTER)), None)
    if adapter and not shared:
        return f"{there}; {adapter} is an adapter alone: peft:{adapter} is its base with the adapter added"
    if shared:
        there = f"{other.path} and {reference.path} share {shared} names"
    if flags:
        return f"{there}; with {joined(flags)} {gained} more are the same"
    return f"{there}; --match shape-order pairs them" if can_be_paired(other, reference) else there


def _shared_with(flags: Sequence[str], other: Checkpoint, reference: Checkpoint) -> int:
    try:
        ours, theirs, _ = matched(other, reference, *_read(flags))
    except CkptswapError:
        return 0
    return sum(name in theirs for name in ours)


def with_flags(checkpoint: Checkpoint, flags: Sequence[str]) -> Checkpoint:
    """A checkpoint as a command sees it with these words. Raises what `map_all` and `strip_all` raise."""
    rules, prefix = _read(flags)
    return map_all(strip_all([checkpoint], prefix), rules)[0]


def _read(flags: Sequence[str]) -> tuple[tuple[Rule, ...], str | None]:
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    return parse_rules(value for flag, value in pairs if flag == "--map"), dict(pairs).get("--strip-prefix")
