"""What a result may not replace: checkpoints, and what a sweep remembers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ckptswap.errors import CkptswapError, FileError
from ckptswap.formats import open_checkpoint

PLAN = "plan.json"
_REMEMBERED = re.compile(r"(plan|samples|state)\.json|lock|(journal|orders)(\.\d+)?")
"""Files and folders of a run that nothing else can give again. A journal that was set aside has a number."""
_SCHEMA = b'"ckptswap.run/'
_HEAD = 400
"""Bytes of a plan within which its schema stands."""


def refuse_precious(path: str | os.PathLike[str]) -> None:
    """Raises `FileError` where a result would replace a checkpoint, such as the one that it is about, or what a
    sweep remembers.

    That is `plan.json`, `samples.json`, `state.json` and `lock` of a run folder, and whatever is or would be in
    its `journal/` and `orders/`. What is made of them (`result.json`, `result.html`, …) may be replaced.

    >>> import numpy as np, tempfile
    >>> from ckptswap.checkpoint import Checkpoint
    >>> from ckptswap.formats import write_checkpoint
    >>> folder = Path(tempfile.mkdtemp())
    >>> out = write_checkpoint(Checkpoint.from_arrays({"w": np.ones(2)}), folder / "a.safetensors")
    >>> refuse_precious(folder / "result.html")
    >>> refuse_precious(out)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ckptswap.errors.FileError: .../a.safetensors is a checkpoint: write the result elsewhere
    """
    if _is_checkpoint(path):
        raise FileError(f"{os.fspath(path)} is a checkpoint", remedy="write the result elsewhere")
    run = _run_that_remembers(Path(path))
    if run is not None:
        raise FileError(f"{os.fspath(path)} is a part of the run {run}", remedy="write the result elsewhere")


def _is_checkpoint(path: str | os.PathLike[str]) -> bool:
    try:
        open_checkpoint(path).close()
    except CkptswapError:
        return False
    return True


def _run_that_remembers(path: Path) -> Path | None:
    """The run folder of whose memory a path is a part. A link is judged by where it lies: it alone is replaced."""
    place = path.parent.resolve() / path.name
    parts = (part for part in (place, *place.parents) if _REMEMBERED.fullmatch(part.name))
    return next((part.parent for part in parts if _is_run(part.parent)), None)


def _is_run(folder: Path) -> bool:
    """Whether a sweep keeps its plan here. Where the plan is damaged, the journal beside it tells."""
    try:
        if not (folder / PLAN).is_file():  # a pipe would keep us waiting
            return False
        with open(folder / PLAN, "rb") as plan:
            return _SCHEMA in plan.read(_HEAD) or (folder / "journal").is_dir()
    except OSError:
        return False
