"""Work that is no sweep: units, each a call of one function, done by the workers of any executor.

A unit keeps what it makes itself; nothing of it passes through the executor. Beside the order lies a file for each
unit, which says how far it is, and whether it has failed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckptswap.errors import CkptswapError, RunError, Stopped
from ckptswap.formats.atomic import write_text
from ckptswap.records import from_json
from ckptswap.registry import load
from ckptswap.sweep.run_folder.plain import read_plain
from ckptswap.sweep.run_folder.sealed import plain_json, unsealed
from ckptswap.sweep.stopping import Stop
from ckptswap.sweep.worker_spec import Order, WorkerSpec, new_token, parsed_worker_spec, places

PULSE = 0.5
"""Seconds between two times that a unit says how far it is."""

Tell = Callable[[float, str], None]
"""Called by a unit with how far it is, and what it is at."""
Function = Callable[[Any, Tell, Stop], None]
"""A unit's work, from its arguments. It looks at `Stop` now and then; a `CkptswapError` is the unit's failure."""
Progress = Callable[[int, float, str], None]
"""Called with the number of a unit, how far it is, and what it is at."""


@dataclass(frozen=True)
class Units(Order):
    """An order for several units: `does` is `package.module:function`, called with one of `arguments` each."""

    does: str
    arguments: tuple[Any, ...]
    folder: str
    threads: int = 1
    device: str = "cpu"
    token: str = field(default_factory=new_token)
    cwd: str = field(default_factory=os.getcwd)
    places: tuple[str, ...] = field(default_factory=places)

    def news_of(self, unit: int) -> Path:
        """Where a unit says how far it is."""
        return self.path.with_name(f"{self.token}-{unit}.news")


def read_order(path: str | os.PathLike[str], seal: str) -> Units | WorkerSpec:
    """Read the order of this checksum; raises `RunError` when it is missing, damaged or another."""
    try:
        contents = unsealed(read_plain(Path(path)), seal=seal)
        return from_json(Units, contents) if "does" in contents else parsed_worker_spec(contents)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no order for a worker ({error})", remedy="run the same command again") from None


# In a worker -----------------------------------------------------------------------------------------------------


def work_on_unit(order: Units, unit: int, stop: Stop) -> None:
    """Do one unit, and keep its failure where the parent finds it. Raises `Stopped` where that was asked for."""
    sys.path += [place for place in order.places if place not in sys.path]
    os.chdir(order.cwd)
    news = _News(order.news_of(unit))
    fault = None
    try:
        load(order.does)(order.arguments[unit], news, stop)
    except Stopped:
        raise
    except CkptswapError as error:
        fault = str(error)
    news.write(fault=fault)


class _News:
    """Says how far a unit is, not more often than anybody looks."""

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 0.0

    def __call__(self, done: float, what: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PULSE
            self.write(done=done, what=what)

    def write(self, **news: Any) -> None:
        write_text(self._path, json.dumps(news))


# In the parent ---------------------------------------------------------------------------------------------------


class UnitReader:
    """How far the units of an order are, as they say themselves; `ended` has why a unit failed, or None."""

    def __init__(self, order: Units, progress: Progress, stop: Stop) -> None:
        self._order, self._progress, self._stop = order, progress, stop
        self._read: dict[int, bytes] = {}
        self.ended: dict[int, str | None] = {}
        self.notes: list[str] = []

    def look(self) -> bool:
        """Take in what units say; whether any said something new."""
        return sum(self._look_at(unit) for unit in range(len(self._order.arguments))) > 0

    def _look_at(self, unit: int) -> bool:
        if unit in self.ended:
            return False
        try:
            raw = read_plain(self._order.news_of(unit))
            if raw == self._read.get(unit):
                return False
            news = plain_json(raw)
        except (OSError, ValueError):  # nothing yet
            return False
        self._read[unit] = raw
        if "fault" in news:
            self.ended[unit] = news["fault"]
        else:
            self._progress(unit, news["done"], news["what"])
        return True

    def check(self) -> None:
        """Raises `Stopped` once that is asked for."""
        self._stop.check(f"{len(self.ended)} of {len(self._order.arguments)} units are done")

    def note(self, text: str) -> None:
        """Keep what the user should be told at the end."""
        self.notes.append(text)
