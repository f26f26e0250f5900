"""What a notebook hears while a call works: notes as lines, and how far it is as one output, replaced in place.
Nothing grows, since a notebook keeps all that was ever printed.
"""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import Any

from ckptswap.messages import Listener, Progress, listens_otherwise
from ckptswap.report.text import safe
from ckptswap.sweep.stopping import on_signals

PATIENCE, PAUSE = 1.0, 0.5  # seconds before a bar appears, and between two states of it


def listens_in_notebooks() -> None:
    """Let a notebook hear what calls tell; elsewhere nothing is done, and nothing of IPython imported."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and hasattr(shell, "kernel"):
        listens_otherwise(Notebook())


class Notebook(Listener):
    """Prints lines, and displays bars."""

    def note(self, text: str) -> None:
        print(f"note: {safe(text)}")

    def warn(self, text: str) -> None:
        print(f"warning: {safe(text)}")

    def say(self, text: str) -> None:
        print(safe(text))

    def progress(self, what: str, *, unit: str = "") -> AbstractContextManager[Progress]:
        return ReplacedBar(what, unit)

    def stopping(self) -> AbstractContextManager[Any]:
        """By the button that interrupts the kernel, after the block in hand."""
        in_main = threading.current_thread() is threading.main_thread()
        return on_signals(signal.SIGINT, silent=True) if in_main else nullcontext()


class ReplacedBar:
    """One output of a cell, once the work takes more than a second; it is gone when the work is done."""

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit
        self._start = self._told = time.monotonic()
        self._begun: int | None = None
        self._output: Any = None

    def __enter__(self) -> "ReplacedBar":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._output is not None:
            self._output.update({"text/plain": "", "text/html": ""}, raw=True)

    def __call__(self, done: int, total: int | None, remark: str = "", below: Sequence[str] = ()) -> None:
        now = time.monotonic()
        self._begun = done if self._begun is None else self._begun
        if now - self._start < PATIENCE or (self._output is not None and now - self._told < PAUSE):
            return
        self._told = now
        head = f"{self.what}: {done:,}{self._outlook(done, total, now - self._start)} {safe(remark)}".rstrip()
        self._show(self._page(head, done, total, below), head)

    def _outlook(self, done: int, total: int | None, elapsed: float) -> str:
        if total is None:
            return self.unit
        achieved = done - (self._begun or 0)
        left = f", about {elapsed * (total - done) / achieved:.0f} s left" if achieved else ""
        return f" of {total:,}{self.unit}{left}"

    def _page(self, head: str, done: int, total: int | None, below: Sequence[str]) -> str:
        bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
        return "<br>".join([f"{bar}{escape(head)}", *(escape(safe(line)) for line in below)])

    def _show(self, page: str, text: str) -> None:
        from IPython.display import display

        shown = {"text/plain": text, "text/html": page}
        if self._output is None:
            self._output = display(shown, raw=True, display_id=True)
        else:
            self._output.update(shown, raw=True)
