"""Names of one network by another's code: where two files hold the same shapes in the same order, that tells which
tensor is which, and where it does not tell, nothing is guessed.
"""

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry
from ckptswap.errors import MismatchError, listing
from ckptswap.naming import is_counter, split_name
from ckptswap.renaming import renamed

Pairs = Mapping[str, str]


def paired_words(other: str, reference: str, rules: Iterable[str]) -> list[str]:
    """A pairing as a person reads it, rule by rule."""
    return [f"{other} is paired by order and shape with {reference}: {rule}" for rule in rules]


def can_be_paired(other: Checkpoint, reference: Checkpoint) -> bool:
    """Whether `by_shape_order` pairs all that have no namesake."""
    try:
        by_shape_order(other, reference)
    except MismatchError:
        return False
    return True


def by_shape_order(other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """`other` under the names of `reference`, and the pairing, as rules that `--map` takes.

    What has one name in both is a pair already; the others are paired in the order of the files, or where one file
    is in the order of the alphabet, by shapes that occur once. Raises `MismatchError` where there are other shapes
    on the two sides, or where several pairings are possible.

    >>> import numpy as np
    >>> ours = {"conv.weight": np.zeros((4, 3, 3, 3)), "conv.bias": np.zeros(4)}
    >>> theirs = {"stem.0.weight": np.ones((4, 3, 3, 3)), "stem.0.bias": np.ones(4)}
    >>> paired, rules = by_shape_order(*map(Checkpoint.from_arrays, (theirs, ours)))
    >>> list(paired), rules
    (['conv.weight', 'conv.bias'], ['stem.0.*=conv.*'])
    """
    a, b = _left(other, reference), _left(reference, other)
    _check_shapes(a, b, other, reference)
    lost = [side.path for side, left in ((other, a), (reference, b)) if _order_is_lost(side, left)]
    pairs = dict(_by_shapes(a, b, lost) if lost else _in_order(a, b))
    _check_roles(pairs, other, reference)
    return renamed(other, {**pairs, **_counters(pairs, other)}), _rules(pairs)


def _left(side: Checkpoint, other: Checkpoint) -> list[Entry]:
    """What has no namesake; batch norm's counters, which not all have, go with their layers."""
    return [entry for name, entry in side.items() if name not in other and not is_counter(name)]


def _check_shapes(a: Sequence[Entry], b: Sequence[Entry], other: Checkpoint, reference: Checkpoint) -> None:
    ours, theirs = (Counter(entry.shape for entry in side) for side in (a, b))
    for path, more, less in ((other.path, ours, theirs), (reference.path, theirs, ours)):
        if beyond := more - less:
            shapes = listing([f"{list(shape)} {count} more" for shape, count in beyond.items()], most=3)
            raise MismatchError(f"--match shape-order pairs nothing: {path} has other shapes ({shapes})",
                                remedy="the two are not one topology; name pairs by --map OLD=NEW")  # fmt: skip


def _order_is_lost(side: Checkpoint, left: Sequence[Entry]) -> bool:
    """Whether a file is sorted by names: safetensors' own writers do that, for each dtype by itself."""
    names: dict[str, list[str]] = {}
    for entry in left:
        names.setdefault(entry.dtype, []).append(entry.name)
    is_sorted = len(left) > 1 and all(group == sorted(group) for group in names.values())
    return is_sorted and (side.format == "safetensors" or _is_bias_first(left))


def _is_bias_first(left: Sequence[Entry]) -> bool:
    """No module of torch registers its bias before its weight."""
    seen: set[tuple[str, str]] = set()
    for entry in left:
        layer, role = split_name(entry.name)
        if role == "weight" and (layer, "bias") in seen:
            return True
        seen.add((layer, role))
    return False


def _in_order(a: Sequence[Entry], b: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    for at, (ours, theirs) in enumerate(zip(a, b, strict=True), 1):
        if ours.shape != theirs.shape:
            where = f"{ours.name} {list(ours.shape)} and {theirs.name} {list(theirs.shape)} are both number {at}"
            raise MismatchError(f"--match shape-order is ambiguous: the orders differ ({where})",
                                remedy="name pairs by --map OLD=NEW")  # fmt: skip
        yield ours.name, theirs.name


def _by_shapes(a: Sequence[Entry], b: Sequence[Entry], lost: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of shapes that occur once."""
    names = {entry.shape: entry.name for entry in b}
    several = [shape for shape, count in Counter(entry.shape for entry in a).items() if count > 1]
    if several:
        same = [entry.name for entry in a if entry.shape == several[0]]
        fault = f"{' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} sorted by names, not as the network is"
        remedy = f"{listing(same, most=3)} have one shape: take the file of torch, or name pairs by --map OLD=NEW"
        raise MismatchError(f"--match shape-order is ambiguous: {fault}", remedy=remedy)
    yield from ((entry.name, names[entry.shape]) for entry in a)


def _check_roles(pairs: Pairs, other: Checkpoint, reference: Checkpoint) -> None:
    """A word that both sides use means the same on both: a weight is no bias, though they have one shape."""
    common = {split_name(name)[1] for name in other} & {split_name(name)[1] for name in reference}
    for ours, theirs in pairs.items():
        roles = {split_name(ours)[1], split_name(theirs)[1]}
        if len(roles) > 1 and roles & common:
            raise MismatchError(f"--match shape-order is ambiguous: {ours} would be {theirs}",
                                remedy="name pairs by --map OLD=NEW")  # fmt: skip


def _counters(pairs: Pairs, other: Checkpoint) -> Pairs:
    """Batch norm's counters under the names of the layers that theirs became."""
    layers: dict[str, set[str]] = {}
    for old, new in pairs.items():
        layers.setdefault(split_name(old)[0], set()).add(split_name(new)[0])
    counters = ((name, *split_name(name)) for name in other if is_counter(name))
    return {name: ".".join([*filter(None, layers[layer]), role]) for name, layer, role in counters
            if len(layers.get(layer, ())) == 1}  # fmt: skip


def _rules(pairs: Pairs) -> list[str]:
    """The pairing as rules: a layer's in one where all its tensors go together and keep their own names."""
    layers: dict[str, list[tuple[str, str]]] = {}
    for names in pairs.items():
        layers.setdefault(split_name(names[0])[0], []).append(names)
    rules = []
    for layer, members in layers.items():
        news = {split_name(new)[0] for _, new in members}
        is_whole = len(news) == 1 and all(old[len(layer) :] == new[len(min(news)) :] for old, new in members)
        if is_whole and layer and min(news):
            rules.append(f"{glob.escape(layer)}.*={min(news)}.*")
        else:
            rules += [f"{glob.escape(old)}={new}" for old, new in members]
    return rules
