"""What a worker is told: paths and specs, no tensors, as a file in the run's folder; and how work is divided.

An order names code. A worker is therefore also told the order's checksum, not by the folder but by whoever begins
it, and obeys no other.
"""

from __future__ import annotations

import heapq
import os
import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import RunError
from ckptswap.formats.atomic import write_text
from ckptswap.scoring.calibration import Calibration
from ckptswap.scoring.variant import Variant
from ckptswap.sweep.donors import MADE
from ckptswap.sweep.run_folder.journal import faults, key_of
from ckptswap.sweep.run_folder.plain import read_plain
from ckptswap.sweep.run_folder.sealed import seal_of, sealed, unsealed
from ckptswap.task.spec import TaskSpec

if TYPE_CHECKING:
    from ckptswap.scoring.replay import How
    from ckptswap.sweep.runner import Sweep

ORDERS = "orders"
"""The folder of orders in a run's folder."""
Shard = tuple[Variant, ...]
"""What one worker scores."""


@dataclass(frozen=True)
class Named:
    """A checkpoint as a worker opens it: its absolute path, or the word by which it is made, and the names it goes
    by (the file's → ours).
    """

    path: str
    renames: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Named:
        path = checkpoint.path if checkpoint.format == MADE else os.path.abspath(checkpoint.path)
        return cls(path, dict(checkpoint.renames))


@dataclass(frozen=True)
class WorkerSpec:
    """Work for several workers under the conditions of `key`, in the run folder `folder`.

    `places` is where Python looks for the user's modules, `cwd` what the spec's relative paths start from.
    `calibrated_on` is the fingerprint of what `calibration` must give.
    """

    token: str
    folder: str
    key: str
    donors: tuple[Named, ...]
    recipient: Named
    spec: TaskSpec
    engine: How
    memory: int
    shards: tuple[Shard, ...]
    cwd: str
    places: tuple[str, ...]
    calibration: Calibration | None = None
    calibrated_on: str | None = None

    @property
    def path(self) -> Path:
        return order_path(Path(self.folder), self.token)

    def write(self) -> None:
        """Write it to its path, atomically. Raises `RunError` where that cannot be."""
        with faults(f"cannot write {self.path}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, sealed(asdict(self)))

    @property
    def seal(self) -> str:
        """The checksum by which a worker knows it."""
        return seal_of(asdict(self))


def make_worker_spec(proposal: Sweep, shards: Iterable[Shard] = ()) -> WorkerSpec:
    """What workers need to know to score these variants as this process would."""
    return WorkerSpec(
        token=new_token(),
        folder=str(proposal.folder.absolute()),
        key=key_of(proposal.conditions),
        donors=tuple(map(Named.of, proposal.donors)),
        recipient=Named.of(proposal.recipient),
        spec=proposal.task.spec,
        engine=proposal.runs_model.how,
        memory=proposal.runs_model.memory,
        shards=tuple(shards),
        cwd=str(Path.cwd()),
        places=places(),
        calibration=proposal.calibration,
        calibrated_on=proposal.plan.recalibration,
    )


def order_path(folder: Path, token: str) -> Path:
    """Where the order of this token is kept."""
    return folder / ORDERS / f"{token}.json"


def new_token() -> str:
    """A name for an order."""
    return secrets.token_hex(6)


def places() -> tuple[str, ...]:
    """Where this process looks for modules, as absolute paths."""
    return tuple(os.path.abspath(each) for each in sys.path)


def read_worker_spec(path: str | os.PathLike[str], seal: str) -> WorkerSpec:
    """The order of this checksum in a file; raises `RunError` when it is missing, damaged or another."""
    try:
        return parsed_worker_spec(unsealed(read_plain(Path(path)), seal=seal))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no order for a worker ({error})", remedy="run the sweep again") from None


def parsed_worker_spec(found: dict[str, Any]) -> WorkerSpec:
    """The order of which `asdict` made this; raises `KeyError`, `ValueError` or `TypeError` for anything else."""
    lists = {key: tuple(found["spec"].get(key, ())) for key in ("metrics", "exclude")}
    spec = {**found["spec"], **lists}
    shards = tuple(
        tuple(Variant(id, tuple(names), *rest) for id, names, *rest in shard) for shard in found["shards"]
    )
    sides = {
        "donors": tuple(Named(**each) for each in found["donors"]),
        "recipient": Named(**found["recipient"]),
    }
    calibration = Calibration(**found["calibration"]) if found["calibration"] else None
    rest = {"spec": TaskSpec(**spec), "shards": shards, "places": tuple(found["places"])}
    return WorkerSpec(**{**found, **sides, **rest, "calibration": calibration})


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
