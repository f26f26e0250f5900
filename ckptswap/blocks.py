"""The repeated unit that a layer belongs to, told by how names repeat: `model.layers.7`, `encoder.layer1.0`.

A unit is one of a numbered row of modules that are alike and hold two weight matrices or more each. Where a row
stands inside another's member and makes up most of it (stages of blocks), the inner one's members are the blocks.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckptswap.roles import form_of

Place = tuple[str, str]
"""A numbered module, and the row that it stands in."""

LETTERS_MOST = 500
"""Of a layer's path; a longer one, which no network has, is in no block."""
DEPTH_MOST = 16
"""Numbered modules within each other, from the root on; deeper ones are no blocks."""
ALIKE = 0.5
"""The share of the smaller member's layers that two alike ones have in common."""
_NAMED_ROWS = frozenset(["layers", "layer", "blocks", "block", "h", "resblocks", "stages", "stage"])
"""Rows that may have a single member and are rows by their name."""


@dataclass(slots=True)
class _Unit:
    """A numbered module: its layers by their paths in it, and how many of them hold a matrix."""

    row: str
    layers: list[str] = field(default_factory=list)
    matrices: int = 0


def blocks(layers: Mapping[str, bool]) -> dict[str, str | None]:
    """The block of each layer, None for one that is in none; given whether a layer holds a weight matrix.

    >>> names = [f"h.{at}.{part}" for at in (0, 1) for part in ("attn.qkv", "mlp.fc1")] + ["head"]
    >>> blocks(dict.fromkeys(names, True))["h.1.mlp.fc1"], blocks(dict.fromkeys(names, True))["head"]
    ('h.1', None)
    """
    units: dict[str, _Unit] = {}
    places = _places(layers)
    for layer, has_matrix in layers.items():
        for prefix, row in places[layer]:
            unit = units.setdefault(prefix, _Unit(row))
            unit.layers.append(layer[len(prefix) + 1 :])
            unit.matrices += has_matrix
    rows: dict[str, list[str]] = defaultdict(list)
    for prefix, unit in units.items():
        rows[unit.row].append(prefix)
    longest: Counter[str] = Counter()
    for row, members in rows.items():
        longest[_form(row)] = max(longest[_form(row)], len(members))
    repeated = {
        prefix
        for row, members in rows.items()
        if longest[_form(row)] > 1 or _is_named(row)
        for prefix in _repeated(members, units)
    }
    stages = {
        outer
        for row, members in rows.items()
        for outer, _ in _numbered(row)
        if outer in units
        and longest[_form(row)] > 1
        and _make_up(units[outer], [units[prefix] for prefix in members if prefix in repeated])
    }
    own = repeated - stages
    return {layer: next((prefix for prefix, _ in places[layer] if prefix in own), None) for layer in layers}


def _make_up(outer: _Unit, members: Iterable[_Unit]) -> bool:
    """Whether these hold most of a module's matrices, which is a stage of them then."""
    held = sum(unit.matrices for unit in members)
    return held > 0 and held >= ALIKE * outer.matrices


def _places(layers: Iterable[str]) -> dict[str, tuple[Place, ...]]:
    """Of every layer what `_numbered` tells; modules side by side look once at what is above them."""
    above: dict[str, tuple[Place, ...]] = {}
    places = {}
    for layer in layers:
        parent = layer.rpartition(".")[0]
        if parent not in above:
            above[parent] = _numbered(parent)
        places[layer] = _below(above[parent], layer) if len(layer) <= LETTERS_MOST else ()
    return places


def _numbered(path: str) -> tuple[Place, ...]:
    """Each numbered module above a path or at it, from the root on."""
    places: tuple[Place, ...] = ()
    end = -1
    for part in path.split(".") if len(path) <= LETTERS_MOST else ():
        end += len(part) + 1
        places = _below(places, path[:end]) if part[-1:].isdigit() else places
    return places


def _below(above: tuple[Place, ...], path: str) -> tuple[Place, ...]:
    """What is above a module and the module itself, where that is one of a row."""
    parent, _, own = path.rpartition(".")
    word = own.rstrip(string.digits)
    if len(word) == len(own) or len(above) == DEPTH_MOST:
        return above
    stem = word.removesuffix("_")
    is_part = form_of(stem.lower() or parent.rpartition(".")[2].lower())
    return above if is_part else (*above, (path, f"{parent}.{stem}"))


def _form(row: str) -> str:
    """What rows of the same sort in other modules have in common."""
    return re.sub(r"\d+", "#", row)


def _is_named(row: str) -> bool:
    parent, _, stem = row.rpartition(".")
    return (stem or parent.rpartition(".")[2]).lower() in _NAMED_ROWS


def _repeated(members: Sequence[str], units: Mapping[str, _Unit]) -> Iterator[str]:
    """Those of a row that are like another: one beside it, or the usual one. One alone is like itself."""
    layers = [frozenset(units[prefix].layers) if units[prefix].matrices > 1 else frozenset() for prefix in members]
    usual, often = Counter(filter(None, layers)).most_common(1)[0] if any(layers) else (frozenset[str](), 0)
    again = usual if often > 1 or len(members) == 1 else frozenset[str]()
    beside = zip([frozenset[str](), *layers], [*layers[1:], frozenset[str]()], strict=False)
    for prefix, own, (before, after) in zip(members, layers, beside, strict=False):
        others = (before, after, again)
        if any(len(own & other) >= ALIKE * min(len(own), len(other)) for other in others if own and other):
            yield prefix
