"""Progress for programs (`--progress json`): a line of JSON on stderr, once a second at most."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from ckptswap.cli.terminal import Terminal
from ckptswap.messages import Progress

SCHEMA = "ckptswap.progress/1"
PAUSE = 1.0  # seconds between two lines; the first and the last come whenever they are due


class ProgressLines(Terminal):
    """Tells people the same as ever, and how far the work is as JSON."""

    def progress(self, what: str, *, unit: str = "") -> AbstractContextManager[Progress]:
        return nullcontext(Lines(what, unit.strip() or "bytes"))


class Lines:
    """Writes how far one piece of work is, as `docs/schemas/progress.schema.json` says."""

    def __init__(self, work: str, unit: str) -> None:
        self._work, self._unit = work, unit
        self._start, self._told = time.monotonic(), float("-inf")
        self._begun: int | None = None
        self._last: int | None = None

    def __call__(self, done: int, total: int | None, remark: str = "", below: Sequence[str] = ()) -> None:
        now = time.monotonic()
        self._begun = done if self._begun is None else self._begun
        if done == self._last or (done != total and now - self._told < PAUSE):
            return
        self._last, self._told = done, now
        elapsed = now - self._start
        line = {
            "schema": SCHEMA,
            "work": self._work,
            "unit": self._unit,
            "done": done,
            "total": total,
            "elapsed_s": round(elapsed, 3),
            "left_s": _left(elapsed, done - self._begun, done, total),
            "remark": remark,
            "lines": list(below),
        }
        with suppress(OSError):
            print(json.dumps(line), file=sys.stderr, flush=True)


def _left(elapsed: float, achieved: int, done: int, total: int | None) -> float | None:
    """Seconds to go at the speed so far; None before anything was done, or without an end."""
    if total is None or (achieved == 0 and done < total):
        return None
    return round(elapsed * (total - done) / achieved, 3) if achieved else 0.0
