"""Adapters of PEFT: the folder as a map of its own, and `peft:ADAPTER`, the base with its products added.

A merged checkpoint is computed when it is read: each weight that the adapter touches is base + scale · B·A, in
double precision, rounded once to the base's dtype.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from ckptswap import dtypes
from ckptswap.checkpoint import Checkpoint
from ckptswap.entries import Entry, Tensor
from ckptswap.errors import FileError, FormatError, MismatchError, listing
from ckptswap.formats.format import Format
from ckptswap.formats.objects import parse_object
from ckptswap.formats.opening import open_checkpoint, open_file
from ckptswap.home import LocalHome
from ckptswap.patterns import Expression
from ckptswap.storage import ByteSource, Folder
from ckptswap.wrappers import correspondence

CONFIG, CONFIG_MOST = "adapter_config.json", 1_000_000
CONFIG_KEY = "peft.config"
"""The metadata key under which adapter_config.json's text travels."""
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_OUTSIDE = "base_model.model."
"""What PEFT writes before the names of the model that it wraps."""
_BEYOND_PRODUCTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config",
    "monteclora_config", "megatron_config",
)  # fmt: skip
"""Fields of a configuration under which an adapter is more than low-rank products."""
_CHANGING_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that take something off the base's own weights."""


def _inside(folder: Folder) -> str | None:
    return next((name for name in _WEIGHTS if folder.holds(CONFIG) and folder.holds(name)), None)


def open_adapter(weights: ByteSource, folder: Folder) -> Checkpoint:
    """Open an adapter's own tensors; its configuration becomes metadata."""
    checkpoint = open_file(weights, folder)
    with closing(folder.open(CONFIG)) as file:
        text = file.whole(CONFIG_MOST).decode("utf-8", "replace")
    is_plain = weights.name.endswith(_WEIGHTS[0])
    checkpoint.path = folder.name
    checkpoint.format = FORMAT.name if is_plain else f"{FORMAT.name}, {checkpoint.format}"
    checkpoint.home = LocalHome(folder.path, has_index=False) if folder.path else None
    checkpoint.metadata = {**checkpoint.metadata, CONFIG_KEY: text}
    return checkpoint


def base_and_adapter(spec: str, stack: ExitStack) -> tuple[Checkpoint, Checkpoint]:
    """Base and adapter of `ADAPTER`, which names its base, or of `BASE+ADAPTER`; the stack closes them.

    Raises `FileError` where the base is not there, and what opening raises.
    """
    base_path, adapter_path = _sides(spec)
    adapter = stack.enter_context(open_checkpoint(adapter_path))
    return stack.enter_context(open_checkpoint(base_path or Lora.of(adapter).base_path(adapter))), adapter


def merged(base: Checkpoint, adapter: Checkpoint) -> Checkpoint:
    """The base's tensors, each that the adapter touches with its product added. Nothing is computed yet.

    Raises `FormatError` for an adapter that is more than low-rank products, `MismatchError` where it does not fit
    the base.
    """
    return base.holding(
        _merged(base, adapter, Lora.of(adapter)),
        format="merged adapter",
        notes=(*base.notes, f"{base.path} with the products of {adapter.path} added"),
        sources=(*base.sources, *adapter.sources),
        checksums=(*base.checksums, *adapter.checksums),
        beside=(),
        stale=(),
    )


def _sides(spec: str) -> tuple[str | None, str]:
    """Base (None: the adapter's own) and adapter; either name may hold a `+` itself."""
    if not os.path.isdir(spec):
        for at, letter in enumerate(spec):
            if letter == "+" and os.path.exists(spec[:at]) and os.path.isdir(spec[at + 1 :]):
                return spec[:at], spec[at + 1 :]
    return None, spec


def absolute(spec: str) -> str:
    """What means the same in every folder."""
    return "+".join(os.path.abspath(side) for side in _sides(spec) if side is not None)


@dataclass(frozen=True)
class Lora:
    """What of an adapter's configuration decides its products."""

    base: str
    alpha: float
    alphas: tuple[tuple[Expression, float], ...]
    by_root: bool
    is_transposed: bool

    @classmethod
    def of(cls, adapter: Checkpoint) -> "Lora":
        """Read an adapter's configuration. Raises `FormatError` where it is none of low-rank products."""
        if CONFIG_KEY not in adapter.metadata:
            raise FormatError(f"{adapter.path} is not an adapter", remedy=f"name a folder with {CONFIG}")
        where = f"{CONFIG} in {adapter.path}"
        try:
            config = parse_object(adapter.metadata[CONFIG_KEY].encode())
        except ValueError as error:
            raise FormatError(f"{where} is not a configuration", remedy=f"it {error}") from None
        kind = config.get("peft_type")
        start = str(config.get("init_lora_weights", "")).lower()
        beyond = next((key for key in _BEYOND_PRODUCTS if config.get(key)), None)
        if kind != "LORA" or beyond or start.startswith(_CHANGING_THE_BASE):
            what = beyond or (f"begun by {start}" if kind == "LORA" else f"of type {kind}")
            raise FormatError(f"{adapter.path} is more than low-rank products ({what})",
                              remedy="merge it with peft, and save what comes of it")  # fmt: skip
        return cls(
            base=_typed(config, "base_model_name_or_path", str, "", where),
            alpha=_number(_typed(config, "lora_alpha", (int, float), 8, where), where),
            alphas=tuple(
                (Expression(f"(?:.*\\.)?(?:{key})", f"{where}: alpha_pattern"), _number(value, where))
                for key, value in _typed(config, "alpha_pattern", dict, {}, where).items()
            ),
            by_root=_typed(config, "use_rslora", bool, False, where),
            is_transposed=_typed(config, "fan_in_fan_out", bool, False, where),
        )  # fmt: skip

    def base_path(self, adapter: Checkpoint) -> str:
        """Where the base lies. Raises `FileError` where that is not on this machine."""
        if not self.base or not os.path.exists(self.base):
            raise FileError(
                f"{adapter.path} names the base {self.base!r}, which is not here",
                remedy=f"write peft:BASE+{adapter.path}, with the folder where the base lies",
            )
        return self.base

    def scale(self, module: str, rank: int) -> float:
        """What a module's product is multiplied by."""
        alpha = next((alpha for test, alpha in self.alphas if test.fullmatch(module)), self.alpha)
        return alpha / (sqrt(rank) if self.by_root else rank)


def _typed(config: Mapping[str, Any], key: str, form: Any, default: Any, where: str) -> Any:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, form) or (isinstance(value, bool) and form is not bool):
        raise FormatError(f"{where} has {key} {value!r:.80}", remedy="that makes no sense there")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise FormatError(f"{where} has an alpha of {value!r:.80}", remedy="it must be a number")
    return float(value)


# The merged tensors ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Product:
    """A weight of the base with scale · B·A added, or its transpose.

    `a` has the shape (rank, …), `b` (…, rank), with dimensions of 1 behind it where the weight is a convolution's.
    """

    base: Entry
    a: Entry
    b: Entry
    scale: float
    is_transposed: bool

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Compute the rows in which the wanted bytes lie."""
        form = dtypes.to_numpy(self.base.dtype)
        own = np.empty(len(buffer) // form.itemsize, form)
        self.base.source.read_into(own.view(np.uint8).data, offset)
        left, right = self._factors()
        width, first = right.shape[1], offset // form.itemsize
        start, end = first // width, -(-(first + own.size) // width)
        product = (left[start:end] @ right).reshape(-1)[first - start * width :][: own.size]
        with np.errstate(all="ignore"):
            values = dtypes.rounded(own.astype(np.float64) + self.scale * product, form)
        buffer[:] = values.view(np.uint8).data

    def _factors(self) -> tuple[np.ndarray, np.ndarray]:
        """Two matrices in double precision whose product has the weight's rows."""
        rank = self.a.shape[0]
        a, b = _doubles(self.a).reshape(rank, -1), _doubles(self.b).reshape(-1, rank)
        return (a.T, b.T) if self.is_transposed else (b, a)


def _doubles(entry: Entry) -> np.ndarray:
    raw = np.empty(entry.nbytes, np.uint8)
    entry.source.read_into(raw.data, 0)
    return raw.view(dtypes.to_numpy(entry.dtype)).astype(np.float64)


def _merged(base: Checkpoint, adapter: Checkpoint, lora: Lora) -> Iterator[Tensor]:
    """What differs from the base: tensors that the adapter replaces, then those with a product added."""
    parts, replaced = _parts(adapter)
    whole = {module: sides for module, sides in parts.items() if len(sides) == 2}
    if len(whole) < len(parts) or not parts:
        halves = listing([module for module in parts if module not in whole])
        what = "has no pairs of low-rank factors" + (f" for {halves}" if halves else "")
        raise MismatchError(f"{adapter.path} {what}", remedy="save it anew with save_pretrained")
    names = _names_in(base, [f"{module}.weight" for module in parts], replaced)
    given = {names.get(name, name): entry for name, entry in replaced.items()}
    for name, entry in given.items():
        yield Tensor(name, entry.shape, entry.dtype, entry.source)
    missing = [name for module in parts if (name := names.get(f"{module}.weight", f"{module}.weight")) not in base]
    if missing:
        remedy = "name a base that holds it, under this name too where it is tied: peft:BASE+ADAPTER"
        raise MismatchError(f"{base.path} lacks what {adapter.path} adds to: {listing(missing)}", remedy=remedy)
    turned = _is_turned(base, whole, names, lora)
    for module, sides in whole.items():
        name = names.get(f"{module}.weight", f"{module}.weight")
        (a_key, a), (_, b) = sorted(sides.items())
        own = given.get(name, base[name])
        product = Product(own, a, b, lora.scale(module, a.shape[0]), turned or a_key.startswith("embedding"))
        if not _fits(product):
            shapes = " and ".join(str(list(side.shape)) for side in (a, b))
            raise MismatchError(f"{name} is {list(own.shape)} in {base.path}, and its factors are {shapes}",
                                remedy="name the right base: peft:BASE+ADAPTER")  # fmt: skip
        yield Tensor(name, own.shape, own.dtype, product)


def _parts(adapter: Checkpoint) -> tuple[dict[str, dict[str, Entry]], dict[str, Entry]]:
    """The low-rank factors by module and side (`A`, `B`, `embedding_A`, …), and the tensors that are whole."""
    factors: dict[str, dict[str, Entry]] = defaultdict(dict)
    replaced: dict[str, Entry] = {}
    for name, entry in adapter.items():
        short = name.removeprefix(_OUTSIDE).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
        module, mark, rest = short.rpartition(".lora_")
        side = rest.partition(".")[0]
        if not mark:
            replaced[short] = entry
        elif (
            side in ("A", "B", "embedding_A", "embedding_B") and dtypes.is_float(entry.dtype) and all(entry.shape)
        ):
            factors[module][side] = entry
        else:
            raise FormatError(f"{adapter.path} is more than low-rank products ({name})",
                              remedy="merge it with peft, and save what comes of it")  # fmt: skip
    return factors, replaced


def _names_in(base: Checkpoint, weights: list[str], replaced: Mapping[str, Entry]) -> dict[str, str]:
    """The base's names for the adapter's: the adapter may have been made under a head, or without one."""
    names = dict(correspondence(weights, base).names)
    old, new = next(iter(names.items()), ("", ""))
    for name in replaced:
        moved = name
        if old.endswith(new):
            moved = name.removeprefix(old[: len(old) - len(new)])
        elif new.endswith(old):
            moved = new[: len(new) - len(old)] + name
        if name not in base and moved in base:
            names[name] = moved
    return names


def _is_turned(
    base: Checkpoint, parts: Mapping[str, Mapping[str, Entry]], names: Mapping[str, str], lora: Lora
) -> bool:
    """Whether the base keeps its weights as (in, out): a weight that is not square tells, whatever was written."""
    for module, sides in parts.items():
        if "A" in sides and "B" in sides:
            weight = base[names.get(f"{module}.weight", f"{module}.weight")]
            ways = [_fits(Product(weight, sides["A"], sides["B"], 1.0, turned)) for turned in (False, True)]
            if ways[0] != ways[1]:
                return ways[1]
    return lora.is_transposed


def _fits(product: Product) -> bool:
    """Whether the factors give a matrix of the weight's rows and columns."""
    weight, a, b = product.base, product.a, product.b
    if len(weight.shape) < 2 or not dtypes.is_float(weight.dtype) or not weight.numel:
        return False
    rank, rows = a.shape[0], weight.shape[0]
    if b.numel % rank:
        return False
    outer, inner = b.numel // rank, a.numel // rank
    return (rows, weight.numel // rows) == ((inner, outer) if product.is_transposed else (outer, inner))


FORMAT = Format("peft adapter", open_adapter, inside=_inside)
