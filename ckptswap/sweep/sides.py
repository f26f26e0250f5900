"""The two sides of a sweep: its checkpoints opened, and brought under comparable names, then the model's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, listing
from ckptswap.formats import open_checkpoint
from ckptswap.hints import names_apart
from ckptswap.presets import preset_matched
from ckptswap.renaming import aligned_with, parse_rules, sides_matched
from ckptswap.scoring.scorer import Scorer
from ckptswap.shape_order import by_shape_order, paired_words
from ckptswap.sweep.donors import MADE, is_file, open_donor
from ckptswap.sweep.spec import SweepSpec
from ckptswap.task import TaskSpec
from ckptswap.task.task import Task
from ckptswap.task.weights import check_fit, refuse_contradictions, state_of
from ckptswap.ties import ties_of
from ckptswap.twins import with_twins

Convert = Callable[[Checkpoint], tuple[Checkpoint, str | None]]


@dataclass(frozen=True)
class Sides:
    """The donors (files under comparable names, words for those that are made) and the recipient.

    `notes` say what was done to names unasked, `hints` which flags would bring names together.
    """

    donors: tuple[Checkpoint | str, ...]
    recipient: Checkpoint
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def open_sides(spec: SweepSpec, stack: ExitStack, opened: Mapping[str, Checkpoint]) -> Sides:
    """Open what the spec names, but for what is `opened` already under these names; the stack closes it.

    Raises what opening raises, and `UsageError` for a rule or prefix that fits no name.
    """
    recipient = opened.get(spec.recipient) or stack.enter_context(open_checkpoint(spec.recipient))
    donors = tuple(dict.fromkeys(spec.donors))
    paths = [text for text in donors if text in opened or is_file(text)]
    files = [
        opened[path] if path in opened else stack.enter_context(open_donor(path, recipient, spec.task))
        for path in paths
    ]
    is_told = any([spec.map, spec.map_file, spec.strip_prefix, spec.map_preset, spec.task.match != "names"])
    hints = [] if is_told else [hint for file in files if (hint := names_apart(file, recipient))]
    rules = parse_rules(spec.map, spec.map_file)
    [recipient, *files], laid_out = preset_matched(spec.map_preset, [recipient, *files])
    recipient, files, notes = sides_matched(recipient, files, rules, spec.strip_prefix)
    named = dict(zip(paths, files, strict=True))
    return Sides(tuple(named.get(text, text) for text in donors), recipient, (*laid_out, *notes), tuple(hints))


def named_alike(
    donors: Iterable[Checkpoint | str],
    recipient: Checkpoint,
    reference: Checkpoint,
    whose: str,
    task: TaskSpec,
    convert: Convert = lambda donor: (donor, None),
) -> tuple[tuple[Checkpoint, ...], tuple[str, ...]]:
    """The donors under the names of a reference (the model, or the recipient), and what was taken off their own;
    paired with it by order and shape where the task asks for that.

    Those that are made from the recipient are given as words, and made here, when it has these names too.
    `convert` gives a donor as the model's library would load it, and what that changed.
    """
    given = [open_donor(donor, recipient, task) if isinstance(donor, str) else donor for donor in donors]
    converted = [convert(donor) for donor in given]
    aligned = [aligned_with(donor, reference, whose) for donor, _ in converted]
    sentences = [what for pair in zip(converted, aligned, strict=True) for _, what in pair if what]
    if task.match == "names":
        return tuple(donor for donor, _ in aligned), tuple(sentences)
    paired = [by_shape_order(donor, reference) for donor, _ in aligned]
    words = [word for donor, rules in paired for word in paired_words(donor.path, whose, rules)]
    return tuple(donor for donor, _ in paired), (*sentences, *words)


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

    def one_valued(donor: Checkpoint) -> Checkpoint:
        firsts = {name: group[0] for group in known.among(donor).same for name in group[1:]}
        return donor.also_named(firsts) if donor.format == MADE else donor

    return tuple(one_valued(with_twins(donor, known)) for donor in donors), recipient


def misfit_of(task: Task, donor: Checkpoint) -> str | None:
    """Why a donor has no score of its own in the task's model; None where it has."""
    try:
        fit = check_fit(task.model, donor, exclude=task.spec.exclude, partial=task.spec.partial)
        refuse_contradictions(fit, state_of(task.model))
    except MismatchError as error:
        return str(error)
    return f"{donor.path} lacks tensors of the model ({listing(fit.kept)})" if fit.kept else None


def conditions(scorer: Scorer, donors: Sequence[Checkpoint], recipient: Checkpoint) -> dict[str, Any]:
    """All that decides scores, by content, as a JSON object: the key under which a run's scores may be used again.

    Its parts' names are fit for an error message. Tolerance, selection and ways of splitting are not among them:
    these only decide which scores are wanted, and how they are read.
    """
    hashes, renames = [donor.sha256() for donor in donors], [dict(donor.renames) for donor in donors]
    keys = [donor.key for donor in donors]
    return {
        "donor": hashes if len(donors) > 1 else hashes[0],
        "recipient": recipient.sha256(),
        "names": {"donor": renames if len(donors) > 1 else renames[0], "recipient": dict(recipient.renames)},
        **({"maps": {"donor": keys, "recipient": recipient.key}} if any([*keys, recipient.key]) else {}),
        **scorer.identity(),
        "exactness": scorer.exactness,
    }
