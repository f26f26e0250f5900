"""Waiting for what another process does: generous, since a pass must not depend on time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Returns once `holds()`; raises TimeoutError, which says `what` was awaited, after `seconds`."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(0.05)


def lines(diary: Path) -> list[str]:
    """What jobs have written so far; nothing where none has yet."""
    return diary.read_text("utf-8").splitlines() if diary.exists() else []


def note(diary: Path, line: str) -> None:
    """Adds a line in one write, so that a reader never sees half of it."""
    with diary.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
