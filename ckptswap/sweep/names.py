"""The names by which a model knows its tensors: what is one tensor there is one in every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.sweep.donors import MADE
from ckptswap.task.weights import check_fit, refuse_contradictions, state_of
from ckptswap.ties import Ties, ties_of
from ckptswap.twins import with_twins

if TYPE_CHECKING:
    from ckptswap.task import Task


def as_in_model(
    task: Task, donors: Sequence[Checkpoint], recipient: Checkpoint
) -> tuple[tuple[Checkpoint, ...], Checkpoint]:
    """Donors and recipient with what is one tensor in the model: the recipient's names of it are tied, in the
    model's order, and a donor that has one of them has all.

    A donor that is made from the recipient gets the same values under all of them.
    """
    ties = ties_of(state_of(task.model))
    recipient = recipient.tied(ties)
    known = recipient.ties.joined(ties)
    return tuple(_one_valued(with_twins(each, known), known) for each in donors), recipient


def _one_valued(donor: Checkpoint, ties: Ties) -> Checkpoint:
    if donor.format != MADE:
        return donor
    firsts = {name: group[0] for group in (ties.among(donor).same) for name in group[1:]}
    return donor.also_named(firsts)


def misfit_of(task: Task, donor: Checkpoint) -> str | None:
    """Why a donor does not fit the model as a whole; None where it does."""
    try:
        refuse_contradictions(donor, ties_of(check_fit(task.model, donor)))
    except MismatchError as error:
        return str(error)
    return None


def said_of_names(recipient: Checkpoint) -> list[str]:
    """That several names have one row, once for all."""
    return (
        [f"{recipient.path}: {recipient.ties}: each is swapped as one, under all names"] if recipient.ties else []
    )
