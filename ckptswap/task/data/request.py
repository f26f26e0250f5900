"""What a source of data is told of the task beside its own arguments, and what it finds by that. No torch."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import DataError, FileError, UsageError, near
from ckptswap.plainfiles import read_plain
from ckptswap.task.models import hf
from ckptswap.task.spec import TaskSpec

CONFIG_MOST = 10_000_000


@dataclass(frozen=True)
class DataRequest:
    """The task, and the folder in which the checkpoint lies that is scored; None where it is in memory."""

    spec: TaskSpec
    folder: Path | None = None

    def home(self) -> Path | None:
        """The folder of the model: the one that `--model hf:FOLDER` names, or the checkpoint's own. Raises
        `ModelError` where that folder is none of a model."""
        kind, _, place = (self.spec.model or "").partition(":")
        return hf.config_in(place).parent if kind == "hf" and place else self.folder

    def configuration(self, name: str = "config.json") -> dict[str, Any]:
        """What a JSON file in the model's folder says; nothing where there is none."""
        home = self.home()
        if home is None or not (home / name).is_file():
            return {}
        try:
            content = json.loads(read_plain(home / name, CONFIG_MOST))
        except (FileError, ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}


def folder_of(checkpoint: Checkpoint) -> Path | None:
    """The folder in which a checkpoint lies, or which it is.

    >>> folder_of(Checkpoint.from_arrays({})) is None
    True
    """
    if checkpoint.home is not None:
        return checkpoint.home.folder
    place = Path(checkpoint.path.partition("::")[0])
    if place.is_dir():
        return place
    return place.parent if place.is_file() else None


def refuse_unknown(args: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """Raises `UsageError` for an argument that a source does not take."""
    unknown = next((name for name in args if name not in known), None)
    if unknown is not None:
        takes = ", ".join(known)
        remedy = near(unknown, known) or (f"it takes {takes}" if takes else "it takes none")
        raise UsageError(f"{what} takes no --data-args {unknown}", remedy=remedy)


def whole(args: Mapping[str, Any], name: str, default: int | None, what: str) -> int | None:
    """An argument that is a whole number, 1 or more."""
    value = args.get(name, default)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise DataError(f"{name} of {what} is {value!r}", remedy="it must be a whole number, 1 or more")
    return value
