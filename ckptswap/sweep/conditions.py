"""What decides scores, by content: the key under which a run's scores may be used again.

Tolerance, selection and ways of splitting are not part of it: they only decide which scores are wanted, and how
they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ckptswap.checkpoint import Checkpoint
from ckptswap.task.libraries import versions_of

if TYPE_CHECKING:
    from ckptswap.task import Task


def conditions(task: Task, donors: Sequence[Checkpoint], recipient: Checkpoint) -> dict[str, Any]:
    """Everything that a score depends on, as a JSON object; the parts' names are fit for an error message."""
    identity = task.identity()
    hashes, renames = [donor.sha256() for donor in donors], [dict(donor.renames) for donor in donors]
    return {
        "donor": hashes if len(donors) > 1 else hashes[0],
        "recipient": recipient.sha256(),
        "names": {"donor": renames if len(donors) > 1 else renames[0], "recipient": dict(recipient.renames)},
        "task": identity["spec"],
        "data": identity["data"],
        "batches": identity["batches"],
        "code": identity["code"],
        **{key: identity[key] for key in ("initial values",) if key in identity},
        "dtype": str(next((parameter.dtype for parameter in task.model.parameters()), None)),
        "versions": versions_of(task.spec, task.model),
        "CPU": torch.backends.cpu.get_cpu_capability(),
    }
