"""What the page's copy buttons need: for every row the command that makes its variant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ckptswap.shell import quoted
from ckptswap.sweep.provenance import Provenance
from ckptswap.sweep.result import Row


def row_commands(rows: Sequence[Row], origin: Provenance) -> dict[str, Any]:
    """What the copy buttons need: the beginning of each donor's command, the tensors' names as words of a shell,
    and for each row the donor and its words as runs (first, how many, …); none where no command can be.

    The longest rows come first, so that the many that take nearly all, or one layer more each, are a few runs.
    """
    words: dict[str, int] = {}
    for row in sorted(rows, key=lambda row: -len(row.tensors)):
        for name in row.tensors:
            words.setdefault(name, len(words))
    return {
        "starts": [origin.transplant(at) for at in range(len(origin.donors))],
        "words": [quoted(f"={name}") for name in words],
        "rows": [
            _runs(words[name] for name in row.tensors) if _has_command(row, origin) else None for row in rows
        ],
        "donors": [row.donor for row in rows],
    }


def _runs(places: Iterable[int]) -> list[int]:
    """
    >>> _runs([4, 5, 6, 0, 1])
    [4, 3, 0, 2]
    """
    runs: list[int] = []
    for place in places:
        if runs and place == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += [place, 1]
    return runs


def _has_command(row: Row, origin: Provenance) -> bool:
    """What holds control characters is nothing to paste into a terminal."""
    if row.status == "mismatch" or not row.tensors or row.donor >= len(origin.donors):
        return False
    words = (origin.recipient, origin.donors[row.donor], *row.tensors)
    return origin.transplant(row.donor) is not None and all(word.isprintable() for word in words)
