"""Facts about this installation and machine: what decides how fast we are, and the last bits of a score."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, requires, version

EXTRAS = {"demo": "nilearn"}
"""One package by which each extra is known to be installed."""


def examine() -> dict[str, dict[str, str | int | None]]:
    """Versions, machine and extras; a package that is not there has None.

    >>> sorted(examine())
    ['extras', 'machine', 'versions']
    """
    return {
        "versions": _versions(),
        "machine": _machine(),
        "extras": {name: _version(package) for name, package in EXTRAS.items()},
    }


def _versions() -> dict[str, str | int | None]:
    needed = [each.split(";")[0] for each in requires("ckptswap") or () if "extra ==" not in each]
    names = [next(part for part in _words(each)) for each in needed]
    return {
        "ckptswap": _version("ckptswap"),
        "python": platform.python_version(),
        **{name: _version(name) for name in names},
    }


def _words(requirement: str) -> list[str]:
    return [requirement.split(mark)[0].strip() for mark in (">=",) if mark in requirement] or [requirement]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, str | int | None]:
    import torch

    return {
        "torch build": torch.__version__,
        "system": platform.platform(),
        "python": sys.executable,
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cuda devices": torch.cuda.device_count(),
        "mps": str(torch.backends.mps.is_available()),
    }
