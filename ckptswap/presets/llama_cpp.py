"""GGUF as transformers has it: names by the tables of the library `gguf`, by which llama.cpp's own conversion
names tensors; and what that conversion does to values, undone, where transformers' reader undoes it too.

Rules: `convert_hf_to_gguf.py` in llama.cpp, `modeling_gguf_pytorch_utils.py` in transformers.
"""

from functools import partial

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FormatError, MismatchError
from ckptswap.formats.gguf import ARCHITECTURE, PERMUTED
from ckptswap.presets.rearranged import Arrange, rearranged
from ckptswap.registry import library
from ckptswap.renaming import renamed

_BASES = ("", "model.", "transformer.")
"""What names may lack that the tables begin with; they may also have a part more than these."""
_SUFFIXES = (".weight", ".bias")
_ADDED_ONE = frozenset(["gemma", "gemma2", "gemma3", "nemotron"])
"""Architectures to whose norms the conversion adds 1."""
_TRANSPOSED = {"gpt2": ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")}
"""Matrices that transformers keeps the other way round (Conv1D)."""
_QKV = frozenset(["bloom"])
"""Architectures whose heads keep query, key and value together."""
_WIDENED = {"mamba": "ssm_conv1d.weight", "lfm2": "shortconv.conv.weight"}
"""Convolutions that lose an axis of length 1."""


def as_transformers(ours: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, str]:
    """A GGUF file under the names of a checkpoint of transformers, with its values as there; and what was done.
    Raises `FormatError` where the file does not say of which architecture it is, or how many heads it has where
    that counts, `MismatchError` where no name is known to the library's tables, `DependencyError` without it."""
    architecture = ours.metadata.get(ARCHITECTURE, "")
    names = _names(ours, reference, architecture)
    if not names:
        fault = f"no tensor of {ours.path} ({architecture}) is one of {reference.path} by llama.cpp's tables"
        raise MismatchError(fault, remedy="the other file has to have transformers' names of this architecture")
    made = {name: arrange for name in names if (arrange := _undone(name, architecture, ours))}
    arranged = ours.holding([rearranged(ours, name, arrange) for name, arrange in made.items()])
    what = (
        f"{ours.path} is taken under transformers' names for {architecture}: {len(names)} of {len(ours)} tensors"
    )
    roles = dict.fromkeys(name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2] for name in made)
    more = f"; put back from llama.cpp's layout: {', '.join(roles)} ({len(made)} tensors)" if made else ""
    return renamed(arranged, names), what + more


def _names(ours: Checkpoint, reference: Checkpoint, architecture: str) -> dict[str, str]:
    """GGUF's names → the reference's."""
    gguf = library("gguf")
    number = next((key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), None)
    blocks = ours.metadata.get(f"{architecture}.block_count", "")
    if number is None or not blocks.isdecimal():
        fault = f"{ours.path} does not say how many blocks it has, or is of an unknown architecture"
        remedy = f"it says {architecture[:40]!r}; a newer gguf may know that: pip install -U gguf"
        raise FormatError(fault, remedy=remedy)
    table = gguf.get_tensor_name_map(number, min(int(blocks[:9]), len(ours)))
    found: dict[str, str] = {}
    for name in reference.every_name:
        spellings = (*(base + name for base in _BASES), name.partition(".")[2])
        known = (table.get_name(spelling, try_suffixes=_SUFFIXES) for spelling in spellings)
        if (own := next(filter(None, known), None)) and own in ours:
            found.setdefault(own, name)
    return found


def _undone(name: str, architecture: str, ours: Checkpoint) -> Arrange | None:
    """What undoes to a tensor's values what the conversion did; None where it only renamed."""
    if architecture in PERMUTED and (".attn_q." in name or ".attn_k." in name):
        return partial(_halves_first, heads=_heads(ours, architecture, of_keys=".attn_k." in name))
    if architecture in _ADDED_ONE and name.endswith("norm.weight"):
        return lambda values: values - values.dtype.type(1)
    if name.endswith(_TRANSPOSED.get(architecture, ())) and len(ours[name].shape) == 2:
        return np.transpose
    if architecture in _QKV and ".attn_qkv." in name:
        return partial(_interleaved, heads=_heads(ours, architecture, of_keys=False))
    if name.endswith(_WIDENED.get(architecture, "/")):
        return lambda values: values[:, None]
    if architecture == "mamba" and name.endswith("ssm_a"):
        return lambda values: np.log(-values)
    return None


def _heads(ours: Checkpoint, architecture: str, of_keys: bool) -> int:
    """How many heads there are. Raises `FormatError` where the file does not say it in one number."""
    key = f"{architecture}.attention.head_count"
    text = ours.metadata.get(key, "")
    if of_keys:
        text = ours.metadata.get(f"{key}_kv", text)
    if text.isdecimal() and (heads := int(text[:9])):
        return heads
    fault = f"{ours.path} does not say in one number how many heads it has, by which rows are put back"
    raise FormatError(fault, remedy=f"{key} is missing or a list: hold two GGUF files against each other")


def _halves_first(values: np.ndarray, heads: int) -> np.ndarray:
    halves = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    parts = values.reshape(3, heads, values.shape[0] // (3 * heads), *values.shape[1:])
    return parts.swapaxes(0, 1).reshape(values.shape)
