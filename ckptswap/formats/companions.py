"""The other files of a checkpoint's folder: the configuration, the tokenizer, whatever else opens the weights."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import listing

WEIGHTS = (
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".h5", ".msgpack", ".ot", ".gguf", ".onnx",
    ".onnx_data", ".pb", ".tflite", ".index.json",
)  # fmt: skip
"""Endings of files with tensors in them, or about such: the old ones do not go with the new."""
SIZE_MOST = 64 << 20  # the largest file that goes along, in bytes: some tokenizers have 30 MB
COUNT_MOST = 50  # the most files in a folder that goes along


@dataclass(frozen=True)
class Companion:
    """A file to take along: where its bytes are, and its place in the folder."""

    source: Path
    place: Path


@dataclass(frozen=True)
class Companions:
    """What goes with a checkpoint's folder, and the places of what does not: other weights, links that lead out.

    A target that is not a folder takes nothing.
    """

    taken: tuple[Companion, ...] = ()
    left: tuple[str, ...] = ()

    def staying(self, *, into_folder: bool) -> list[str]:
        """The places of what is not taken along."""
        return [*(() if into_folder else (str(file.place) for file in self.taken)), *self.left]


def companions(checkpoint: Checkpoint) -> Companions:
    """The other plain files in a checkpoint's folder and in the folders in it, hidden ones not counted.

    A link is followed to a file in the same folder, or in the cache of Hugging Face that the folder is a part of:
    any other may lead to what nobody meant to give away. What is too large or too much for a configuration (data,
    logs of a project that lives in the same folder) is left.
    """
    if checkpoint.home is None:
        return Companions()
    folder = checkpoint.home.folder
    own = {os.path.abspath(path) for path in checkpoint.files}
    homes = _homes(folder)
    taken, left = [], []
    for path in _files(folder):
        if os.path.abspath(path) in own:
            continue
        place = path.relative_to(folder)
        real = None if path.name.endswith(WEIGHTS) else _within(path, homes)
        if real is not None:
            taken.append(Companion(real, place))
        else:
            left.append(f"{place}/" if path.is_dir() else str(place))
    return Companions(tuple(taken), tuple(left))


def stays(path: Path) -> bool:
    """Whether a file of a folder lies there, or in the cache that the folder is a part of, also behind a link."""
    return _within(path, _homes(path.parent)) is not None


def left_behind(source: Checkpoint, target: str | os.PathLike[str]) -> list[str]:
    """What a checkpoint holds that is not written when it is converted, a sentence each."""
    files = companions(source).staying(into_folder=os.fspath(target).endswith("/"))
    left = {"what lies beside the tensors is not written": source.beside,
            "these files beside the weights are not taken along": files}  # fmt: skip
    return [f"{source.path}: {what}: {listing(names)}" for what, names in left.items() if names]


def _homes(folder: Path) -> list[Path]:
    """The folder, and the `blobs` of the cache that it is a snapshot of: a folder there, no link elsewhere."""
    here = folder.resolve()
    blobs = here.parents[1] / "blobs" if len(here.parents) > 1 else here
    return [here, blobs] if here.parent.name == "snapshots" and blobs.resolve() == blobs else [here]


def _within(path: Path, homes: Iterable[Path]) -> Path | None:
    """The small file that a path leads to, where it lies in one of these folders."""
    with contextlib.suppress(OSError, RuntimeError):  # a link to itself
        real = path.resolve()
        if any(home in real.parents for home in homes) and real.is_file() and real.stat().st_size <= SIZE_MOST:
            return real
    return None


def _files(folder: Path, depth: int = 1) -> Iterator[Path]:
    """Its files in the order of their names, and those of the folders in it; a folder that is too full, too deep
    or closed to us as itself."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        inside = [path]
        with contextlib.suppress(OSError):
            if depth and path.is_dir() and not path.is_symlink() and len(os.listdir(path)) <= COUNT_MOST:
                inside = [*_files(path, depth - 1)]
        yield from inside


def take_along(taken: Iterable[Companion], folder: Path) -> None:
    """Copy files to their places in a new folder, as plain files."""
    for file in taken:
        target = folder / file.place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.source, target)
