"""What workers are told, as a file: what is to be done, and its shards; and how work is divided.

A spec names code. A worker is therefore also told the spec's checksum, not by the folder but by whoever begins it,
and obeys no other.
"""

import heapq
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError
from ckptswap.formats.atomic import write_text
from ckptswap.records import Count, from_json, to_json
from ckptswap.sweep.run_folder.plain import SPECS, faults, read_plain
from ckptswap.sweep.run_folder.sealed import seal_of, sealed, unsealed


@dataclass(frozen=True)
class WorkerSpec:
    """Work for several workers in a folder, one a shard.

    `work` is `package.module:function`, called with the folder, `common`, the worker's shard, a name that no other
    life of a worker has, and a `Stop` to look at; `common` and the shards are JSON of its own. It raises
    `CkptswapError` where no other worker could do better. `threads` and `device` are what each of them needs.
    """

    token: str
    folder: str
    work: str
    common: Mapping[str, Any]
    shards: tuple[Any, ...]
    threads: Count = 1
    device: str = "cpu"

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return spec_path(Path(self.folder), self.token)

    @property
    def stop_file(self) -> Path:
        """A file beside it that asks all its workers to end."""
        return self.path.with_suffix(".stop")

    def write(self) -> None:
        """Write it to its path, atomically. Raises `RunError` where that cannot be."""
        with faults(f"cannot write {self.path}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, sealed(to_json(self)))

    @property
    def seal(self) -> str:
        """The checksum by which a worker knows it."""
        return seal_of(to_json(self))


def spec_path(folder: Path, token: str) -> Path:
    """Where the spec of this token is kept."""
    return folder / SPECS / f"{token}.json"


def read_worker_spec(path: str | os.PathLike[str], seal: str) -> WorkerSpec:
    """The spec of this checksum in a file; raises `RunError` when it is missing, damaged or another."""
    try:
        return from_json(WorkerSpec, unsealed(read_plain(Path(path)), seal=seal))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is no order for a worker ({error})", remedy="run the sweep again") from None


def divide(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Indices of `costs` in at most `parts` groups of nearly equal sums, none of them empty.

    The dearest first, each to whoever has least so far (Graham 1969: at most 4/3 of the best division), of equal
    ones to who has fewest.

    >>> divide([5, 1, 4, 2], 2)
    [[0, 1], [2, 3]]
    """
    heap = [(0.0, 0, part) for part in range(min(parts, len(costs)))]
    groups: list[list[int]] = [[] for _ in heap]
    for index in sorted(range(len(costs)), key=lambda at: -costs[at]):
        load, count, part = heapq.heappop(heap)
        groups[part].append(index)
        heapq.heappush(heap, (load + costs[index], count + 1, part))
    return [sorted(group) for group in groups]
