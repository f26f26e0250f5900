"""What a run remembers: a folder with `plan.json` (conditions and plan) and `journal.jsonl` (finished variants).

The conditions are the key: everything that decides scores, by content. They are written before any work. The
journal is only ever appended to, one JSON line a finished variant, each with a CRC-32 of its bytes and fsynced,
so that a killed run loses no more than the variant in flight. Statistics are stored as the bytes of their
float64 values, so that a continued run gives the same table, bit for bit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ckptswap.errors import RunError
from ckptswap.formats.atomic import write_text

SCHEMA = "ckptswap.run/1"
PLAN = "plan.json"
JOURNAL = "journal.jsonl"
BASELINE = "baseline"
DONOR = "donor"

_HEAD = b'{"crc32":"%08x","record":'
_HEAD_SIZE = len(_HEAD % 0)


@dataclass(frozen=True)
class Record:
    """One finished variant: per metric the per-sample statistics (N, K), or why it failed.

    `nonfinite` counts the outputs that were NaN or infinite; `warnings` is what the user should know.
    """

    variant: str
    statistics: Mapping[str, np.ndarray] = field(default_factory=dict)
    nonfinite: int = 0
    failed: str | None = None
    warnings: tuple[str, ...] = ()


def encode(record: Record) -> bytes:
    """A record as its line, newline included.

    >>> decode(encode(Record("v", {"iou": np.array([[0.1]])}))).statistics["iou"].tolist()
    [[0.1]]
    """
    body = {
        "variant": record.variant,
        "statistics": {metric: _packed(values) for metric, values in record.statistics.items()},
        "nonfinite": record.nonfinite,
        "failed": record.failed,
        "warnings": record.warnings,
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    return _HEAD % zlib.crc32(text) + text + b"}\n"


def decode(line: bytes) -> Record:
    """The record of a line; raises `ValueError` when a single bit of it has changed."""
    body = line[_HEAD_SIZE:-2]
    if line != _HEAD % zlib.crc32(body) + body + b"}\n":
        raise ValueError("the checksum does not fit")
    found = json.loads(body)
    statistics = {metric: _unpacked(values) for metric, values in found["statistics"].items()}
    return Record(found["variant"], statistics, found["nonfinite"], found["failed"], tuple(found["warnings"]))


def _packed(values: np.ndarray) -> dict[str, Any]:
    raw = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return {"shape": list(values.shape), "float64": base64.b64encode(raw).decode("ascii")}


def _unpacked(packed: Mapping[str, Any]) -> np.ndarray:
    raw = base64.b64decode(packed["float64"], validate=True)
    return np.frombuffer(raw, dtype="<f8").astype(float).reshape(packed["shape"])


def read_records(path: Path) -> tuple[dict[str, Record], int]:
    """The last record of each variant, and how many bytes of the file are whole lines.

    A last line without its newline was torn by a crash: it is left out. Any other broken line raises
    `RunError` with its number. A missing file is an empty journal.
    """
    records: dict[str, Record] = {}
    size = 0
    if not path.exists():
        return records, size
    with faults(f"cannot read {path}"), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            record = _decoded(line, path, number)
            records[record.variant] = record
            size += len(line)
    return records, size


def _decoded(line: bytes, path: Path, number: int) -> Record:
    try:
        return decode(line)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"line {number} of {path} is damaged ({error})",
            remedy="--fresh sets the journal aside and starts anew",
        ) from None


class Journal:
    """The journal of one run, open for appending; `records` holds what is there already."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.records, size = read_records(self.path)
        with faults(f"cannot write {self.path}"):
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(size)

    def append(self, record: Record) -> None:
        """Remember a record, on disk before this returns; raises `RunError` when it cannot be written."""
        left = memoryview(encode(record))
        with faults(f"cannot write {self.path}"):
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        self.records[record.variant] = record

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def key_of(conditions: Mapping[str, Any]) -> str:
    """The hash of everything that decides scores.

    >>> key_of({"threads": 1, "device": "cpu"}) == key_of({"device": "cpu", "threads": 1})
    True
    """
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()


def prepare(folder: Path, contents: Mapping[str, Any], *, fresh: bool = False) -> None:
    """Make a run folder ready for work under `contents["key"]`, writing `plan.json` atomically.

    `contents` is a JSON object with the conditions under "key". Raises `RunError` when the folder holds a run
    made under other conditions (naming what changed), unless `fresh` sets its journal aside.
    """
    with faults(f"cannot make {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    journal = folder / JOURNAL
    if fresh:
        set_aside(journal)
    else:
        known_records(folder, contents["key"])
    text = json.dumps({"schema": SCHEMA, **contents}, indent=1, allow_nan=False)
    write_text(folder / PLAN, text)


def known_records(folder: Path, conditions: Mapping[str, Any]) -> dict[str, Record]:
    """What a run folder holds that was made under these conditions; nothing is written.

    Raises `RunError` when it was made under others (naming what changed), or is damaged.
    """
    journal = folder / JOURNAL
    if (folder / PLAN).exists():
        _check_key(folder, conditions)
    elif journal.exists():
        raise RunError(f"{folder} has a journal but no {PLAN}", remedy="--fresh sets the journal aside")
    return read_records(journal)[0]


def set_aside(journal: Path) -> None:
    """Rename a journal to the first free `journal.N.jsonl` beside it."""
    if not journal.exists():
        return
    number = 1
    while (aside := journal.with_suffix(f".{number}.jsonl")).exists():
        number += 1
    with faults(f"cannot set {journal} aside"):
        journal.rename(aside)


def read_plan(folder: Path) -> dict[str, Any]:
    """The contents of a run's `plan.json`; raises `RunError` when it is missing, damaged or no run's."""
    path = folder / PLAN
    if not path.is_file():
        raise RunError(f"{folder} holds no sweep (no {PLAN})", remedy="give the folder that `sweep --run` made")
    with faults(f"cannot read {path}"):
        raw = path.read_bytes()
    try:
        found = json.loads(raw)
        if found["schema"] != SCHEMA:
            raise ValueError(f"its schema is {found['schema']!r}, not {SCHEMA!r}")
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no sweep's plan ({error})", remedy="give another folder") from None


def _check_key(folder: Path, key: Mapping[str, Any]) -> None:
    then = read_plan(folder)["key"]
    journal = folder / JOURNAL
    if not journal.exists() or not journal.stat().st_size:
        return  # nothing was scored, so nothing can be mixed up
    now = json.loads(json.dumps(key))
    changed = [part for part in {**then, **now} if then.get(part) != now.get(part)]
    if changed:
        what = "; ".join(_change(part, then.get(part), now.get(part)) for part in changed)
        raise RunError(
            f"{folder} was made under other conditions: {what}",
            remedy="use another --run, or --fresh to set the old journal aside",
        )


def _change(part: str, then: object, now: object) -> str:
    """The part's name, and its fields or values where they are short enough to help."""
    if isinstance(then, dict) and isinstance(now, dict):
        fields = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        return f"{part} ({', '.join(_change(name, then.get(name), now.get(name)) for name in fields)})"
    if max(len(str(then)), len(str(now))) <= 40:
        return f"{part} was {then}, is {now}"
    return f"{part} changed"


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Turn the system's refusals (no space, no permission, no such folder) into a `RunError`."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error.strerror or error}", remedy="free space, or use another --run") from error
