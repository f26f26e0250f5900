"""What a result may not replace: checkpoints, what a sweep remembers, and whatever is not an export of ours."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ckptswap.errors import CkptswapError, FileError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.atomic import is_stream
from ckptswap.plainfiles import open_plain, refuse_elsewhere
from ckptswap.sweep.run_folder.plain import FORMATS, JOURNAL, LOCK, PLAN, SAMPLES, SPECS, STATE

REMEMBERED = (PLAN, SAMPLES, STATE, LOCK)
RESULTS = tuple(f"result.{form}" for form in FORMATS)
_REMEMBERED = re.compile(rf"{'|'.join(map(re.escape, REMEMBERED))}|({JOURNAL}|{SPECS})(\.\d+)?")
"""Files and folders of a run that nothing else can give again. A journal that was set aside has a number."""
_SCHEMA = b'"ckptswap.run/'
_LOOKED_AT = 4096  # bytes at a file's two ends in which it says what it is
_ABOVE = rb"(?:(?:[^#|\n][^\n]{0,400})?\n){0,8}"
"""Lines above a table in Markdown: paths, sums. No heading: a person's document may hold a table of ours."""
_EXPORT = re.compile(
    rb'\s*\{[^{}\[\]]{0,300}"schema": "ckptswap\.(?!run/)'
    rb'|\s*\{\s*"versions": \{\s*"ckptswap"'
    rb'|(?s:.*)<meta name="generator" content="ckptswap">'
    rb"|(?:name|rank|taken|tensors),layer,(?:block,(?:last_block,)?)?kind,"
    rb"|layer,(?:block,)?kind,(?:status|tensor),|quantity,metric,a,b,"
    rb"|\*\*[^*\n]{1,200}\*\* \((?:higher|lower) is better\): baseline |(?:" + _ABOVE + rb")\| (?:"
    rb"(?:name|rank|taken|tensors) \| layer \| (?:block \| )?kind|layer \| (?:block \| )?kind \| status"
    rb"|quantity \| metric) \|"
    rb"|% ckptswap: "
    rb"|\x89PNG(?s:.*)Software\x00ckptswap|<\?xml(?s:.*)<dc:title>ckptswap<|%PDF-(?s:.*)/Creator \(ckptswap\)"
)
"""How exports begin: JSON, HTML, csv and Markdown by their columns, LaTeX and pictures by whom they name."""


def refuse_precious(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Raises `FileError` where a result would replace a checkpoint, or what a sweep remembers in its folder; and
    unless `force` says so, whatever else is not a result.

    >>> import tempfile
    >>> mine = Path(tempfile.mkdtemp(), "notes.txt")
    >>> _ = mine.write_text("mine")
    >>> refuse_precious(mine)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ckptswap.errors.FileError: .../notes.txt exists already, and is not known to be a result of ckptswap's: ...
    """
    if is_stream(path):
        return
    refuse_elsewhere(path)
    try:
        open_checkpoint(path).close()
    except CkptswapError:
        pass
    else:
        raise FileError(f"{os.fspath(path)} is a checkpoint", remedy="write the result elsewhere")
    run = _run_that_remembers(Path(path))
    if run is not None:
        raise FileError(f"{os.fspath(path)} is a part of the run {run}", remedy="write the result elsewhere")
    if not force and os.path.isfile(path) and not is_export(path):
        raise FileError(
            f"{os.fspath(path)} exists already, and is not known to be a result of ckptswap's",
            remedy="write elsewhere, or replace it with --force",
        )


def is_export(path: str | os.PathLike[str]) -> bool:
    """Whether a file is empty, or says itself that it is a result of ours. A table for the terminal does not."""
    try:
        with open(open_plain(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_LOOKED_AT)
            file.seek(max(0, size - _LOOKED_AT))
            return size == 0 or _EXPORT.match(head + file.read(_LOOKED_AT)) is not None
    except (CkptswapError, OSError):
        return False


def refuse_occupied(folder: Path, *, run: Iterable[str] = REMEMBERED, results: Iterable[str] = RESULTS) -> None:
    """Raises `FileError` where a new run in a folder that is not one would replace a person's own files.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "result.csv").write_text("mine")
    >>> refuse_occupied(folder)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ckptswap.errors.FileError: .../result.csv is in the way, and is not a run's: use another folder...
    """
    # Less readily than by `_is_run`: a person may have a `plan.json` and a `journal/`.
    if _SCHEMA in _head(folder / PLAN) or (_is_run(folder) and any((folder / JOURNAL).glob("*.jsonl"))):
        return
    own = [folder / name for name in run if not (name == LOCK and b'"token"' in _head(folder / name))]
    made = [folder / name for name in results if not is_export(folder / name)]
    for path in filter(os.path.lexists, (*own, *made)):  # a sweep that was killed early leaves its lock alone
        raise FileError(f"{path} is in the way, and is not a run's", remedy="use another folder, or move it away")


def _run_that_remembers(path: Path) -> Path | None:
    place = path.parent.resolve() / path.name  # a link is judged by where it lies: it alone is replaced
    parts = (part for part in (place, *place.parents) if _REMEMBERED.fullmatch(part.name))
    return next((part.parent for part in parts if _is_run(part.parent)), None)


def _is_run(folder: Path) -> bool:
    """Whether a sweep keeps its plan here. Where the plan is damaged, the journal beside it tells."""
    return os.path.isfile(folder / PLAN) and (_SCHEMA in _head(folder / PLAN) or (folder / JOURNAL).is_dir())


def _head(path: Path) -> bytes:
    try:
        with open(open_plain(path), "rb") as file:
            return file.read(_LOOKED_AT)
    except (CkptswapError, OSError):
        return b""
