"""A captured graph with fewer or cheaper operations, equal but for rounding: pure data to pure data.

Batch norm is folded into the convolution before it; a map that is made twice as large only to be convolved isn't
made; convolutions take their weights channels last, and what follows keeps that order.
"""

import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ckptswap.scoring.folded import channels_last, doubling, folded_bias, folded_weight, without
from ckptswap.scoring.graph import Graph, Ref, Step

_ATEN = torch.ops.aten
_NORMS = (_ATEN.native_batch_norm.default, _ATEN.cudnn_batch_norm.default)
_CONVOLUTION = _ATEN.convolution.default


def shortened(graph: Graph, given: Mapping[int, Tensor], *, laid_out: bool = True) -> Graph:
    """The graph by a shorter way; `given` are the recipient's tensors and a batch's by their number, for their
    shapes.

    Steps that depend on the state alone come first, and are run once. `laid_out`: for calls of one variant each,
    with everything in the order that convolutions take best.

    >>> from torch import nn, zeros
    >>> from ckptswap.scoring.graph import capture
    >>> model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)).eval()
    >>> batch = zeros(1, 1, 4, 4)
    >>> graph = capture(model, batch, lambda output: output)
    >>> own = dict([*model.named_parameters(), *model.named_buffers()])
    >>> state = {graph.state[name]: value for name, value in own.items()}
    >>> short = shortened(graph, state | graph.given(batch))
    >>> [getattr(step.op, "__name__", "") for step in short.steps], short.settled
    (['folded_weight', 'folded_bias', 'channels_last', 'convolution.default'], 3)
    """
    for rule in (_fold, _halve, *((_lay_out, _pack, _join_relu) if laid_out else ()), _loosen):
        draft = _Draft(graph, given)
        for step in graph.steps:
            draft.put(step)
            rule(draft, step)
        graph = draft.graph()
    return graph


class _Draft:
    """A graph's steps by what they give, in order, as they are rewritten."""

    def __init__(self, graph: Graph, given: Mapping[int, Tensor]) -> None:
        self._graph, self._held = graph, {**given, **graph.constants}
        self.steps: dict[int, Step] = {}
        self._readers = Counter(value for step in graph.steps for value in step.reads) + Counter([graph.output])
        self._settled, self._moved = set(self._held).difference(graph.inputs), dict[int, int]()
        self._last = max(*self._held, *(step.gives for step in graph.steps))
        self.can_pack = torch.backends.mkldnn.is_available() and all(map(_is_plain, self._held.values()))

    def put(self, step: Step) -> None:
        """Add a step, or put another in its place."""
        self.steps.pop(step.gives, None)
        self.steps[step.gives] = step
        if self._settled.issuperset(step.reads):
            self._settled.add(step.gives)

    def made(self, op: Callable[..., Any], *args: Any, like: Step | None = None, **told: Any) -> Ref:
        """The result of a step more, which depends on the state alone unless it is `like` another."""
        self._last += 1
        self.put(_step(op, args, self._last, like, **told))
        return Ref(self._last)

    def instead(self, step: Step, op: Callable[..., Any], *args: Any, **told: Any) -> None:
        """Give what a step gives by another operation."""
        self.put(_step(op, args, step.gives, step, **told))

    def without(self, *steps: Step) -> None:
        """Take steps out whose results nobody reads any more."""
        for step in steps:
            del self.steps[step.gives]

    def maker(self, value: Any) -> Step | None:
        """The step that gives a value, where nothing else reads it."""
        is_read_once = isinstance(value, Ref) and self._readers[value.value] == 1
        return self.steps.get(value.value) if is_read_once else None

    def is_of_batch(self, value: Ref) -> bool:
        """Whether a value is the batch's own."""
        return value.value in self._graph.inputs

    def is_settled(self, *values: Any) -> bool:
        return all(value is None or value.value in self._settled for value in values)

    def shape(self, value: Ref) -> tuple[int, ...]:
        """A value's shape, () where it is no tensor."""
        if value.value in self._held:
            return tuple(self._held[value.value].shape)
        return (value.value in self.steps and self.steps[value.value].shape) or ()

    def moved(self, old: int, new: int) -> None:
        """What lay in the memory of one value lies in another's now."""
        self._moved[old] = new

    def graph(self) -> Graph:
        steps = [replace(step, memory=self._moved.get(step.memory, step.memory)) for step in self.steps.values()]
        first = [step for step in steps if step.gives in self._settled]
        last = [step for step in steps if step.gives not in self._settled]
        return replace(self._graph, steps=(*first, *last), settled=len(first))


def _step(op: Callable[..., Any], args: Sequence[Any], gives: int, like: Step | None, **told: Any) -> Step:
    reads = tuple(dict.fromkeys(_values(args)))
    plain = Step(gives, op, tuple(args), {}, reads, gives, 0, 0, None)
    if like is not None:
        plain = replace(plain, nbytes=like.nbytes, flops=like.flops, shape=like.shape)
    return replace(plain, **told)


def _values(template: Any) -> list[int]:
    if isinstance(template, Ref):
        return [template.value]
    return [value for part in template for value in _values(part)] if isinstance(template, list | tuple) else []


def _fold(draft: _Draft, step: Step) -> None:
    """A batch norm goes into the convolution before it, where nobody else reads either."""
    norm = draft.maker(step.args[0]) if step.op is operator.getitem and step.args[1] == 0 else None
    if norm is None or norm.op not in _NORMS or norm.args[5]:
        return
    source, scale, shift, mean, variance, *_, eps = norm.args
    conv = draft.maker(source)
    if conv is None or conv.op is not _CONVOLUTION:
        return
    given, weight, bias, *rest = conv.args
    transposed, groups = rest[3], rest[5]
    if (transposed and groups > 1) or not draft.is_settled(weight, bias, scale, shift, mean, variance):
        return
    draft.without(conv, norm)
    draft.moved(norm.gives, step.gives)
    shape, channels = draft.shape(weight), 1 if transposed else 0
    weight = draft.made(folded_weight, weight, scale, variance, eps, channels, shape=shape)
    bias = draft.made(folded_bias, bias, scale, shift, mean, variance, eps)
    draft.put(_step(_CONVOLUTION, [given, weight, bias, *rest], step.gives, conv))


_THREE = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
"""A convolution's stride, padding, dilation, whether it is transposed, padding of its output, groups."""
_TWICE = ([2, 2], [1, 1], [1, 1], True, [0, 0], 1)


def _halve(draft: _Draft, step: Step) -> None:
    """A 3×3 convolution of a map that was made twice as large by repetition takes the map as it was: 4 products
    instead of 9. What else it reads is convolved by itself, which a swap before the map then leaves alone."""
    if step.op is not _CONVOLUTION or tuple(step.args[3:]) != _THREE:
        return
    source, weight, bias = step.args[:3]
    if draft.shape(weight)[2:] != (3, 3) or not draft.is_settled(weight, bias):
        return
    joined = draft.maker(source)
    is_joined = joined is not None and joined.op is _ATEN.cat.default and joined.args[1:] == (1,)
    parts = joined.args[0] if joined is not None and is_joined else [source]
    at = next((at for at, part in enumerate(parts) if _is_doubled(draft, draft.maker(part))), None)
    widths = [draft.shape(part)[1:2] for part in parts]
    if at is None or not all(widths):
        return
    first, width = sum(each[0] for each in widths[:at]), widths[at][0]
    doubled, all_channels = draft.maker(parts[at]), draft.shape(weight)[1]
    assert doubled is not None
    others = [part for part in parts if part is not parts[at]]
    share = width / all_channels
    draft.without(doubled, *([joined] if is_joined and joined is not None else []))
    wide = draft.shape(weight)[0]
    small = draft.made(doubling, weight, first, first + width, shape=(width, wide, 4, 4))
    told = [doubled.args[0], small, bias, *_TWICE]
    if not others:
        draft.instead(step, _CONVOLUTION, *told, flops=step.flops * 4 // 9)
        return
    large = draft.made(_CONVOLUTION, *told, like=step, flops=int(step.flops * share * 4 / 9))
    rest = others[0]
    if len(others) > 1:
        assert joined is not None
        shape = (step.shape[0], all_channels - width, *step.shape[2:]) if step.shape else None
        told_of = {"nbytes": int(joined.nbytes * (1 - share)), "shape": shape}
        rest = draft.made(_ATEN.cat.default, others, 1, like=joined, **told_of)
    kept = draft.made(without, weight, first, first + width, shape=(wide, all_channels - width, 3, 3))
    same = draft.made(_CONVOLUTION, rest, kept, None, *_THREE, like=step, flops=int(step.flops * (1 - share)))
    draft.instead(step, _ATEN.add.Tensor, large, same, flops=0, overwrite=_ATEN.add_.Tensor)


def _is_doubled(draft: _Draft, step: Step | None) -> bool:
    if step is None or step.op is not _ATEN.upsample_nearest2d.default:
        return False
    before, after = draft.shape(step.args[0])[2:], step.args[1]
    return bool(before) and [2 * side for side in before] == list(after)


def _lay_out(draft: _Draft, step: Step) -> None:
    """A convolution takes its weight channels last, and with that gives its result so."""
    if step.op is not _CONVOLUTION:
        return
    given, weight, *rest = step.args
    if draft.is_settled(weight) and len(draft.shape(weight)) == 4:
        weight = draft.made(channels_last, weight, shape=draft.shape(weight))
        draft.instead(step, _CONVOLUTION, given, weight, *rest)


_MKLDNN = torch.ops.mkldnn


def _is_plain(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and (tensor.dtype == torch.float32 or not tensor.is_floating_point())


def _pack(draft: _Draft, step: Step) -> None:
    """oneDNN puts a convolution's weight into an order of its own at each call: here once. A batch is taken as it
    is by a convolution that isn't packed, whose result has its channels last all the same."""
    if step.op is not _CONVOLUTION or not draft.can_pack or draft.is_of_batch(step.args[0]):
        return
    given, weight, bias, stride, padding, dilation, transposed, _, groups = step.args
    known = draft.steps.get(weight.value)
    if transposed or known is None or known.op is not channels_last or not draft.is_settled(weight):
        return
    form = padding, stride, dilation, groups
    order = _MKLDNN._reorder_convolution_weight.default
    packed = draft.made(order, weight, *form, list(draft.shape(given)), shape=known.shape)
    draft.instead(step, _JOINED, given, packed, bias, *form, "none", [], "")


_JOINED = _MKLDNN._convolution_pointwise.default


def _join_relu(draft: _Draft, step: Step) -> None:
    """A convolution does what follows it while its result is at hand."""
    conv = draft.maker(step.args[0]) if step.op is _ATEN.relu.default else None
    if conv is not None and conv.op is _JOINED:
        draft.without(conv)
        draft.instead(step, _JOINED, *conv.args[:-3], "relu", [], "", flops=conv.flops, overwrite=None)


def _loosen(draft: _Draft, step: Step) -> None:
    """A view of what lies in another order than it was traced in is a copy."""
    if step.op is _ATEN.view.default:
        draft.put(replace(step, op=_ATEN.reshape.default))
