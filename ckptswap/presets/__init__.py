"""Names and layouts of other libraries, known by a word (`--map-preset`): a checkpoint of theirs under the names
of another, its values laid out as there."""

from collections.abc import Callable, Sequence
from typing import Literal

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import UsageError
from ckptswap.presets.keras import as_torch
from ckptswap.presets.llama_cpp import as_transformers

Preset = Callable[[Checkpoint, Checkpoint], tuple[Checkpoint, str]]
"""Gives a foreign checkpoint as the other names it, and what was done, as a sentence."""

PRESET = "Names and layouts of a GGUF file, or of Keras's, as the other file has them."
"""What `--map-preset` is for."""
PresetName = Literal["hf-gguf", "keras-torch"]
_PRESETS: dict[PresetName, tuple[tuple[str, ...], Preset]] = {
    "hf-gguf": (("gguf",), as_transformers),
    "keras-torch": (("keras", "hdf5"), as_torch),
}
"""The formats that each is for, and what it does."""


def preset_of(word: str | None) -> PresetName | None:
    """The preset of that name, or none. Raises `UsageError` for one that does not exist."""
    if word is None or word in _PRESETS:
        return word
    raise UsageError(f"there is no preset {word!r} of names", remedy=f"use {' or '.join(_PRESETS)}")


def is_of_preset(word: str | None, checkpoint: Checkpoint) -> bool:
    """Whether a preset is for checkpoints of this format."""
    return (name := preset_of(word)) is not None and checkpoint.format in _PRESETS[name][0]


def preset_matched(word: str | None, checkpoints: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """The same, with what is of a preset's formats under the names of the first that is not; what was done, a
    sentence each. Raises `UsageError` for a word that is none, and where not both sorts are there."""
    if (name := preset_of(word)) is None:
        return list(checkpoints), []
    formats, preset = _PRESETS[name]
    others = [checkpoint for checkpoint in checkpoints if not is_of_preset(name, checkpoint)]
    if len(others) in (0, len(checkpoints)):
        found = ", ".join(f"{checkpoint.path} ({checkpoint.format})" for checkpoint in checkpoints)
        remedy = f"give a file of {' or '.join(formats)}, and one that is not"
        raise UsageError(f"--map-preset {word} brings two sorts of files together, of {found}", remedy=remedy)
    done = {id(each): preset(each, others[0]) for each in checkpoints if is_of_preset(name, each)}
    return [done[id(each)][0] if id(each) in done else each for each in checkpoints], [
        what for _, what in done.values()
    ]
