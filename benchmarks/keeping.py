"""What benchmarks measured, kept in `measured/`: a JSON file for each, from which `table.py` makes its table.

A figure that is measured again takes the place of the one before; the others stay, with their date and machine.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ckptswap.cores import usable_cores

MEASURED = Path(__file__).with_name("measured")
LIBRARIES = ("torch", "numpy", "numba", "safetensors")


@dataclass(frozen=True)
class Figure:
    """One line of the table: `work` `against` a peer in the same run, and between what bounds it is to stay."""

    benchmark: str
    work: str
    against: str
    value: float
    unit: str
    least: float | None
    most: float | None
    date: str
    machine: str

    @property
    def holds(self) -> bool | None:
        """Whether it is as it is to be; None where nothing is asked."""
        bounds = [self.least is None or self.value >= self.least, self.most is None or self.value <= self.most]
        return None if self.least is self.most is None else all(bounds)

    @property
    def shown(self) -> str:
        """The value with its unit."""
        return f"{self.value:.{max(0, 3 - len(str(int(self.value))))}f}{self.unit}"

    @property
    def hold(self) -> str:
        """What is asked of it, in a word."""
        if self.least is not None:
            return f"≥ {self.least:g}{self.unit}"
        return "" if self.most is None else f"≤ {self.most:g}{self.unit}"


def keep(
    script: str,
    work: str,
    against: str,
    value: float,
    *,
    least: float | None = None,
    most: float | None = None,
    unit: str = "",
) -> None:
    """Keep what `script` (its `__file__`) measured; `unit` is what stands behind the number, such as " MB"."""
    name = Path(script).stem
    now = datetime.now(UTC).date().isoformat()
    new = Figure(name, work, against, float(f"{value:.4g}"), unit, least, most, now, machine())
    figures = {(each.work, each.against): each for each in kept(name)} | {(work, against): new}
    MEASURED.mkdir(exist_ok=True)
    lines = json.dumps([asdict(figure) for figure in figures.values()], indent=1, ensure_ascii=False)
    (MEASURED / f"{name}.json").write_text(lines + "\n", "utf-8")


def kept(name: str) -> list[Figure]:
    """The figures of one benchmark, in the order in which they were first kept."""
    path = MEASURED / f"{name}.json"
    return [Figure(**each) for each in json.loads(path.read_text("utf-8"))] if path.exists() else []


def machine() -> str:
    """Processor, cores, memory and versions: what the figures hang on beside the code."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    there = [f"{name} {found}" for name in LIBRARIES if (found := _version(name))]
    python = f"Python {platform.python_version()}"
    return ", ".join([_processor(), f"{usable_cores()} cores", f"{memory:.0f} GB", system, python, *there])


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
