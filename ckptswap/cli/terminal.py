"""Where output goes: the result to stdout, everything else to stderr, progress too."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from ckptswap.messages import Listener, Progress, listener
from ckptswap.report.text import Style, safe
from ckptswap.shell import joined
from ckptswap.sweep.stopping import on_signals

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress as Bar

PATIENCE = 1.0  # seconds of silence before a progress bar appears
PIECE = 1 << 20  # letters written at once
NEWS = 60.0  # seconds between two lines of progress where there is no terminal to draw a bar on


def style(out: str | None = None, *, ascii: bool = False, width: int | None = None) -> Style:
    """How to draw on stdout: its width, and colour only on a terminal without NO_COLOR. A pipe or a file has whole
    lines, unless COLUMNS or `width` says how wide they are to be."""
    terminal = out is None and sys.stdout.isatty()
    is_bounded = terminal or width is not None or "COLUMNS" in os.environ
    width = (width or shutil.get_terminal_size((80, 24)).columns) if is_bounded else 80
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return Style(
        width=max(40, width),
        colour=terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
        ascii=ascii or (out is None and "utf" not in encoding.lower()),
        whole=not is_bounded,
    )


def emit(text: str, out: str | None = None) -> None:
    """The result: to stdout, or atomically into a file."""
    if out is None:
        for at in range(0, len(text), PIECE):  # encoded whole, a long text takes its memory twice
            sys.stdout.write(text[at : at + PIECE])
        sys.stdout.write("" if text.endswith("\n") else "\n")
        sys.stdout.flush()
        return
    from ckptswap.formats.atomic import put

    put((text if text.endswith("\n") else f"{text}\n").encode("utf-8"), out)


def command_line() -> str:
    """What the user typed, quoted for a shell."""
    return joined(["ckptswap", *sys.argv[1:]])


def say(text: str) -> None:
    """A line for people, which --quiet keeps back."""
    listener().say(text)


def complain(text: str) -> None:
    """A line on stderr, whatever was asked for: an error. The work goes on where that is full."""
    with suppress(OSError):
        print(safe(text), file=sys.stderr, flush=True)


class Quiet(Listener):
    """Nothing that the library tells is heard; Ctrl-C ends a sweep as elsewhere."""

    def stopping(self) -> AbstractContextManager[Any]:
        return on_signals(silent=True)


class Terminal(Listener):
    """What the library tells goes to stderr, a line each; a bar while somebody waits."""

    def note(self, text: str) -> None:
        complain(f"ckptswap: note: {text}")

    def warn(self, text: str) -> None:
        complain(f"ckptswap: warning: {text}")

    def say(self, text: str) -> None:
        complain(text)

    def progress(self, what: str, *, unit: str = "") -> AbstractContextManager[Progress]:
        return Meter(what, unit)

    def stopping(self) -> AbstractContextManager[Any]:
        return on_signals()


class Meter:
    """A bar on a terminal once the work takes more than a second; elsewhere a line now and then, for a log."""

    def __init__(self, what: str, unit: str = "") -> None:
        self.what, self.unit = what, unit
        self._start = self._told = time.monotonic()
        self._begun: int | None = None
        self._bar: Bar | None = None
        self._live: Live | None = None
        self._task: Any = None

    def __call__(self, done: int, total: int | None, remark: str = "", below: Sequence[str] = ()) -> None:
        """`remark` stands behind the bar, `below` are lines under it, of which a log has the first two."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = done
        if sys.stderr.isatty():
            if self._bar is None and now - self._start > PATIENCE:
                self._open(total)
            if self._bar:
                self._bar.update(self._task, completed=done, total=total, remark=remark, below=below)
        elif now - self._told > NEWS:
            self._told = now
            remarks = f"{remark} {'; '.join(below[:2])}".strip()
            complain(f"{self.what}: {done}{self._outlook(done, total, now)} {remarks}".rstrip())

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._live:
            self._live.stop()
            self._live = self._bar = None

    def _outlook(self, done: int, total: int | None, now: float) -> str:
        if total is None:
            return self.unit
        left = (now - self._start) * (total - done) / max(done - (self._begun or 0), 1)
        return f" of {total}{self.unit}, about {left:.0f} s left"

    def _open(self, total: int | None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
        from rich.progress import TimeRemainingColumn as Remaining

        is_long = total is not None and total >= 1_000_000
        counted = TextColumn("{task.percentage:>3.0f} %") if is_long else MofNCompleteColumn()
        name, remark = TextColumn("{task.description}"), TextColumn("{task.fields[remark]}")
        columns = [name, BarColumn(None), counted, TimeElapsedColumn(), TextColumn("eta"), Remaining(), remark]
        self._bar = Bar(*columns)
        self._task = self._bar.add_task(self.what, total=total, remark="", below=())
        # stdout is not rich's to replace and put back: threads that read data put it aside meanwhile.
        console = Console(stderr=True)
        self._live = Live(get_renderable=self._view, console=console, transient=True, redirect_stdout=False)
        self._live.start(refresh=True)

    def _view(self) -> "Group":
        """The bar, and under it the lines that the work tells of itself."""
        from rich.console import Group
        from rich.text import Text

        assert self._bar is not None
        lines = (line for task in self._bar.tasks for line in task.fields["below"])
        texts = (Text(f"  {safe(line)}", overflow="ellipsis", no_wrap=True) for line in lines)
        return Group(self._bar, *texts)
