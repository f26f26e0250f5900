"""Reading a journal while others write it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder.journal import faults, journal_files, read_lines
from ckptswap.sweep.run_folder.plain import open_plain


class JournalTail:
    """What is new in a run's journal files since the last look, `own` left out.

    Where a file begins and ends plays no part: a line that is still being written is left for the next look.
    """

    def __init__(self, folder: Path, key: str, own: Path) -> None:
        self._folder, self._key, self._own = folder, key, own
        self._read: dict[Path, tuple[int, int]] = {}

    def look(self) -> Iterator[Block | None]:
        """New blocks, file by file; None where a writer found that replays cannot be trusted.

        Raises `RunError` where a line is damaged, or a file was written under another key.
        """
        for path in journal_files(self._folder):
            if path != self._own:
                yield from self._look_into(path)

    def _look_into(self, path: Path) -> Iterator[Block | None]:
        offset, count = self._read.get(path, (0, 0))
        with faults(f"cannot read {path}"), open_plain(path) as file:
            file.seek(offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        self._read[path] = (offset + len(whole), count + len(lines))
        yield from read_lines(path, lines, self._key, first=count + 1)
