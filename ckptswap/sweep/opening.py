"""A sweep's checkpoints, opened and brought under comparable names, alike for the library and the command."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import open_checkpoint
from ckptswap.hints import names_apart
from ckptswap.renaming import parse_rules, sides_matched
from ckptswap.sweep.donors import is_file, open_donor
from ckptswap.sweep.spec import SweepSpec


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
    is_told = spec.map or spec.map_file or spec.strip_prefix
    hints = [] if is_told else [hint for file in files if (hint := names_apart(file, recipient))]
    rules = parse_rules(spec.map, spec.map_file)
    recipient, files, notes = sides_matched(recipient, files, rules, spec.strip_prefix)
    named = dict(zip(paths, files, strict=True))
    return Sides(tuple(named.get(text, text) for text in donors), recipient, tuple(notes), tuple(hints))
