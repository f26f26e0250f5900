"""A run's journal: the finished blocks, in files that are only ever appended to.

Each file has one writer; it begins with the key of the conditions of its scores, and has a line a block with a
CRC-32 of its bytes, written by a single call and fsynced within a second: a killed run loses no more than the
block in flight. Statistics are the bytes of their float64 values: a continued run gives the same table, bit for
bit.
"""

import binascii
import gc
import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ckptswap.errors import RunError
from ckptswap.scoring.scorer import Block, Way
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.plain import (
    JOURNAL,
    faults,
    open_plain,
    open_to_append,
    read_plain,
    refuse_odd,
    unused,
)

SCHEMA = "ckptswap.run/3"
SYNC = 1.0  # seconds after which what was written is made to reach the disk

_F8 = np.dtype("<f8")
_WIDEST = 1 << 20  # statistics of one sample
_TOGETHER = 1000  # lines that are parsed at once

DISTRUST = "what was replayed cannot be trusted"
_FORMS = [(str, int, failed, engine) for failed in (str, type(None)) for engine in get_args(Way)]
"""Types of a block's variant, batch and failure, and its engine: a sound checksum says nothing of who made it."""


def encode(block: Block) -> bytes:
    """A block as its line, newline included.

    >>> decode(encode(Block("v", 0, {"iou": np.array([[0.1]])}))).statistics["iou"].tolist()
    [[0.1]]
    """
    packed = {}
    for metric, values in block.statistics.items():
        raw = np.ascontiguousarray(values, dtype=_F8).tobytes()
        packed[metric] = [values.shape[1], binascii.b2a_base64(raw, newline=False).decode("ascii")]
    return _line([*block[:2], packed, *block[3:]])


def decode(line: bytes) -> Block:
    """The block of a line; raises `ValueError` when a single bit of it has changed."""
    return _block(_content_of(line))


def _block(content: Any) -> Block:
    variant, batch, packed, *rest = content
    block = Block(variant, batch, {metric: _unpacked(*packing) for metric, packing in packed.items()}, *rest)
    if (type(variant), type(batch), type(block.failed), block.engine) not in _FORMS or batch < 0:
        raise ValueError("it is not a block")
    return block


def _line(content: object) -> bytes:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _content_of(line: bytes) -> Any:
    try:
        return json.loads(_checked(line).decode("ascii"))  # json would first guess at the encoding of bytes
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _checked(line: bytes) -> bytes:
    text = line[9:-1]
    if line[:9] != b"%08x " % zlib.crc32(text) or line[-1:] != b"\n":
        raise ValueError("the checksum does not fit")
    return text


def _contents(lines: Sequence[bytes]) -> Iterator[Any]:
    """What lines say. As one array they parse in half the time; but an error must come at its own line."""
    try:
        contents = json.loads(b"[%s]" % b",".join(map(_checked, lines)))
    except (ValueError, RecursionError):
        contents = []
    return iter(contents) if len(contents) == len(lines) else map(_content_of, lines)


def _unpacked(width: int, text: str) -> np.ndarray:
    raw = binascii.a2b_base64(text)
    if type(width) is not int or not 1 <= width <= _WIDEST or len(raw) % (8 * width):
        raise ValueError(f"{len(raw)} bytes are not rows of {width} values")
    return np.ndarray((len(raw) // (8 * width), width), _F8, raw)


def read_blocks(folder: Path, *, key: str) -> Blocks:
    """Everything in a run folder's journal files, which must all have been made under this key.

    A last line without its newline was torn by a crash: it is left out. Any other broken line, and a file made
    under another key, raises `RunError` naming file and line. A missing folder is an empty journal.
    """
    blocks, enabled = Blocks(), gc.isenabled()
    gc.disable()  # all of hundreds of thousands of blocks are kept: looking for garbage took a third of the time
    try:
        for path in journal_files(folder):
            with faults(f"cannot read {path}"):
                lines = read_plain(path).splitlines(keepends=True)
            if lines and _is_torn(lines[-1]):
                lines.pop()
            for block in _read_lines(path, lines, key):
                if block is None:
                    blocks.distrust()
                else:
                    blocks.put(block)
    finally:
        if enabled:
            gc.enable()
    return blocks


def journal_files(folder: Path) -> list[Path]:
    """The journal's files, in a fixed order. Raises `RunError` where the journal is elsewhere, behind a link."""
    refuse_odd(folder / JOURNAL, folder=True)
    return sorted((folder / JOURNAL).glob("*.jsonl"))


def _is_torn(line: bytes) -> bool:
    """Whether a file's last line was broken off; one that is whole but for the byte after it is damaged."""
    return line[-1:] != b"\n" and line[:9] != b"%08x " % zlib.crc32(line[9:-1])


def _read_lines(path: Path, lines: list[bytes], key: str, first: int = 1) -> Iterator[Block | None]:
    """The blocks of whole lines, which are numbered from `first` on; None for a line of distrust."""
    parts = (lines[at : at + _TOGETHER] for at in range(0, len(lines), _TOGETHER))
    contents = chain.from_iterable(map(_contents, parts))
    for number in range(first, first + len(lines)):
        try:
            content = next(contents)
            if number > 1:
                yield None if content == DISTRUST else _block(content)
            elif content["key"] != key:
                remedy = "--fresh sets the old journal aside"
                raise RunError(f"{path} was made under other conditions", remedy=remedy)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            remedy = "sweep --repair leaves it out and computes that block again, --fresh begins anew"
            raise RunError(f"line {number} of {path} is damaged ({error})", remedy=remedy) from None


class Journal:
    """One writer's file in a run's journal, open for appending; `blocks` holds what all files hold already."""

    def __init__(self, folder: Path, key: str, writer: str = "main") -> None:
        self.key = key
        self.blocks = read_blocks(folder, key=key)
        self.path = folder / JOURNAL / f"{writer}.jsonl"
        with faults(f"cannot write {self.path}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_to_append(self.path)
            whole = self._file.truncate(read_plain(self.path).rfind(b"\n") + 1)  # without a torn last line
        self._synced = time.monotonic()
        if not whole:
            self._write(_line({"schema": SCHEMA, "key": key}))

    def append(self, block: Block) -> None:
        """Remember a block; raises `RunError` when it cannot be written."""
        self._write(encode(block))
        self.blocks.put(block)

    def tail(self) -> "JournalTail":
        """What others write into the journal beside this writer."""
        return JournalTail(self.path.parent.parent, self.key, self.path)

    def distrust(self) -> None:
        """Remember for good that replays were found wrong."""
        self._write(_line(DISTRUST))
        self.blocks.distrust()

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        with faults(f"cannot write {self.path}"):
            while left:
                left = left[self._file.write(left) :]
        if time.monotonic() - self._synced > SYNC:
            self.sync()

    def sync(self) -> None:
        """Make what was written reach the disk; raises `RunError` where the file has been removed meanwhile."""
        with faults(f"cannot write {self.path}"):
            os.fsync(self._file.fileno())
            self.path.stat()  # a file without a name can still be written to, and nobody would find it
        self._synced = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            self._file.close()


def key_of(conditions: Mapping[str, Any]) -> str:
    """The hash of everything that decides scores.

    >>> key_of({"threads": 1, "device": "cpu"}) == key_of({"device": "cpu", "threads": 1})
    True
    """
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()


def set_aside(journal: Path) -> None:
    """Rename a journal's folder to the first free `journal.N` beside it."""
    if not journal.exists():
        return
    with faults(f"cannot set {journal} aside"):
        journal.rename(unused(journal))


def repair(folder: Path) -> list[str]:
    """Leave broken lines out of every file, keeping the old as `NAME.jsonl.damaged` (`.damaged.1`, …); says so.
    One whose first line is broken is set aside whole, since nobody can tell what its scores belong to."""
    sentences = []
    for path in journal_files(folder):
        with faults(f"cannot repair {path}"):
            lines = dict(enumerate(read_plain(path).splitlines(keepends=True), start=1))
            broken = [number for number, line in lines.items() if not _is_sound(line)]
            if not broken or (broken == [len(lines)] and _is_torn(lines[len(lines)])):
                continue
            path.rename(unused(path.with_name(f"{path.name}.damaged")))
            if 1 not in broken:
                path.write_bytes(b"".join(line for number, line in lines.items() if number not in broken))
        damaged = "1 damaged line" if len(broken) == 1 else f"{len(broken)} damaged lines"
        sentences.append(f"{path}: left out {damaged} ({', '.join(map(str, broken[:10]))})")
    return sentences


def _is_sound(line: bytes) -> bool:
    try:
        _content_of(line)
    except ValueError:
        return False
    return True


class JournalTail:
    """What is new in a run's journal files since the last look, `own` left out."""

    def __init__(self, folder: Path, key: str, own: Path) -> None:
        self._folder, self._key, self._own = folder, key, own
        self._read: dict[Path, tuple[int, int]] = {}

    def look(self) -> Iterator[Block | None]:
        """New blocks; None where a writer found that replays cannot be trusted. Raises as `read_blocks` does."""
        for path in journal_files(self._folder):
            if path == self._own:
                continue
            offset, count = self._read.get(path, (0, 0))
            with faults(f"cannot read {path}"), open_plain(path) as file:
                file.seek(offset)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]  # a line that is still being written is left for the next look
            lines = whole.splitlines(keepends=True)
            self._read[path] = (offset + len(whole), count + len(lines))
            yield from _read_lines(path, lines, self._key, first=count + 1)
