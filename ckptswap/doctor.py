"""Facts about this installation and machine: what decides how fast we are, and the last bits of a score."""

import io
import os
import platform
import re
import sys
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, get_args

from ckptswap import kernels
from ckptswap.cores import usable_cores
from ckptswap.registry import Group, is_ours, plugins
from ckptswap.waiting import how_threads_wait

Facts = dict[str, str | int | None]
BRINGS: Mapping[str, str] = {
    "datasets": "--data datasets:FOLDER",
    "demo": "ckptswap demo, ckptswap reproduce, --data lab:mni",
    "fast": "diff, and a sweep's distances, of large files in a fraction of the time",
    "formats": "files of GGUF, HDF5 (Keras) and ONNX",
    "hf": "folders of transformers' save_pretrained, hf:FOLDER, peft:ADAPTER, --data text:FILE",
    "metrics": "--metric torchmetrics:NAME",
    "pandas": "results as a DataFrame",
    "plot": "ckptswap plot",
    "ray": "--executor ray",
    "remote": "checkpoints at https://…, hf://ORG/NAME, s3://BUCKET/PATH",
    "slurm": "--executor slurm",
}
"""What one can type with each extra."""
_REQUIREMENT = re.compile(r"""([\w.-]+)(\[)?[^;]*(?:;.*extra == ["']([\w-]+)["'])?""")
"""A package's name, whether it asks for extras of it, and the extra of ours that wants it."""


def examine() -> dict[str, dict[str, Any]]:
    """Versions, machine, extras, and what installed packages add; a package that is not there has None.

    An extra's `state` is `works` where all its packages could be imported just now, `missing` where one is not
    installed, else `broken`, with the `fault`.

    >>> sorted(examine())
    ['extras', 'machine', 'plugins', 'versions']
    """
    requirements = [match.groups() for match in map(_REQUIREMENT.match, requires("ckptswap") or ()) if match]
    needed = [name for name, _, extra in requirements if extra is None]
    bundles = {extra for _, bracket, extra in requirements if bracket}
    versions: Facts = {"ckptswap": _version("ckptswap"), "python": platform.python_version()}
    extras: dict[str, list[str]] = {}
    for name, _, extra in requirements:
        if extra and extra not in bundles:
            extras.setdefault(extra, []).append(name)
    return {
        "versions": versions | {name: _version(name) for name in needed},
        "machine": _machine(),
        "extras": {extra: _extra(extra, packages) for extra, packages in sorted(extras.items())},
        "plugins": _plugins(),
    }


def _extra(extra: str, packages: list[str]) -> dict[str, Any]:
    """What an extra needs, whether it works, what it is good for, and how it comes in."""
    versions = {name: _version(name) for name in packages}
    faults = [fault for name in packages if versions[name] and (fault := _fault(name))]
    state = "missing" if None in versions.values() else "broken" if faults else "works"
    return {
        "state": state,
        "packages": versions,
        "fault": faults[0] if faults else None,
        "brings": BRINGS.get(extra),
        "install": f"pip install 'ckptswap[{extra}]'",
    }


def _fault(package: str) -> str | None:
    """Why a package cannot be imported; None where it can. What it prints meanwhile is nobody's."""
    os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")  # else importing submitit sets up logging
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere), warnings.catch_warnings(action="ignore"):
            import_module(package.replace("-", "_"))
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {words[0]}"
    return None


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
        "usable cores": usable_cores(),
        "waiting threads": how_threads_wait() or "spin, unless their library is told otherwise",
        "loops over bytes": kernels.made_by(),
        "torch threads": torch.get_num_threads(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "cuda devices": torch.cuda.device_count(),
        "mps": str(torch.backends.mps.is_available()),
    }
