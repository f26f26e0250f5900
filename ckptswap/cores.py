"""How many cores this process may use: of those of the machine what its affinity and a container's quota leave."""

import math
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """How many threads can compute at once; a quota of one and a half cores feeds two. `root` holds `proc` and the
    control groups' file systems.

    >>> 1 <= usable_cores() <= os.cpu_count()
    True
    """
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    return max(1, math.ceil(min(allowed, _quota(root))))


@cache
def _quota(root: Path) -> float:
    """The cores' worth of time of the strictest control group; infinite without any."""
    return min(_quotas(root), default=math.inf)


def _quotas(root: Path) -> Iterator[float]:
    """The cores' worth of time that each control group around this process allows, where one is limited."""
    for group in _groups(root):
        try:
            if (group / "cpu.max").exists():  # version 2
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and float(quota) > 0:
                yield float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):  # the uppermost group has no such files
            continue


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups that this process is in and that share out time, with all above them."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
        members = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):  # not on Linux
        return
    fields = (line.split(":", 2) for line in members)
    paths = {name: path for _, names, path in fields for name in names.split(",")}
    for line in mounts:
        [*_, top, place], (kind, _, options) = line.split(" - ")[0].split()[:5], line.split(" - ")[1].split()[:3]
        name = {"cgroup": "cpu", "cgroup2": ""}.get(kind)
        if name is None or name not in paths or (name and name not in options.split(",")):
            continue
        mounted = root / place.lstrip("/")
        below = os.path.relpath(paths[name], top)
        inner = mounted if below.startswith("..") else mounted / below
        yield from (group for group in (inner, *inner.parents) if group.is_relative_to(mounted))
