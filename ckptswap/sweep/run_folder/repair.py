"""Leaving damaged lines out of a journal, to be computed again, and writing a damaged plan anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError
from ckptswap.sweep.run_folder.journal import (
    PLAN,
    content_of,
    faults,
    is_torn,
    journal_files,
    key_of,
    read_blocks,
    read_plan,
    unused,
    write_plan,
)
from ckptswap.sweep.run_folder.plain import read_plain


def repair(folder: Path) -> list[str]:
    """Leave broken lines out of every journal file, keeping the old file as `NAME.jsonl.damaged` (then
    `.damaged.1`, …); says what it did.

    A file whose first line is broken is set aside whole, since nobody can tell what its scores belong to.
    """
    said = []
    for path in journal_files(folder):
        with faults(f"cannot repair {path}"):
            lines = read_plain(path).splitlines(keepends=True)
            broken = [number for number, line in enumerate(lines, start=1) if not _is_sound(line)]
            torn = bool(lines) and is_torn(lines[-1])
            if not broken or (torn and broken == [len(lines)]):
                continue
            path.rename(unused(path.with_name(f"{path.name}.damaged")))
            if 1 not in broken:
                kept = (line for number, line in enumerate(lines, start=1) if number not in broken)
                path.write_bytes(b"".join(kept))
        lines_left_out = "1 damaged line" if len(broken) == 1 else f"{len(broken)} damaged lines"
        said.append(f"{path}: left out {lines_left_out} ({', '.join(map(str, broken[:10]))})")
    return said


def repair_plan(folder: Path, contents: Mapping[str, Any]) -> list[str]:
    """Write a plan that cannot be read anew, where the journal has scores of the same conditions, keeping the old
    file as `plan.json.damaged`; says what it did.

    Raises `RunError` where the journal was made under other conditions, or is damaged.
    """
    try:
        read_plan(folder)
        return []
    except RunError:
        path = folder / PLAN
    if not path.is_file() or not journal_files(folder):
        return []
    read_blocks(folder, key=key_of(contents["key"]))
    with faults(f"cannot repair {path}"):
        path.rename(unused(path.with_name(f"{path.name}.damaged")))
    write_plan(folder, contents)
    return [f"{path}: was damaged, and is written anew"]


def _is_sound(line: bytes) -> bool:
    try:
        content_of(line)
    except ValueError:
        return False
    return True
