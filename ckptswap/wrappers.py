"""What wrappers write into the names of a network's tensors, and which names of two sides mean the same tensor."""

import os
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from itertools import accumulate, islice, takewhile
from typing import NamedTuple

SEGMENTS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""(Distributed)DataParallel and AveragedModel, torch.compile, FSDP, activation checkpointing, Lightning Fabric:
they stand wherever a part was wrapped."""
HOLDER = "model"
"""What training loops call the network (Lightning's, for example): it stands first, and is an ordinary name
too."""
_CHAINS_MOST = 8
_TOLD_MOST = 1000
_PARTS_MOST = 100
_CHAIN_DEPTH = 4
_DEPTH_MOST = 16


class Correspondence(NamedTuple):
    """New names for those that change, and in words what was taken off or put before them."""

    names: Mapping[str, str]
    how: str


def plain_name(name: str) -> str:
    """A name without what wrappers write into it.

    >>> plain_name("model.module.encoder._orig_mod.0.weight"), plain_name("head.module")
    ('encoder.0.weight', 'head.module')
    """
    *path, role = name.split(".")
    kept = [part for part in path if part not in SEGMENTS]
    start = next((at for at, part in enumerate(kept) if part != HOLDER), len(kept))
    return ".".join([*kept[start:], role])


def common_prefix(names: Iterable[str]) -> str:
    """The wrappers' prefix that all names share, '' when there is none; a `Checkpoint` is its names.

    >>> common_prefix(["module._orig_mod.c.weight", "module._orig_mod.c.bias"])
    'module._orig_mod.'
    """
    shared = os.path.commonprefix(list(names))  # noqa: RUF071  letters are meant
    inner = takewhile(SEGMENTS.__contains__, shared.split(".")[:-1])
    return "".join(f"{part}." for part in inner)


def correspondence(names: Collection[str], reference: Collection[str]) -> Correspondence:
    """How `names` are to be changed to mean the same tensors as those of `reference`.

    Of all that wrappers may have done to either side, what brings most names together; the least change where
    several do. A prefix that no wrapper writes is found only where no name is shared and all names begin with it.
    Two names never become one.

    >>> correspondence(["module.w", "module.b", "n_averaged"], ["w", "b"])
    Correspondence(names={'module.w': 'w', 'module.b': 'b'}, how="without the prefix 'module.'")
    """
    known = frozenset(reference)
    shared = sum(name in known for name in names)
    best, most = Correspondence({}, ""), shared
    if shared < min(len(names), len(known)):
        for candidate in _candidates(names, known, alike=shared > 0):
            together = sum(candidate.names.get(name, name) in known for name in names)
            if together > most and len({candidate.names.get(name, name) for name in names}) == len(names):
                best, most = candidate, together
    return best if best.how or not best.names else best._replace(how=_told(best.names))


def _candidates(names: Collection[str], reference: frozenset[str], *, alike: bool) -> Iterator[Correspondence]:
    chains = _chains(names)
    yield from (_without(names, prefix) for prefix in chains)
    yield from (_with(names, prefix, reference) for prefix in _chains(reference))
    plain = [plain_name(name) for name in names]
    own = {plain_name(name): name for name in reference}
    is_told_apart = len(set(plain)) == len(plain) and len(own) == len(reference)
    if is_told_apart:
        yield _by_plain_names(names, plain, own)
    if alike:
        return
    yield from (_without(names, prefix) for prefix in _common_prefixes(names) if prefix not in chains)
    yield from (_with(names, prefix, reference) for prefix in _common_prefixes(reference))
    if is_told_apart:
        for prefix in _common_prefixes(plain):
            yield _by_plain_names(names, [key[len(prefix) :] for key in plain], own)
        for prefix in _common_prefixes(own):
            yield _by_plain_names(names, [prefix + key for key in plain], own)


def _without(names: Iterable[str], prefix: str) -> Correspondence:
    cut = {name: name[len(prefix) :] for name in names if name.startswith(prefix) and name != prefix}
    return Correspondence(cut, f"without the prefix {prefix!r}")


def _with(names: Iterable[str], prefix: str, reference: Container[str]) -> Correspondence:
    longer = {name: prefix + name for name in names if prefix + name in reference}
    return Correspondence(longer, f"with the prefix {prefix!r}")


def _by_plain_names(names: Iterable[str], plain: Iterable[str], own: Mapping[str, str]) -> Correspondence:
    """Wrappers' names are taken off, and on those of the other side put on."""
    pairs = ((name, own.get(key, key)) for name, key in zip(names, plain, strict=True))
    return Correspondence({name: new for name, new in pairs if name != new}, "")


def _told(changed: Mapping[str, str]) -> str:
    parts: dict[str, dict[str, None]] = {"without": {}, "with": {}}
    for pair in islice(changed.items(), _TOLD_MOST):
        old, new = (Counter(_first_parts(name)) for name in pair)
        parts["without"] |= dict.fromkeys(old - new)
        parts["with"] |= dict.fromkeys(new - old)
    told = {word: " and ".join(map(repr, parts_of)) for word, parts_of in parts.items() if parts_of}
    return ", ".join(f"{word} {names} in their names" for word, names in told.items())


def _first_parts(name: str) -> list[str]:
    return name.split(".", _PARTS_MOST)[:_PARTS_MOST]


def _chains(names: Iterable[str]) -> list[str]:
    """What wrappers put before names, such as `module.`, `module._orig_mod.`; the shortest first."""
    chains: Counter[str] = Counter()
    for name in names:
        prefix = ""
        for part in name.split(".", _CHAIN_DEPTH)[:-1]:
            if part not in SEGMENTS and part != HOLDER:
                break
            prefix += f"{part}."
            chains[prefix] += 1
    return sorted((prefix for prefix, _ in chains.most_common(_CHAINS_MOST)), key=len)


def _common_prefixes(names: Collection[str]) -> list[str]:
    """Every dotted prefix that stands before all names, the shortest first."""
    first, last = min(names, default=""), max(names, default="")
    prefixes = accumulate(f"{part}." for part in first.split(".", _DEPTH_MOST)[:_DEPTH_MOST][:-1])
    return [prefix for prefix in prefixes if last.startswith(prefix)]
