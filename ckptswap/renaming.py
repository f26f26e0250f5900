"""Names that don't match: rules that rename one side's tensors, and a prefix that stands before all of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path

from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.errors import FileError, MismatchError, UsageError, near


@dataclass(frozen=True)
class Rule:
    """`OLD=NEW`: whole names; each `*` in NEW stands for what the `*` at its place in OLD matched, and a rule that
    begins with `re:` is a regular expression with \\1, \\2 … in NEW.

    >>> Rule.parse("backbone.*=encoder.*")("backbone.0.weight")
    'encoder.0.weight'
    >>> Rule.parse(r"re:block(\\d+)\\.(.*)=blocks.\\1.\\2")("block3.norm.bias")
    'blocks.3.norm.bias'
    """

    text: str
    pattern: re.Pattern[str]
    new: str

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Raises `UsageError` for a rule that cannot be read."""
        old, equals, new = text.removeprefix("re:").rpartition("=")
        if not equals or not old or not new:
            raise UsageError(
                f"--map {text!r} is no rule", remedy="write 'OLD=NEW', such as 'backbone.*=encoder.*'"
            )
        try:
            if text.startswith("re:"):
                pattern = re.compile(old)
                pattern.sub(new, "")  # a \3 without a third group is found here, if the pattern matches nothing
                return cls(text, pattern, new)
            return cls(text, _glob(old), _template(old, new))
        except (re.error, IndexError) as error:
            raise UsageError(f"--map {text!r} cannot be read ({error})", remedy="check its groups") from None

    def __call__(self, name: str) -> str | None:
        """The new name, or None where the rule does not speak of this one."""
        found = self.pattern.fullmatch(name)
        return None if found is None else found.expand(self.new)


def _glob(old: str) -> re.Pattern[str]:
    """fnmatch's own translation, with a group for each `*`."""
    parts = (
        translate(part).removeprefix("(?s:").removesuffix(")\\Z").removesuffix(")\\z") for part in old.split("*")
    )
    return re.compile("(.*)".join(parts), re.DOTALL)


def _template(old: str, new: str) -> str:
    if new.count("*") > old.count("*"):
        raise UsageError(f"--map '{old}={new}' has more * on the right", remedy="each must match something")
    pieces = [piece.replace("\\", "\\\\") for piece in new.split("*")]
    return pieces[0] + "".join(f"\\g<{at}>{piece}" for at, piece in enumerate(pieces[1:], start=1))


def parse_rules(maps: Iterable[str] = (), map_file: str | Path | None = None) -> tuple[Rule, ...]:
    """Rules from flags and from a file with one rule a line (`#` begins a comment line); the first that fits wins.

    Raises `UsageError` for a rule that cannot be read, `FileError` for a file that cannot.
    """
    lines: list[str] = []
    if map_file is not None:
        try:
            lines = Path(map_file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{map_file} cannot be read ({error})", remedy="check --map-file") from None
    written = (line.strip() for line in lines)
    return tuple(Rule.parse(text) for text in (*maps, *(line for line in written if line and line[0] != "#")))


def renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """The same tensors under other names; what `names` does not mention keeps its own.

    Closing it closes the original. Raises `MismatchError` when two tensors would have one name.

    >>> import numpy as np
    >>> list(renamed(Checkpoint.from_arrays({"a": np.zeros(1), "b": np.zeros(1)}), {"a": "c"}))
    ['c', 'b']
    """
    changed = {old: new for old, new in names.items() if old != new}
    if not changed:
        return checkpoint
    new_names = [changed.get(name, name) for name in checkpoint]
    twice = next((name for name, times in Counter(new_names).items() if times > 1), None)
    if twice is not None:
        raise MismatchError(f"renaming gives two tensors of {checkpoint.path} the name {twice!r}",
                            remedy="make the rules narrower")  # fmt: skip
    entries = zip(new_names, checkpoint.values(), strict=True)
    return Checkpoint(
        (Tensor(name, entry.shape, entry.dtype, entry.source) for name, entry in entries),
        path=checkpoint.path,
        format=checkpoint.format,
        metadata=checkpoint.metadata,
        notes=checkpoint.notes,
        files=checkpoint.files,
        close=checkpoint.close,
        renames=_composed(checkpoint.renames, changed),
        beside=checkpoint.beside,
    )


def _composed(first: Mapping[str, str], then: Mapping[str, str]) -> dict[str, str]:
    """From the file's own names to the last ones."""
    both = {old: then.get(new, new) for old, new in first.items()}
    reached = set(first.values())
    later = {old: new for old, new in then.items() if old not in reached}
    return {old: new for old, new in (both | later).items() if old != new}


def map_all(checkpoints: Sequence[Checkpoint], rules: Sequence[Rule]) -> list[Checkpoint]:
    """Each checkpoint with every name as the first fitting rule gives it.

    Raises `UsageError` for a rule that fits no name of any of them, since it is then misspelt.
    """
    fits = [{name: fit for name in checkpoint if (fit := _first_fit(name, rules))} for checkpoint in checkpoints]
    used = {rule for each in fits for rule, _ in each.values()}
    for rule in rules:
        if rule not in used:
            names = [name for checkpoint in checkpoints for name in checkpoint]
            hint = near(rule.text.rpartition("=")[0], names) or "a rule speaks of whole names"
            raise UsageError(f"--map {rule.text!r} fits no tensor of {_paths(checkpoints)}", remedy=hint)
    return [
        renamed(checkpoint, {name: new for name, (_, new) in each.items()})
        for checkpoint, each in zip(checkpoints, fits, strict=True)
    ]


def _first_fit(name: str, rules: Iterable[Rule]) -> tuple[Rule, str] | None:
    return next(((rule, new) for rule in rules if (new := rule(name)) is not None), None)


def _paths(checkpoints: Iterable[Checkpoint]) -> str:
    return " or ".join(checkpoint.path for checkpoint in checkpoints)


def stripped(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The checkpoint without `prefix` before the names that have it."""
    return renamed(
        checkpoint,
        {name: name[len(prefix) :] for name in checkpoint if name.startswith(prefix) and name != prefix},
    )


def strip_all(checkpoints: Sequence[Checkpoint], prefix: str) -> list[Checkpoint]:
    """All without `prefix`; raises `UsageError` when not one name begins with it."""
    if not any(name.startswith(prefix) for checkpoint in checkpoints for name in checkpoint):
        raise UsageError(
            f"no tensor of {_paths(checkpoints)} begins with {prefix!r}", remedy="check --strip-prefix"
        )
    return [stripped(checkpoint, prefix) for checkpoint in checkpoints]


def matched(
    other: Checkpoint, reference: Checkpoint, rules: Sequence[Rule] = (), strip_prefix: str | None = None
) -> tuple[Checkpoint, Checkpoint, str | None]:
    """Both under names that can be compared, and a sentence where a prefix was found without being named.

    `strip_prefix` is taken off both, then `rules` rename the tensors of `other`, then `aligned` looks for a
    prefix. Raises what `strip_all` and `map_all` raise.
    """
    if strip_prefix:
        other, reference = strip_all([other, reference], strip_prefix)
    [other] = map_all([other], rules)
    other, said = aligned(other, reference)
    return other, reference, said


def all_matched(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    rules: Sequence[Rule] = (),
    strip_prefix: str | None = None,
) -> tuple[list[Checkpoint], list[str]]:
    """`reference`, then `others`, under names that can be compared, and a sentence for each prefix found.

    Whichever of them has `strip_prefix` loses it, whatever a rule fits is renamed, then each of `others` is
    `aligned` with `reference`. Raises what `strip_all` and `map_all` raise.

    >>> import numpy as np
    >>> base, a, b = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in ("w", "net.w", "module.w"))
    >>> found, said = all_matched(base, [a, b], [Rule.parse("net.*=*")])
    >>> [list(checkpoint) for checkpoint in found], len(said)
    ([['w'], ['w'], ['w']], 1)
    """
    each = [reference, *others]
    if strip_prefix:
        each = strip_all(each, strip_prefix)
    reference, *others = map_all(each, rules)
    pairs = [aligned(other, reference) for other in others]
    return [reference, *(other for other, _ in pairs)], [said for _, said in pairs if said]


def aligned(other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, str | None]:
    """`other` under the names of `reference`, where they share none and one prefix explains it; what was done.

    >>> import numpy as np
    >>> plain, wrapped = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in ("c.bias", "module.c.bias"))
    >>> list(aligned(plain, wrapped)[0])
    ['module.c.bias']
    """
    if any(name in reference for name in other):
        return other, None
    candidates = [
        *((prefix, lambda name, cut=len(prefix): name[cut:], "without") for prefix in _prefixes(other)),
        *((prefix, lambda name, prefix=prefix: prefix + name, "with") for prefix in _prefixes(reference)),
    ]
    best = max(candidates, key=lambda each: _overlap(other, reference, each[1]), default=None)
    if best is None or not _overlap(other, reference, best[1]):
        return other, None
    prefix, rename, how = best
    said = f"the tensors of {other.path} are taken {how} the prefix {prefix!r}, to match {reference.path}"
    return renamed(other, {name: rename(name) for name in other}), said


def _overlap(other: Checkpoint, reference: Checkpoint, rename: Callable[[str], str]) -> int:
    return sum(rename(name) in reference for name in other)


def _prefixes(checkpoint: Checkpoint) -> Iterator[str]:
    """Every dotted prefix that stands before all names, the shortest first."""
    names = list(checkpoint)
    shortest = min(names, key=len, default="")
    for at, letter in enumerate(shortest):
        prefix = shortest[: at + 1]
        if not all(name.startswith(prefix) for name in names):
            return
        if letter == "." and shortest != prefix:
            yield prefix
