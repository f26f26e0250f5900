"""What the library's functions may be given: checkpoints in all their shapes, patterns, rules for names."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Unread
from ckptswap.errors import UsageError, brief, listing
from ckptswap.formats import open_checkpoint
from ckptswap.formats.nested import spread
from ckptswap.formats.state_dict import unread
from ckptswap.formats.torch_pickle import DTYPES
from ckptswap.hints import names_apart
from ckptswap.messages import note, warn
from ckptswap.naming import MATCHES
from ckptswap.presets import PRESET, preset_matched, preset_of
from ckptswap.records import option
from ckptswap.registry import is_ours
from ckptswap.remote.address import public
from ckptswap.renaming import all_matched, map_all, matched, parse_rules, strip_all
from ckptswap.selection import Selection
from ckptswap.shape_order import by_shape_order, paired_words
from ckptswap.task.distributions import is_installed
from ckptswap.task.in_memory import InMemory
from ckptswap.task.spec import TaskSpec, parse_args


class Module(Protocol):
    """What holds tensors under names, as `torch.nn.Module` does."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its tensors by their names."""


Path_ = str | os.PathLike[str]
Given = Checkpoint | Path_ | Mapping[str, Any] | Module
SELECTION = ("only", "exclude", "layers", "kind")
Patterns = str | Iterable[str] | None  # None and nothing are the same: not given


def opened(given: Given, stack: ExitStack | None = None) -> Checkpoint:
    """Open what may stand for a checkpoint; what was not open before is closed with the stack. Raises `UsageError`
    for what can be none, and what `open_checkpoint` raises."""
    if isinstance(given, Checkpoint):
        return given
    checkpoint = open_checkpoint(given) if isinstance(given, str | os.PathLike) else _in_memory(given)
    return stack.enter_context(checkpoint) if stack else checkpoint


def is_on_disk(given: Given) -> bool:
    """Whether its path leads to it, in other processes too.

    >>> is_on_disk("a.pt"), is_on_disk({}), is_on_disk(Checkpoint.from_arrays({}))
    (True, False, False)
    """
    if isinstance(given, str | os.PathLike):
        return True
    path = given.path if isinstance(given, Checkpoint) and given.sources else ""
    place, colon, _ = path.partition(":")
    return os.path.exists(path) or bool(colon and (os.path.exists(place) or is_ours("checkpoints", place)))


def _in_memory(given: Any) -> Checkpoint:
    if not isinstance(given, Mapping) and not _holds_tensors(given):
        remedy = "give a path, what cs.open or cs.transplant returned, a state_dict, or an nn.Module"
        raise UsageError(f"{type(given).__name__} is no checkpoint", remedy=remedy)
    asked = given if isinstance(given, Mapping) else given.state_dict()
    inside = spread(asked, _is_array, lambda value: value)
    state = {name: value for name, value in inside.items() if name in asked or _is_array(value)}
    if baggage := [name for name in inside if name not in state]:
        note(f"left out what is not a tensor: {listing(baggage)}")
    odd = {name: what for name, value in state.items() if (what := _odd(value))}
    left = {name: value for name, value in state.items() if name not in odd}
    if isinstance(given, Mapping):
        checkpoint = Checkpoint.from_arrays(left)
    else:
        arrays = {name: value for name, value in left.items() if _is_array(value)}
        checkpoint = Checkpoint.from_arrays(arrays, path=f"<{type(given).__name__}>")
        checkpoint.module = given
        odd |= unread(left, _is_array)
    return checkpoint.holding((), unread=odd) if odd else checkpoint


def _odd(value: Any) -> Unread | None:
    """What a tensor of torch is that has no plain numbers; None for all else."""
    if not hasattr(value, "layout") or not hasattr(value, "is_quantized"):
        return None
    dtype = str(value.dtype).removeprefix("torch.")
    if value.is_nested:
        return Unread("a nested tensor", None, "nested")
    if (layout := str(value.layout).removeprefix("torch.")) != "strided":
        kind = "sparse" if layout.startswith("sparse") else layout
        return Unread(f"a {kind} tensor", tuple(value.shape), kind)
    if value.is_quantized:
        return Unread(f"a {dtype} tensor", tuple(value.shape), dtype)
    what = "a tensor on the meta device, without values"
    return Unread(what, tuple(value.shape), DTYPES.get(dtype, dtype)) if value.is_meta else None


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def _holds_tensors(given: object) -> bool:
    return callable(getattr(given, "state_dict", None)) and not isinstance(given, type)


def names_of(*sides: Given) -> list[str]:
    """Their paths, or names by which several in memory are told apart.

    >>> names_of("a.pt", {}, {})
    ['a.pt', 'memory', 'memory 2']
    """
    names = [_name_of(side) for side in sides]
    is_twin = (name in names[:at] and not os.path.exists(name) for at, name in enumerate(names))
    return [f"{name} {at}" if twin else name for at, (name, twin) in enumerate(zip(names, is_twin, strict=True))]


def _name_of(side: Given) -> str:
    if isinstance(side, str | os.PathLike):
        return public(os.fspath(side))
    return getattr(side, "path", None) or (f"<{type(side).__name__}>" if _holds_tensors(side) else "memory")


def several(given: Given | Iterable[Given], what: str) -> list[Given]:
    """One or more of `what`. A module may be a sequence too, of its layers. Raises `UsageError` for none."""
    is_one = isinstance(given, str | os.PathLike | Mapping) or _holds_tensors(given)
    those: list[Any] = list(given) if isinstance(given, Iterable) and not is_one else [given]
    if not those:
        raise UsageError(f"there is no {what}", remedy="give one or more")
    return those


def listed(given: Patterns) -> tuple[str, ...]:
    """Texts, of one or several; raises `UsageError` for anything else."""
    if given is None or isinstance(given, str):
        return () if given is None else (given,)
    texts = tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{brief(given)} selects nothing", remedy="give a text, or several in a list")
    return texts


def path_of(given: Path_) -> str:
    """A path as text; raises `UsageError` for what is none."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{brief(given)} is not a path", remedy="give a text or a pathlib.Path")
    return os.fspath(given)


def args_of(given: Patterns | Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments, of texts `key=value` too; raises `UsageError` for what is neither."""
    return given if isinstance(given, Mapping) else parse_args(",".join(listed(given)))


def selection_of(
    only: Patterns = (), exclude: Patterns = (), layers: Patterns = (), kind: Patterns = ()
) -> Selection:
    """The selection of these patterns; raises `SelectionError` for an impossible one."""
    return Selection.parse(only=listed(only), exclude=listed(exclude), layers=listed(layers), kind=listed(kind))


def selection_and_names(how: Mapping[str, Any]) -> "tuple[Selection, PairNames]":
    """What keywords select, and how they bring names together. Raises as `selection_of` does."""
    chosen = {word: value for word, value in how.items() if word in SELECTION}
    return selection_of(**chosen), PairNames.of(**{word: how[word] for word in how.keys() - chosen.keys()})


def plain(value: Any) -> Any:
    """Python's own numbers in place of numpy's, inside dicts and lists too: JSON and flags know no others."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return value.item() if isinstance(value, np.generic) else value


def tell_unmatched(selection: Selection, *checkpoints: Checkpoint) -> None:
    """Tell which values of a selection match nothing, where others beside them do."""
    warn(map(str, selection.unmatched(*checkpoints)))


def task_of(keys: Mapping[str, Any], exclude: Patterns = (), partial: bool = False) -> TaskSpec:
    """The task that keywords say: a `TaskSpec` to begin with (`task`), a file of keys (`config`), keys.

    Raises `UsageError` for a key that does not exist or a value that makes no sense.

    >>> task_of({"task": TaskSpec(threads=1), "limit": 8}).limit
    8
    """
    left = {**keys, "partial": partial or None}
    spec, config = left.pop("task", None) or TaskSpec(), left.pop("config", None)
    spec = (spec.merge_toml(config) if config else spec).merge(plain(worded(left)))
    return replace(spec, exclude=selection_of(exclude=exclude).exclude)


def worded(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys, in which words name models, data, metrics and the device."""
    words: dict[str, Any] = {
        key: word_of(keys[key]) for key in ("model", "data", "calibration_data") if key in keys
    }
    for key in {"metric", "metrics"} & keys.keys():
        metrics = keys[key] if isinstance(keys[key], list | tuple) else [keys[key]]
        words[key] = [word_of(metric) for metric in metrics if metric is not None]
    if keys.get("device") is not None:
        words["device"] = str(keys["device"])  # torch has a class of its own for them
    return {**keys, **words}


def word_of(given: Any) -> str | None:
    """What names a model, data or a metric: a text, the place of a function of an installed package, which other
    processes can import, or for any other thing `InMemory`.

    >>> import numpy as np
    >>> word_of("dice"), word_of(np.zeros), word_of([1, 2])
    ('dice', 'numpy:zeros', 'memory:list')
    """
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    module, name = getattr(given, "__module__", None) or "", getattr(given, "__qualname__", "")
    is_there = name.isidentifier() and getattr(sys.modules.get(module), name, None) is given
    return f"{module}:{name}" if is_there and is_installed(module) else InMemory.of(given)


@dataclass(frozen=True)
class Names:
    """How the names of several sides are brought together: rules `OLD=NEW`, a file of rules, a prefix to take off,
    a preset for files of another library. What was found unasked, or done to values, is told to the listener."""

    map: tuple[str, ...] = option(
        (),
        "Rename tensors of the first one (of several: of any): 'net.*=encoder.*' or 're:…=…'.",
        metavar="OLD=NEW",
        defaults="file",
    )
    map_file: str | None = option(None, "Such rules, one a line.", metavar="FILE", defaults="never")
    strip_prefix: str | None = option(None, "Take it off all names.", metavar="PREFIX", defaults="file")
    map_preset: Literal["hf-gguf", "keras-torch"] | None = option(None, PRESET, defaults="file")

    @classmethod
    def of(
        cls,
        map: Patterns = (),
        map_file: str | os.PathLike[str] | None = None,
        strip_prefix: str | None = None,
        map_preset: str | None = None,
    ) -> "Names":
        """The same, of what a caller may give. Raises `UsageError` for a preset that does not exist."""
        preset = preset_of(map_preset)
        return cls(listed(map), None if map_file is None else os.fspath(map_file), strip_prefix, preset)

    def renamed(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        """Each by itself, where a rule or the prefix may concern any of them."""
        return map_all(strip_all(self._preset(*checkpoints), self.strip_prefix), self._rules())

    def matched(self, other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
        """Both under comparable names."""
        other, reference = self._preset(other, reference)
        other, reference, prefix = matched(other, reference, self._rules(), self.strip_prefix)
        note([prefix] if prefix else [])
        return other, reference

    def all_matched(self, reference: Checkpoint, *others: Checkpoint) -> list[Checkpoint]:
        """The same for several, where a rule or a prefix may concern any of them."""
        reference, *rest = self._preset(reference, *others)
        checkpoints, prefixes = all_matched(reference, rest, self._rules(), self.strip_prefix)
        note(prefixes)
        return checkpoints

    def hint(self, other: Checkpoint, reference: Checkpoint) -> str | None:
        """Where two files' names are apart, and which of these would help; None where one was given."""
        is_given = self.map or self.map_file or self.strip_prefix or self.map_preset
        return None if is_given else names_apart(other, reference)

    def _preset(self, *checkpoints: Checkpoint) -> list[Checkpoint]:
        named, done = preset_matched(self.map_preset, checkpoints)
        note(done)
        return named

    def _rules(self) -> Sequence[Any]:
        return parse_rules(self.map, self.map_file)


@dataclass(frozen=True)
class PairNames(Names):
    """The same for two sides that are compared or grafted: these may also be paired by order and shape."""

    match: Literal["names", "shape-order"] = option(
        "names", "Pair what has no namesake by order and shape, and print the pairs.", defaults="file"
    )

    @classmethod
    def of(
        cls,
        map: Patterns = (),
        map_file: str | os.PathLike[str] | None = None,
        strip_prefix: str | None = None,
        map_preset: str | None = None,
        match: str | None = None,
    ) -> "PairNames":
        """The same, of what a caller may give. Raises `UsageError` for a way that does not exist."""
        if match not in (None, *MATCHES):
            raise UsageError(f"match={match!r} is no way to pair", remedy=f"use {' or '.join(MATCHES)}")
        given = Names.of(map, map_file, strip_prefix, map_preset)
        return cls(**vars(given), match="shape-order" if match == "shape-order" else "names")

    def matched(self, other: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
        """Both under comparable names."""
        other, reference = super().matched(other, reference)
        return self._paired(other, reference), reference

    def all_matched(self, reference: Checkpoint, *others: Checkpoint) -> list[Checkpoint]:
        """The same for several."""
        reference, *rest = super().all_matched(reference, *others)
        return [reference, *(self._paired(other, reference) for other in rest)]

    def hint(self, other: Checkpoint, reference: Checkpoint) -> str | None:
        """The same, or that they can be paired; None where they are."""
        return super().hint(other, reference) if self.match == "names" else None

    def _paired(self, other: Checkpoint, reference: Checkpoint) -> Checkpoint:
        if self.match == "names":
            return other
        other, rules = by_shape_order(other, reference)
        note(paired_words(other.path, reference.path, rules))
        return other
