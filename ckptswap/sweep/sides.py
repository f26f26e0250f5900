"""The two sides of a sweep under the names of the model that is scored."""

from __future__ import annotations

from collections.abc import Iterable

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, listing
from ckptswap.renaming import aligned_with
from ckptswap.sweep.donors import open_donor
from ckptswap.task.fit import tensors_of
from ckptswap.task.task import Loaded, Task
from ckptswap.task.weights import check_fit


def named_alike(
    donors: Iterable[Checkpoint | str], loaded: Loaded
) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The donors under the model's names, and what was taken off their own.

    Those that are made from the recipient are given as words, and made here, when it has these names too.
    """
    names = tensors_of(loaded.model.state_dict())
    given = [
        open_donor(donor, loaded.fit.taken, loaded.spec) if isinstance(donor, str) else donor for donor in donors
    ]
    found = [aligned_with(donor, names, "the model") for donor in given]
    return tuple(donor for donor, _ in found), tuple(said for _, said in found if said)


def misfit_of(task: Task, donor: Checkpoint) -> str | None:
    """Why a donor has no score of its own in the task's model; None where it has."""
    try:
        fit = check_fit(task.model, donor, exclude=task.spec.exclude, partial=task.spec.partial)
    except MismatchError as error:
        return str(error)
    return f"{donor.path} lacks tensors of the model ({listing(fit.kept)})" if fit.kept else None
