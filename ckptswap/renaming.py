"""Names that don't match: rules that rename one side's tensors, and a prefix that stands before all of them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError, MismatchError, UsageError, near
from ckptswap.patterns import Expression, starred
from ckptswap.plainfiles import read_plain
from ckptswap.wrappers import correspondence


@dataclass(frozen=True)
class Rule:
    """`OLD=NEW`: whole names; each `*` in NEW stands for what the `*` at its place in OLD matched, and a rule that
    begins with `re:` is a regular expression with \\1, \\2 … in NEW.

    >>> Rule.parse(r"re:block(\\d+)\\.(.*)=blocks.\\1.\\2")("block3.norm.bias")
    'blocks.3.norm.bias'
    """

    text: str
    rename: Callable[[str], str | None] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Raises `UsageError` for a rule that cannot be read."""
        old, equals, new = text.removeprefix("re:").rpartition("=")
        if not equals or not old or not new:
            remedy = "write 'OLD=NEW', such as 'backbone.*=encoder.*'"
            raise UsageError(f"--map {text!r} is not a rule", remedy=remedy)
        return cls(text, (_by_expression if text.startswith("re:") else _by_glob)(text, old, new))

    def __call__(self, name: str) -> str | None:
        """The new name, or None where the rule does not speak of this one."""
        return self.rename(name)


def _by_expression(text: str, old: str, new: str) -> Callable[[str], str | None]:
    expression = Expression(old, "--map re:")
    try:
        expression.pattern.sub(new, "")  # finds a \\3 without a third group, though nothing may match
    except (re.error, IndexError) as error:
        raise UsageError(f"--map {text!r} cannot be read ({error})", remedy="check its groups") from None
    return lambda name: match.expand(new) if (match := expression.fullmatch(name)) else None


def _by_glob(text: str, old: str, new: str) -> Callable[[str], str | None]:
    if new.count("*") > old.count("*"):
        raise UsageError(f"--map {text!r} has more * on the right", remedy="each must match something")
    fit, (first, *rest) = starred(old), new.split("*")

    def rename(name: str) -> str | None:
        match = fit(name)
        return None if match is None else first + "".join(map(str.__add__, match, rest))

    return rename


def parse_rules(maps: Iterable[str] = (), map_file: str | Path | None = None) -> tuple[Rule, ...]:
    """Rules from flags and from a file with one rule a line (`#` begins a comment line); the first that fits wins.

    Raises `UsageError` for a rule that cannot be read, `FileError` for a file that cannot.
    """
    try:
        lines = read_plain(map_file).decode("utf-8").splitlines() if map_file is not None else []
    except UnicodeDecodeError as error:
        raise FileError(f"{map_file} cannot be read ({error})", remedy="check --map-file") from None
    written = (line.strip() for line in lines)
    return tuple(Rule.parse(text) for text in (*maps, *(line for line in written if line and line[0] != "#")))


def renamed(checkpoint: Checkpoint, names: Mapping[str, str]) -> Checkpoint:
    """The same tensors under other names; what `names` does not mention keeps its own.

    Closing it closes the original. Raises `MismatchError` when two tensors would have one name.

    >>> import numpy as np
    >>> list(renamed(Checkpoint.from_arrays(dict.fromkeys("ab", np.zeros(1))), {"a": "c"}))
    ['c', 'b']
    """
    if not (changed := {old: new for old, new in names.items() if old != new}):
        return checkpoint
    new_names = {name: changed.get(name, name) for name in checkpoint.every_name}
    twice = next((name for name, times in Counter(new_names.values()).items() if times > 1), None)
    if twice is not None:
        fault = f"renaming gives two tensors of {checkpoint.path} the name {twice!r}"
        raise MismatchError(fault, remedy="make the rules narrower")
    from_file = {old: changed.get(new, new) for old, new in checkpoint.renames.items()}
    reached = set(checkpoint.renames.values())
    from_file |= {old: new for old, new in changed.items() if old not in reached}
    return checkpoint.under(new_names, {old: new for old, new in from_file.items() if old != new})


def limited(checkpoint: Checkpoint, names: Iterable[str]) -> Checkpoint:
    """The checkpoint with these of its tensors only; closing it closes the original."""
    kept = set(names)
    return checkpoint.under({name: name for name in checkpoint if name in kept})


def map_all(checkpoints: Sequence[Checkpoint], rules: Sequence[Rule]) -> list[Checkpoint]:
    """Each checkpoint with every name as the first fitting rule gives it.

    Raises `UsageError` for a rule that fits no name of any of them, since it is then misspelt.
    """
    unused, renamings = dict.fromkeys(rules), []
    for checkpoint in checkpoints:
        renamings.append(renaming := dict[str, str]())
        for name in checkpoint.every_name:
            rule, new = next(((rule, new) for rule in rules if (new := rule(name)) is not None), (None, name))
            if rule is not None:
                unused.pop(rule, None)
                renaming[name] = new
    for rule in unused:
        names = [name for checkpoint in checkpoints for name in checkpoint]
        hint = near(rule.text.rpartition("=")[0], names) or "a rule speaks of whole names"
        where = " or ".join(checkpoint.path for checkpoint in checkpoints)
        raise UsageError(f"--map {rule.text!r} fits no tensor of {where}", remedy=hint)
    return list(map(renamed, checkpoints, renamings))


def strip_all(checkpoints: Sequence[Checkpoint], prefix: str | None) -> list[Checkpoint]:
    """All without `prefix`, where there is one; raises `UsageError` when not one name begins with it."""
    if not prefix:
        return list(checkpoints)
    if not any(name.startswith(prefix) for checkpoint in checkpoints for name in checkpoint.every_name):
        where = " or ".join(checkpoint.path for checkpoint in checkpoints)
        raise UsageError(f"no tensor of {where} begins with {prefix!r}", remedy="check --strip-prefix")
    return [renamed(side, _without(prefix, side)) for side in checkpoints]


def _without(prefix: str, side: Checkpoint) -> dict[str, str]:
    names = (name for name in side.every_name if name.startswith(prefix) and name != prefix)
    return {name: name[len(prefix) :] for name in names}


def matched(
    other: Checkpoint, reference: Checkpoint, rules: Sequence[Rule] = (), strip_prefix: str | None = None
) -> tuple[Checkpoint, Checkpoint, str | None]:
    """Both under names that can be compared, and a sentence where a prefix was found without being named.

    `strip_prefix` is taken off both, `rules` rename the tensors of `other`, then `aligned` looks for a prefix.
    Raises as `strip_all` and `map_all` do.
    """
    other, reference = strip_all([other, reference], strip_prefix)
    [other] = map_all([other], rules)
    other, sentence = aligned(other, reference)
    return other, reference, sentence


def _mapped(other: Checkpoint, reference: Checkpoint, rules: Sequence[Rule]) -> tuple[Checkpoint, Checkpoint]:
    """The rules upon `other`, or upon both, whichever makes more names the same."""
    try:
        alone = map_all([other], rules)[0], reference
    except UsageError:  # a rule fits none of its names, and may fit the reference's
        first, second = map_all([other, reference], rules)
        return first, second
    with suppress(MismatchError):
        first, second = map_all([other, reference], rules)
        if len(first.keys() & second.keys()) > len(alone[0].keys() & reference.keys()):
            return first, second
    return alone


def all_matched(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    rules: Sequence[Rule] = (),
    strip_prefix: str | None = None,
) -> tuple[list[Checkpoint], list[str]]:
    """`reference`, then `others`, under names that can be compared, and a sentence for each prefix found.

    Whichever of them has `strip_prefix` loses it, whatever a rule fits is renamed, then the `others` are
    `aligned` with `reference`. Raises what `strip_all` and `map_all` raise.

    >>> import numpy as np
    >>> base, a, b = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in ("w", "net.w", "module.w"))
    >>> sides, sentences = all_matched(base, [a, b], [Rule.parse("net.*=*")])
    >>> [list(side) for side in sides], len(sentences)
    ([['w'], ['w'], ['w']], 1)
    """
    reference, *others = map_all(strip_all([reference, *others], strip_prefix), rules)
    pairs = [aligned(other, reference) for other in others]
    return [reference, *(other for other, _ in pairs)], [sentence for _, sentence in pairs if sentence]


def sides_matched(
    recipient: Checkpoint, donors: Sequence[Checkpoint], rules: Sequence[Rule], strip_prefix: str | None
) -> tuple[Checkpoint, list[Checkpoint], list[str]]:
    """Recipient and donors under names that can be compared, and what was found unasked.

    One donor is `matched`, but rules may concern either side; several are `all_matched`.
    """
    if len(donors) != 1:
        [recipient, *others], sentences = all_matched(recipient, donors, rules, strip_prefix)
        return recipient, others, sentences
    donor, recipient = strip_all([donors[0], recipient], strip_prefix)
    donor, recipient = _mapped(donor, recipient, rules)
    donor, sentence = aligned(donor, recipient)
    return recipient, [donor], [sentence] if sentence else []


def aligned(other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, str | None]:
    """`other` under the names of `reference`, as far as a wrapper's names or a prefix explain them; what was done.

    >>> import numpy as np
    >>> plain, wrapped = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in ("c.bias", "module.c.bias"))
    >>> list(aligned(plain, wrapped)[0])
    ['module.c.bias']
    """
    return aligned_with(other, reference.every_name, reference.path)


def aligned_with(other: Checkpoint, names: Collection[str], whose: str) -> tuple[Checkpoint, str | None]:
    """The same with these names, of a model for example; `whose` they are is for the sentence."""
    new, how = correspondence(other.every_name, names)
    if not new:
        return other, None
    changed = sum(name in new for name in other)
    which = "the" if changed == len(other) else f"{changed} of the {len(other)}"
    return renamed(other, new), f"{which} tensors of {other.path} are taken {how}, to match {whose}"
