"""Inputs and targets as trees: one tensor, or tuples and dicts of trees, which are pytrees to torch.

The first dimension of every tensor of a batch are its samples. A dict's keys are in one order, whatever order the
data gives them in, so that the same tensors are the same data. Texts and other plain values that are no numbers
(`Plain`) stay with the data: they are hashed by their repr, no model sees them, and a metric gets them as a list.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from ckptswap.errors import DataError, MetricError
from ckptswap.task import arrays

Tree = Any
"""A tensor, or a tuple or dict of trees."""
Form = tuple[Any, ...]
"""What a captured model depends on of its input: names, shapes and dtypes. Of one tensor (shape, dtype)."""


@dataclass(frozen=True)
class Plain:
    """A text, None, or a list of such: in a batch one for each sample, or the same for all."""

    value: Any


def tree_of(value: object, where: str) -> Tree:
    """What a data set gives, as a tree of copies: a source may use its memory again, and a slice would keep all.

    Numbers, and lists of numbers, are tensors. Raises `DataError` for what is neither tensor nor plain.

    >>> tree_of({"mask": [1, 0], "image": np.zeros(2), "name": "a"}, "sample 0")
    {'image': tensor([0., 0.], dtype=torch.float64), 'mask': tensor([1, 0]), 'name': Plain(value='a')}
    """
    try:
        return _tree_of(value, where)
    except RecursionError:
        raise DataError(f"{where} holds itself, or is nested too deep", remedy="flatten it") from None


def _tree_of(value: object, where: str) -> Tree:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DataError(f"{where} holds a dict whose keys are not texts", remedy="name what is in it")
        return {key: _tree_of(value[key], where) for key in sorted(value)}
    if _has_parts(value):
        return tuple(_tree_of(part, where) for part in value)  # type: ignore[attr-defined]
    if _is_plain(value):
        return Plain(value)
    try:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value.copy())
        return torch.as_tensor(value).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError):
        raise DataError(
            f"{where} holds a {type(value).__name__}", remedy="it must hold tensors or arrays"
        ) from None


def _has_parts(value: object) -> bool:
    """Whether a tuple or list is one of tensors; of numbers it is itself one, and so is a list of arrays."""
    if not isinstance(value, tuple | list):
        return False
    kinds: tuple[type, ...] = (Tensor, np.ndarray) if isinstance(value, tuple) else (Tensor,)
    return any(
        isinstance(part, Mapping) or (isinstance(part, kinds) and part.ndim) or _has_parts(part)  # type: ignore[attr-defined]
        for part in value
    )


def _is_plain(value: object) -> bool:
    """Whether it is a text or None, or a list of such."""
    if isinstance(value, tuple | list):
        return bool(value) and all(map(_is_plain, value))
    return value is None or isinstance(value, str | bytes)


def leaves(tree: Tree) -> list[Tensor]:
    """Its tensors, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def mapped(change: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The tree with every tensor changed."""
    return tree_map_only(Tensor, change, tree)


def form_of(tree: Tree) -> Form:
    """Shape and dtype of every tensor, by its place in the tree.

    >>> form_of(torch.zeros(2)), form_of({"x": torch.zeros(3)})
    (((2,), torch.float32), (('x', ((3,), torch.float32)),))
    """
    if isinstance(tree, Tensor):
        return tuple(tree.shape), tree.dtype
    if isinstance(tree, dict):
        return tuple((key, form_of(part)) for key, part in tree.items())
    return tuple(map(form_of, tree)) if isinstance(tree, tuple | list) else (type(tree).__name__,)


def names_of(form: Form) -> tuple[str, ...]:
    """The names of a dict's tensors, from its form; none of anything else.

    >>> names_of(form_of({"x": torch.zeros(3), "file": Plain("a.png")})), names_of(form_of(torch.zeros(2)))
    (('x',), ())
    """
    if not form or not isinstance(form[0], tuple) or len(form[0]) != 2 or not isinstance(form[0][0], str):
        return ()
    return tuple(key for key, part in form if part != (Plain.__name__,))


def values_of(form: object) -> int:
    """How many values tensors of a form hold; of the form of a sample behind a number, so many samples of it.

    >>> values_of(form_of(torch.zeros(2, 3))), values_of(form_of({"x": torch.zeros(3), "file": Plain("a.png")}))
    (6, 3)
    >>> values_of((8, *form_of(torch.zeros(2, 3))))
    48
    """
    if not isinstance(form, tuple) or not form:
        return 0
    if isinstance(form[0], int):
        return form[0] * values_of(form[1:])
    if len(form) == 2 and isinstance(form[1], torch.dtype):
        return math.prod(form[0])
    return sum(map(values_of, form))


def bytes_of(tree: Tree) -> Iterator[bytes | memoryview]:
    """What tells trees of one form apart: their tensors' bytes, and the repr of what is plain."""
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            yield arrays.bytes_of(leaf).data
        else:
            yield repr(leaf).encode("utf-8", "surrogatepass")


def described(tree: Tree) -> str:
    """Its shapes, for messages.

    >>> described(torch.zeros(2, 3)), described({"x": torch.zeros(3), "y": (torch.zeros(1),)})
    ('[2, 3]', '{x: [3], y: ([1])}')
    """
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{key}: {described(part)}" for key, part in tree.items()) + "}"
    if isinstance(tree, tuple | list):
        return "(" + ", ".join(map(described, tree)) + ")"
    return str(list(tree.shape)) if isinstance(tree, Tensor) else type(tree).__name__


def size_of(batch: Tree) -> int:
    """How many samples a batch holds."""
    return len(leaves(batch)[0])


def sizes_of(batch: Tree) -> list[int]:
    """How many samples each part of a batch holds that has one for each: 0 in a tensor without dimensions.

    >>> sizes_of({"x": torch.zeros(2, 3), "names": Plain(["a"]), "all": Plain("b")})
    [2, 1]
    """
    sizes = []
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor):
            sizes.append(len(leaf) if leaf.dim() else 0)
        elif isinstance(leaf.value, tuple | list):
            sizes.append(len(leaf.value))
    return sizes


def sample_at(batch: Tree, at: int) -> Tree:
    """One sample of a batch."""
    if isinstance(batch, dict):
        return {key: sample_at(part, at) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(sample_at(part, at) for part in batch)
    if isinstance(batch, Plain):
        return Plain(batch.value[at]) if isinstance(batch.value, tuple | list) else batch
    return batch[at]


def stacked(samples: Sequence[Tree]) -> Tree:
    """A batch of samples of one form; what is plain becomes a list.

    >>> stacked([{"x": torch.tensor(1), "name": Plain("a")}, {"x": torch.tensor(2), "name": Plain("b")}])
    {'x': tensor([1, 2]), 'name': ['a', 'b']}
    """
    first = samples[0]
    if isinstance(first, dict):
        return {key: stacked([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple):
        return tuple(stacked(parts) for parts in zip(*samples, strict=True))
    return [sample.value for sample in samples] if isinstance(first, Plain) else torch.stack(list(samples))


def without_plain(tree: Tree) -> Tree:
    """The tree with its tensors only, as a model gets it."""
    if isinstance(tree, dict):
        return {key: without_plain(part) for key, part in tree.items() if not isinstance(part, Plain)}
    if isinstance(tree, tuple):
        return tuple(without_plain(part) for part in tree if not isinstance(part, Plain))
    return tree


def taken(model: Callable[..., Any], inputs: Tree) -> Tree:
    """What of a batch the model takes: of a dict what its arguments are named, all of anything else.

    A model that has none of the names among its arguments, and only one that must be given, takes the dict whole;
    or the only tensor in it, where the argument is annotated as a tensor.

    >>> taken(lambda image, mask: image, {"image": 1, "mask": 2, "index": 3})
    {'image': 1, 'mask': 2}
    >>> def net(x: Tensor): ...
    >>> taken(net, {"image": torch.zeros(2)})
    tensor([0., 0.])
    """
    if not isinstance(inputs, dict) or _takes_whole(model, inputs):
        held = leaves(inputs) if isinstance(inputs, dict) else ()
        return held[0] if len(held) == 1 and _wants_tensor(model) else inputs
    return {key: inputs[key] for key in inputs if key not in not_taken(model, tuple(inputs))}


def not_taken(model: Callable[..., Any], names: Sequence[str]) -> tuple[str, ...]:
    """Which of the names that a dict has a model takes by no argument.

    >>> not_taken(lambda image, mask: image, ["image", "index"]), not_taken(lambda **all: all, ["index"])
    (('index',), ())
    """
    parameters = _parameters(model)
    takes_any = not parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if takes_any or _takes_whole(model, names):
        return ()
    by_name = {
        name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    }
    return tuple(name for name in names if name not in by_name)


def _takes_whole(model: Callable[..., Any], names: Sequence[str] | Mapping[str, Any]) -> bool:
    parameters = _parameters(model)
    if not parameters or any(name in parameters for name in names):
        return False
    needed = [one for one in parameters.values() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    return len(needed) == 1 and needed[0].kind in (needed[0].POSITIONAL_ONLY, needed[0].POSITIONAL_OR_KEYWORD)


def _wants_tensor(model: Callable[..., Any]) -> bool:
    """Whether its first argument is annotated as one tensor, maybe in a text."""
    first = next(iter(_parameters(model).values()))
    return first.annotation is Tensor or first.annotation in ("Tensor", "torch.Tensor")


def _parameters(model: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(getattr(model, "forward", model)).parameters
    except (TypeError, ValueError):  # some builtins have none
        return {}


def call(model: Callable[..., Any], inputs: Tree) -> Any:
    """Run a model: a dict are its arguments by name, a tuple by position, a tensor is the only one.

    >>> call(lambda image, mask: image + mask, {"mask": 1, "image": 2}), call(max, (1, 2))
    (3, 2)
    >>> call(lambda batch: sorted(batch), {"mask": 1, "image": 2})
    ['image', 'mask']
    """
    if isinstance(inputs, dict) and not _takes_whole(model, inputs):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def only_tensor(tree: Tree, metric: str) -> Tensor:
    """A target that is one tensor. Raises `MetricError` for another."""
    if not isinstance(tree, Tensor):
        raise MetricError(
            f"{metric} compares with one tensor, and the target is {described(tree)}",
            remedy="score with a function of your own: --metric file.py:function",
        )
    return tree
