"""Facts about this installation and machine: what decides how fast we are, and the last bits of a score."""

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import get_args

from ckptswap.registry import Group, is_ours, plugins

Facts = dict[str, str | int | None]
_REQUIREMENT = re.compile(r"""([\w.-]+)(\[)?[^;]*(?:;.*extra == ["']([\w-]+)["'])?""")
"""A package's name, whether it asks for extras of it, and the extra of ours that wants it."""


def examine() -> dict[str, Facts]:
    """Versions, machine, extras, and what installed packages add; a package that is not there has None.

    >>> sorted(examine())
    ['extras', 'machine', 'plugins', 'versions']
    """
    requirements = [match.groups() for match in map(_REQUIREMENT.match, requires("ckptswap") or ()) if match]
    needed = [name for name, _, extra in requirements if extra is None]
    bundles = {extra for _, bracket, extra in requirements if bracket}
    versions: Facts = {"ckptswap": _version("ckptswap"), "python": platform.python_version()}
    return {
        "versions": versions | {name: _version(name) for name in needed},
        "machine": _machine(),
        "extras": {extra: _version(name) for name, _, extra in requirements if extra and extra not in bundles},
        "plugins": _plugins(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plugins() -> Facts:
    """What installed packages register, and from which package; a name of ours is never theirs."""
    facts: Facts = {}
    for group in get_args(Group):
        for name, point in plugins(group).items():
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            facts[f"{group} {name}"] = f"{package} (not used: we have one)" if is_ours(group, name) else package
    return facts


def _machine() -> Facts:
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
