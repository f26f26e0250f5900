"""Which entries: layers × kinds × name patterns, the same flags on every command.

Values of one flag are alternatives; different flags intersect. `=NAME` takes one literal name, never split at
commas nor read as a pattern. Case matters.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, chain

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import SelectionError, listing, near
from ckptswap.naming import ALIASES, FORMER, coarse, natural_key
from ckptswap.patterns import Expression, begins_path, glob
from ckptswap.roles import Siblings, role_of
from ckptswap.shell import joined, quoted

Words = Sequence[str]
Test = Callable[[Entry], bool]
BY_NAME = ("only", "exclude")
"""Flags whose `=NAME` means one tensor or kind."""
WAYS = ("layer", "kind", "tensor", "all", "block", "depth:N", "re:PATTERN")
"""What a selection can be split by."""
PLACES = ("layer", "block", "depth", "re")
"""Those by which a part has one place; more than one would name it twice."""
REST = "(rest)"
"""The part of what an expression does not match."""
HINTS_MOST = 10
"""Values for which near names are looked for: among thousands of names that takes long."""
DEPTH_MOST = 64
"""Segments of a layer among which near ones are looked for."""


@dataclass(frozen=True)
class Part:
    """One part of a split. `layer` or `kind` is None where the split does not go by it.

    Of a whole block `layer` is None; of what is in no block it is its layer. Split by depth or an expression, it
    is the path up to that depth, or what the expression's groups matched.
    """

    layer: str | None
    kind: str | None
    names: tuple[str, ...]
    block: str | None = None


@dataclass(frozen=True)
class Unmatched:
    """A value of a flag that matches nothing, most likely a misspelt one: where was looked, and what is near."""

    flag: str
    value: str
    where: str
    hint: str

    def __str__(self) -> str:
        return "; ".join(filter(None, [f"--{self.flag} {self.value} matches nothing in {self.where}", self.hint]))


@dataclass(frozen=True)
class Selection:
    """Which entries of a checkpoint. `Selection()` takes them all.

    >>> Selection.parse(only=["bn.running_*"], layers=["encoder.3"]).flags()
    ['--only', 'bn.running_*', '--layers', 'encoder.3']
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()

    @classmethod
    def parse(cls, *, only: Words = (), exclude: Words = (), layers: Words = (), kind: Words = ()) -> "Selection":
        """From the flags' values as typed; raises `SelectionError` for an empty or impossible pattern."""
        selection = cls(*(tuple(_split_values(values)) for values in (only, exclude, layers, kind)))
        selection._tests  # noqa: B018  compiles every pattern, so that a bad one is named at once
        return selection

    @classmethod
    def exactly(cls, names: Iterable[str]) -> "Selection":
        """The tensors of these names and no other."""
        return cls(only=tuple(f"={name}" for name in names))

    def __contains__(self, entry: object) -> bool:
        return isinstance(entry, Entry) and all(test(entry) == wanted for wanted, test in self._conditions)

    def __bool__(self) -> bool:
        """Whether it leaves anything out."""
        return any(getattr(self, flag.name) for flag in fields(self))

    def pick(self, checkpoint: Checkpoint) -> list[Entry]:
        """The selected entries in natural order, and what is tied to them.

        Raises `SelectionError` with near names if there is none.
        """
        picked = [entry.name for entry in checkpoint.values() if entry in self]
        if not picked:
            raise SelectionError(self._why_nothing(checkpoint))
        return [checkpoint[name] for name in sorted(checkpoint.ties.closed(picked), key=natural_key)]

    def unread(self, checkpoint: Checkpoint) -> list[Entry]:
        """What is selected and holds values that are not read, in natural order.

        >>> from ckptswap.checkpoint import Unread
        >>> a = Checkpoint([], path="a.pt", format="torch", unread={"adjacency": Unread("a sparse tensor")})
        >>> [entry.name for entry in Selection().unread(a)]
        ['adjacency']
        """
        odd = checkpoint.unread_entries
        return [odd[name] for name in sorted(odd, key=natural_key) if odd[name] in self]

    def unmatched(self, *checkpoints: Checkpoint) -> list[Unmatched]:
        """The values that match nothing in any of these, be it beside others that do.

        >>> import numpy as np
        >>> a = Checkpoint.from_arrays({"c.bias": np.zeros(2), "c.weight": np.zeros((2, 1, 1))})
        >>> print(*Selection.parse(kind=["conv.bias,conv.wieght"]).unmatched(a))
        --kind conv.wieght matches nothing in <memory>; did you mean 'conv.weight' or 'conv.bias'?
        """
        entries = [entry for checkpoint in checkpoints
                   for entry in (*checkpoint.values(), *checkpoint.unread_entries.values())]  # fmt: skip
        return self.missed(entries, " or ".join(dict.fromkeys(checkpoint.path for checkpoint in checkpoints)))

    def missed(self, entries: Sequence[Entry], where: str) -> list[Unmatched]:
        """The values that match none of these entries; `where` is what they are of."""
        known = {entry.name for entry in entries} | _kinds(entries)
        missed: list[Unmatched] = []
        for flag, _, tests in self._tests:
            for value, test in zip(getattr(self, flag), tests, strict=True):
                if not (value[1:] in known if _is_literal(flag, value) else any(map(test, entries))):
                    hint = near(value.lstrip("="), _known(flag, entries)) if len(missed) < HINTS_MOST else ""
                    missed.append(Unmatched(flag, value, where, hint))
        return missed

    def split(self, checkpoint: Checkpoint, by: Sequence[str]) -> list[Part]:
        """The selection in disjoint parts: by layer, block or kind, or one of these and kind, tensor by tensor,
        all in one, by the first segments of layers (`depth:N`), or by what an expression's groups match in names
        (`re:PATTERN`).

        Names of one tensor, and of tensors that share bytes, are in one part: that of the first of them, in the
        order of the model where it is known, else of the file.
        """
        place_of, single = _place_of(by), "tensor" in by
        parts: dict[tuple[str | None, str | None, str | None, str | None], list[str]] = defaultdict(list)
        for entry in self.pick(checkpoint):
            first = checkpoint[checkpoint.ties.group(entry.name)[0]]
            layer, block = (first.layer, first.block) if single else place_of(first)
            kind = first.kind if single or "kind" in by else None
            parts[layer, block, kind, first.name if single else None].append(entry.name)
        if any(way.startswith("re:") for way in by) and {layer for layer, *_ in parts} == {REST}:
            remedy = r"write for example 're:layers\.(\d+)', which makes a part of each number"
            raise SelectionError(f"--by {','.join(by)} matches no name in {checkpoint.path}", remedy=remedy)
        return [Part(layer, kind, tuple(names), block) for (layer, block, kind, _), names in parts.items()]

    def flags(self) -> list[str]:
        """The flags that parse to this selection, one word each."""
        pairs = [(f"--{flag.name}", value) for flag in fields(self) for value in getattr(self, flag.name)]
        return list(chain.from_iterable(pairs))

    def __str__(self) -> str:
        """The flags, quoted for a shell."""
        return joined(self.flags())

    @cached_property
    def _conditions(self) -> list[tuple[bool, Test]]:
        """A test a flag, and whether a match is wanted. Literal names are looked up, not gone through: a cell may
        have thousands."""
        conditions = []
        for flag, wanted, tests in self._tests:
            values = getattr(self, flag)
            literal = {value[1:] for value in values if _is_literal(flag, value)}
            rest = [test for value, test in zip(values, tests, strict=True) if not _is_literal(flag, value)]
            conditions.append((wanted, _any_test(literal, rest)))
        return conditions

    @cached_property
    def _tests(self) -> list[tuple[str, bool, list[Test]]]:
        """(flag, whether a match is wanted, its tests) for each flag in use."""
        readers = {"only": _name_test, "exclude": _name_test, "layers": _layer_test, "kind": _kind_test}
        in_use = {flag: values for flag in readers if (values := getattr(self, flag))}
        return [(flag, flag != "exclude", list(map(readers[flag], values))) for flag, values in in_use.items()]

    def _why_nothing(self, checkpoint: Checkpoint) -> str:
        where = f"nothing in {checkpoint.path}"
        if odd := [f"{entry.name} ({checkpoint.unread[entry.name]})" for entry in self.unread(checkpoint)]:
            return f"{where} that is read is selected, only {listing(odd, most=5)}"
        if not checkpoint:
            return f"{where} can be selected: it holds no tensors"
        for flag, wanted, tests in self._tests:
            if wanted and not any(test(entry) for entry in checkpoint.values() for test in tests):
                values, known = getattr(self, flag), _known(flag, list(checkpoint.values()))
                hint = _tied_head(values, checkpoint) or (
                    next(filter(None, (near(value.lstrip("="), known) for value in values)), "")
                    or f"it has {listing([repr(name) for name in sorted(known, key=natural_key)], most=5)}"
                )
                return f"{where} matches --{flag} {', '.join(values)}; {hint}"
        return f"{where} matches {self}: each flag matches something, but no tensor matches them all"


def _tied_head(values: Words, checkpoint: Checkpoint) -> str:
    """What to type for a head that the file does not have beside its embedding, or ''."""
    entries = checkpoint.values()
    embedding = max((entry for entry in entries if entry.kind == "embedding.weight"), key=_numel, default=None)
    layers = [value.strip("=*.").removesuffix(".weight") for value in values]
    roles = {role_of(layer, Siblings(layers), has_bias=False) for layer in layers}
    if "head" not in roles or embedding is None or any(entry.kind == "head.weight" for entry in entries):
        return ""
    return f"a head that is tied to its embedding is in the file as that: --only {quoted(embedding.name)}"


def _numel(entry: Entry) -> int:
    return entry.numel


Place = tuple[str | None, str | None]
"""A part's layer and block."""


def _place_of(by: Sequence[str]) -> Callable[[Entry], Place]:
    """Where an entry's part is, for a way of splitting. Raises `SelectionError` for one that does not exist, names
    two places, or goes by a depth of none."""
    words = [way.partition(":")[0] for way in by]
    known = {way.partition(":")[0]: ":" in way for way in WAYS}
    unknown = [way for way, word in zip(by, words, strict=True) if known.get(word) is not (":" in way)]
    if unknown or not by:
        ways = f"use {', '.join(WAYS)}"
        raise SelectionError(f"cannot split by {', '.join(unknown) or 'nothing'}", remedy=ways)
    if "all" in by and len(set(by)) > 1:
        raise SelectionError(f"cannot split by {', '.join(by)}", remedy="'all' is one part, and stands alone")
    places = [way for way, word in zip(by, words, strict=True) if word in PLACES]
    if len(set(places)) > 1:
        raise SelectionError(f"cannot split by {', '.join(by)}", remedy=f"{' and '.join(places)} are two tables")
    return _reader(places[0]) if places else lambda _: (None, None)


def _reader(way: str) -> Callable[[Entry], Place]:
    word, _, value = way.partition(":")
    if word == "layer":
        return lambda entry: (entry.layer, entry.block)
    if word == "block":  # what is in none goes by its layer: an embedding, the last norm, the head
        return lambda entry: (entry.layer, None) if entry.block is None else (None, entry.block)
    if word == "re":
        expression = Expression(value, "--by re:")
        return lambda entry: (_matched(expression, entry.name), None)
    if not re.fullmatch("[0-9]{1,4}", value) or not int(value):
        raise SelectionError(
            f"cannot split by {way}", remedy="write for example depth:2, for two segments of a path"
        )
    return lambda entry: (".".join(entry.layer.split(".", int(value))[: int(value)]), None)


def _matched(expression: Expression, name: str) -> str:
    """What the expression's groups match in a name; all that it matches, where it has none."""
    match = expression.search(name)
    if match is None:
        return REST
    return " ".join(filter(None, match.groups())) or match[0] or REST


def _split_values(values: Words) -> Iterator[str]:
    for value in values:
        for part in [value] if value.startswith("=") else value.split(","):
            if not part.strip():
                raise SelectionError(f"empty pattern in {value!r}", remedy="write '*' for everything")
            yield part if part.startswith("=") else part.strip()


def _name_test(pattern: str) -> Test:
    matches = glob(pattern)
    return lambda entry: matches(entry.name) or matches(entry.kind) or matches(coarse(entry.kind))


def _is_literal(flag: str, value: str) -> bool:
    return flag in BY_NAME and value.startswith("=")


def _any_test(literal: Set[str], tests: Sequence[Test]) -> Test:
    """Whether a name or kind is one of those that are literal, or a test fits."""
    return lambda entry: (
        entry.name in literal
        or (bool(literal) and not literal.isdisjoint((entry.kind, coarse(entry.kind))))
        or any(test(entry) for test in tests)
    )


def _kind_test(pattern: str) -> Test:
    tests = list(map(glob, {**FORMER, **ALIASES}.get(pattern, (pattern,))))
    return lambda entry: any(matches(entry.kind) or matches(coarse(entry.kind)) for matches in tests)


def _layer_test(pattern: str) -> Test:
    """Whole segments from the root; the layer itself and all below it. '=' alone is the root module's own."""
    if pattern.startswith("="):
        literal = pattern[1:]
        return lambda entry: entry.layer == literal or bool(literal and entry.layer.startswith(f"{literal}."))
    segments = pattern.split(".")
    if "" in segments:
        remedy = "write 'encoder.3' or '**.conv1'"
        raise SelectionError(f"--layers {pattern!r} has an empty segment", remedy=remedy)
    tests = [None if segment == "**" else _segment_test(segment) for segment in segments]
    return lambda entry: begins_path(tests, entry.layer.split(".") if entry.layer else [])


def _segment_test(segment: str) -> Callable[[str], bool]:
    if not re.fullmatch(r"[0-9]{1,18}:[0-9]{1,18}", segment):
        return glob(segment)
    low, high = map(int, segment.split(":"))
    if low > high:
        raise SelectionError(f"--layers range {segment!r} runs backwards", remedy=f"write '{high}:{low}'")
    return lambda text: re.fullmatch("[0-9]{1,18}", text) is not None and low <= int(text) <= high


def _kinds(entries: Iterable[Entry]) -> set[str]:
    """All kinds that these have, and the coarser names of some."""
    kinds = {entry.kind for entry in entries}
    return kinds | set(map(coarse, kinds))


def _known(flag: str, entries: Sequence[Entry]) -> list[str]:
    own = dict.fromkeys(entry.kind for entry in entries)
    kinds: Mapping[str, None] = own | dict.fromkeys(map(coarse, own))
    families = dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in kinds)
    if flag == "kind":
        return [*kinds, *ALIASES, *families]
    if flag == "layers":  # and all above them, of which there may be very many
        layers = dict.fromkeys(entry.layer for entry in entries)
        paths = (layer.split(".", DEPTH_MOST)[:DEPTH_MOST] for layer in layers)
        return list(dict.fromkeys(up for path in paths for up in accumulate(path, "{}.{}".format)))
    return [*dict.fromkeys(entry.name for entry in entries), *kinds, *families]
