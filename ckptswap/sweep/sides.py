"""The two sides of a sweep under the names of the model that is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, listing
from ckptswap.renaming import aligned_with
from ckptswap.sweep.donors import MADE, open_donor
from ckptswap.task.fit import tensors_of
from ckptswap.task.models.hf_names import as_loaded
from ckptswap.task.task import Loaded, Task
from ckptswap.task.weights import check_fit, refuse_contradictions, state_of
from ckptswap.ties import Ties, ties_of
from ckptswap.twins import with_twins


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
    loaded_as = [as_loaded(loaded.model, donor) for donor in given]
    aligned = [aligned_with(donor, names, "the model") for donor, _ in loaded_as]
    sentences = [what for pair in zip(loaded_as, aligned, strict=True) for _, what in pair]
    return tuple(donor for donor, _ in aligned), tuple(what for what in sentences if what)


def as_in_model(
    model: nn.Module, donors: Sequence[Checkpoint], recipient: Checkpoint
) -> tuple[tuple[Checkpoint, ...], Checkpoint]:
    """Donors and recipient with what is one tensor in the model: the recipient's names of it are tied, in the
    model's order, and a donor that has one of them has all.

    A donor that is made from the recipient gets the same values under all of them.
    """
    ties = ties_of(state_of(model))
    recipient = recipient.tied(ties)
    known = recipient.ties.joined(ties)
    return tuple(_one_valued(with_twins(donor, known), known) for donor in donors), recipient


def _one_valued(donor: Checkpoint, ties: Ties) -> Checkpoint:
    if donor.format != MADE:
        return donor
    firsts = {name: group[0] for group in (ties.among(donor).same) for name in group[1:]}
    return donor.also_named(firsts)


def misfit_of(task: Task, donor: Checkpoint) -> str | None:
    """Why a donor has no score of its own in the task's model; None where it has."""
    try:
        fit = check_fit(task.model, donor, exclude=task.spec.exclude, partial=task.spec.partial)
        refuse_contradictions(fit.taken, ties_of(state_of(task.model)))
    except MismatchError as error:
        return str(error)
    return f"{donor.path} lacks tensors of the model ({listing(fit.kept)})" if fit.kept else None


def said_of_names(recipient: Checkpoint) -> list[str]:
    """That several names have one row, once for all."""
    return (
        [f"{recipient.path}: {recipient.ties}: each is swapped as one, under all names"] if recipient.ties else []
    )
