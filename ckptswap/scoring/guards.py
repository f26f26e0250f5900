"""What a model asks of values while it is traced, and what must therefore hold of every batch that it is for.

Fake tensors have no values. Where control flow or shapes depend on some (is anything masked? how long is the
longest sentence?), those that the batch alone decides are computed from what was traced so far. Each such answer
is a *guard*: the graph is that of batches for which it comes out the same. What a swap can change has no answer.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import (
    disable_proxy_modes_tracing,
    get_proxy_mode,
    get_proxy_slot,
    track_tensor_tree,
)
from torch.fx.node import map_arg
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from ckptswap.errors import listing

ANSWER = "answer"
"""Under this name a traced node holds what its value said, where it is a guard."""
_ATEN = torch.ops.aten


class Uncapturable(Exception):
    """The model cannot be captured; the text says why."""


def answer(value: Any) -> str:
    """What a guard compares: a number in all its digits, of a tensor its shape.

    >>> answer(True), answer(torch.zeros(2, 1)), answer((torch.zeros(3), 0.1))
    ('True', '[2, 1]', '([3], 0.1)')
    """
    return repr(tree_map_only(Tensor, lambda tensor: list(tensor.shape), value))


class Answers(TorchDispatchMode):
    """In here a model that is traced gets answers; the nodes that are guards keep theirs under `ANSWER`.

    The graph's placeholders stand for `state`, then for `inputs`; `swappable` names what of the state a swap can
    change. Raises `Uncapturable` where an answer depends on that.
    """

    def __init__(self, state: Sequence[Tensor], inputs: Sequence[Tensor], swappable: Mapping[int, str]) -> None:
        super().__init__()
        self._given, self._swappable, self._firsts = [*state, *inputs], swappable, len(state)
        self._numbers: dict[Node, int] = {}
        self._values: dict[Node, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN._pack_padded_sequence.default:
            return self._packed(*args)
        if torch.Tag.data_dependent_output in func.tags:
            return self._value(self._asked(func, args, kwargs))
        if torch.Tag.dynamic_output_shape not in func.tags or _has_known_shape(func, args, kwargs):
            return func(*args, **kwargs)
        if func is _ATEN.index.Tensor:
            return self._indexed(*args)
        if func is _ATEN.masked_select.default:
            source, mask = _broadcast(*args)
            return self._indexed(source, [mask])
        return self._shaped(func, args, kwargs)

    def _indexed(self, source: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
        """Indexing by masks, which alone decide the shape: by the places that they name, as torch does it."""
        places: list[Tensor | None] = []
        for index in indices:
            if _is_mask(index):
                chosen = self._shaped(_ATEN.nonzero.default, (index,), {})
                places += [_ATEN.select.int(chosen, 1, dim) for dim in range(index.dim())]
            else:
                places.append(index)
        return _ATEN.index.Tensor(source, places)

    def _packed(self, sentences: Tensor, lengths: Tensor, batch_first: bool) -> Any:
        """Packing as indexing: which words are taken, and in which order, the lengths alone decide."""
        count, width = sentences.shape[:2]
        numbers = _ATEN.view.default(_ATEN.arange.default(count * width, device=sentences.device), [count, width])
        taken, sizes = self._shaped(_ATEN._pack_padded_sequence.default, (numbers, lengths, batch_first), {})
        places = [_ATEN.div.Scalar_mode(taken, width, rounding_mode="floor"), _ATEN.remainder.Scalar(taken, width)]
        return _ATEN.index.Tensor(sentences, places), sizes

    def _shaped(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A fake result of the shape that the batch gives it."""
        proxy = self._asked(func, args, kwargs)
        with disable_proxy_modes_tracing():
            fake = tree_map_only(
                Tensor,
                lambda real: torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=real.device),
                self._value(proxy),
            )
        mode = get_proxy_mode()
        assert mode is not None
        return track_tensor_tree(fake, proxy, constant=None, tracer=mode.tracer)

    def _asked(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The operation in the graph, when no swap can change it; a guard where the batch decides."""
        mode = get_proxy_mode()
        assert mode is not None
        tracer = mode.tracer

        def traced(tensor: Tensor) -> Any:
            return get_proxy_slot(tensor, tracer, tensor, lambda slot: slot.proxy)

        proxy = tracer.create_proxy("call_function", func, *tree_map_only(Tensor, traced, (args, kwargs)))
        above = [self._number(node) for node in _above(proxy.node) if node.op == "placeholder"]
        swapped = [self._swappable[number] for number in sorted(above) if number in self._swappable]
        if swapped:
            raise Uncapturable(f"what it does depends on the values of {listing(swapped, most=3)}")
        if any(number >= self._firsts for number in above):
            proxy.node.meta[ANSWER] = answer(self._value(proxy))
        return proxy

    def _number(self, placeholder: Node) -> int:
        if not self._numbers:
            nodes = (node for node in placeholder.graph.nodes if node.op == "placeholder")
            self._numbers = {node: number for number, node in enumerate(nodes)}
        return self._numbers[placeholder]

    def _value(self, proxy: Any) -> Any:
        """What the batch gives for a node; all that it depends on was traced before it."""
        with _disable_current_modes(), torch.inference_mode():
            for node in _above(proxy.node):
                if node not in self._values:
                    self._values[node] = self._computed(node, proxy.tracer.root)
        return self._values[proxy.node]

    def _computed(self, node: Node, root: object) -> Any:
        if node.op == "placeholder":
            return self._given[self._number(node)]
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(root)
        args, kwargs = map_arg((node.args, node.kwargs), self._values.__getitem__)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _is_mask(index: Tensor | None) -> TypeGuard[Tensor]:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _has_known_shape(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the shape of this call's result is the same for all values."""
    if func is _ATEN.index.Tensor:
        return not any(map(_is_mask, args[1]))
    if func is _ATEN.one_hot.default:
        return kwargs.get("num_classes", [*args, -1][1]) >= 0
    if func is _ATEN.repeat_interleave.Tensor:
        return kwargs.get("output_size") is not None
    return func in (_ATEN._ctc_loss.default, _ATEN._ctc_loss.Tensor, _ATEN.linalg_lstsq.default)


def _above(node: Node) -> list[Node]:
    """All that a node depends on, and the node itself, in an order in which they can be computed."""
    order: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        missing = [other for other in waiting[-1].all_input_nodes if other not in order]
        if missing:
            waiting += missing
        else:
            order[waiting.pop()] = None
    return list(order)


def _broadcast(source: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(source.shape, mask.shape)
    return _ATEN.expand.default(source, shape), _ATEN.expand.default(mask, shape)
