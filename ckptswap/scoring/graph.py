"""A model as a list of operations on numbered values, captured for one shape of input.

The model is traced once with fake tensors (no memory, no arithmetic) and without mutation, so that what an
operation reads and gives is all there is to know of it. Where control flow depends on values, the batch's own are
looked at and become guards of the graph; a model in which a swap decides cannot be captured. Source: `make_fx` and
`functionalize` of torch; why these, docs/architecture.md tells.
"""

import contextlib
import logging
import operator
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

from ckptswap.errors import ModelError
from ckptswap.scoring.guards import ANSWER, Answers, Uncapturable
from ckptswap.scoring.layers import PlainLayers
from ckptswap.task.callables import STDOUT_ASIDE, first_line
from ckptswap.task.tree import Tree, call, leaves
from ckptswap.ties import Extent, extent_of

Place = Extent | int
"""Where a tensor's bytes lie; of one without any, its id."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value's number, where an operation's arguments name it."""

    value: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation: it reads the values `reads` and gives the value `gives`.

    `overwrite` does the same in the memory of its first argument; None where that is impossible. `memory` is the
    value in whose memory its result lies (itself, unless it is a view). `nbytes` is the size of its result, 0 for
    a view; `flops` counts convolutions and matrix products. `shape` is its result's, None where that is no tensor.
    """

    gives: int
    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    reads: tuple[int, ...]
    memory: int
    nbytes: int
    flops: int
    overwrite: Callable[..., Any] | None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Graph:
    """All operations that the output depends on, in an order in which they can run.

    `state` gives the number of each of the model's tensors (tied ones share it), `constants` the tensors that the
    model holds beside them, `inputs` the numbers of a batch's tensors. It holds for batches on which the steps
    `asking` give the values in `guards` what these say (see `guards.answer`); no swap changes them. The first
    `settled` steps depend on no batch, and are run once.
    """

    state: Mapping[str, int]
    constants: Mapping[int, Tensor]
    inputs: tuple[int, ...]
    output: int
    steps: tuple[Step, ...]
    asking: tuple[Step, ...] = ()
    guards: Mapping[int, str] = field(default_factory=dict)
    settled: int = 0

    def given(self, batch: Tree) -> dict[int, Tensor]:
        """A batch's tensors by their numbers."""
        return dict(zip(self.inputs, leaves(batch), strict=True))

    @property
    def read(self) -> frozenset[int]:
        """The values that some operation reads."""
        return frozenset(value for step in self.steps for value in step.reads)

    @property
    def flops(self) -> int:
        """Of one whole forward pass."""
        return sum(step.flops for step in self.steps)


def capture(model: nn.Module, batch: Tree, pick: Callable[[object], Tensor]) -> Graph:
    """Trace a model in eval mode on a batch's form, and on its values where the model asks for these; `pick` takes
    the one tensor of its output.

    Raises `Uncapturable` where the model cannot be captured, and `ModelError` for one that draws random numbers.

    >>> graph = capture(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.zeros(4, 2), lambda output: output)
    >>> [str(step.op) for step in graph.steps], graph.flops
    (['aten.t.default', 'aten.addmm.default', 'aten.relu.default'], 48)
    """
    tensors = _state(model)
    try:
        return _graph(_traced(model, tensors, batch, pick), model, tensors)
    except (ModelError, Uncapturable):
        raise
    except Exception as error:  # torch raises anything here: what it cannot trace has no class of its own
        raise Uncapturable(first_line(error)) from None


def _place(tensor: Tensor) -> Place:
    """What tells a tensor from others: where its bytes lie, whatever object it is reached by."""
    return extent_of(tensor) or id(tensor)


def _state(model: nn.Module) -> dict[Place, Tensor]:
    """Every parameter and buffer once. Raises `Uncapturable` where two share memory without being one tensor, or
    where what is saved and loaded is something else.
    """
    tensors: dict[Place, Tensor] = {}
    for _, tensor in _all_names(model):
        if is_traceable_wrapper_subclass(tensor):
            raise Uncapturable(f"it holds tensors of a library's own class, {type(tensor).__name__}")
        tensors.setdefault(_place(tensor), tensor)
    held = {name: tensor.untyped_storage().data_ptr() for name, tensor in _all_names(model)}
    saved = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    if any(held.get(name) != tensor.untyped_storage().data_ptr() for name, tensor in saved.items()):
        raise Uncapturable("it saves tensors that its modules do not hold")
    places = [tensor.untyped_storage().data_ptr() for tensor in tensors.values() if tensor.numel()]
    if len(set(places)) < len(places):
        raise Uncapturable("tensors of the model are views of each other")
    return tensors


def _traced(
    model: nn.Module, tensors: Mapping[Place, Tensor], batch: Tree, pick: Callable[[object], Tensor]
) -> GraphModule:
    places, state = list(tensors), list(tensors.values())
    inputs, form = tree_flatten(batch)
    swappable = _swappable(model, places)

    def forward(state: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
        with _holding(model, dict(zip(places, state, strict=True))):
            return pick(call(model, tree_unflatten(inputs, form)))

    def trace(function: Callable[..., Any]) -> GraphModule:
        def answered(*args: Any) -> Any:
            with Answers(state, inputs, swappable), PlainLayers():
                return function(*args)

        pure = torch.func.functionalize(answered, remove="mutations")
        return make_fx(pure, tracing_mode="fake", _allow_non_fake_inputs=True)(state, inputs)

    with torch.no_grad(), _without_memory(), _unlogged(), warnings.catch_warnings(), STDOUT_ASIDE:
        warnings.simplefilter("ignore")
        traced = trace(forward)
        if any(map(_mutates, traced.graph.nodes)):  # in what torch takes apart when it is too late, such as a GRU
            traced = trace(traced)
        return traced


def _swappable(model: nn.Module, places: Sequence[Place]) -> dict[int, str]:
    """The names of the tensors that are saved and loaded, by their number among all."""
    saved = {_place(value): name for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {number: saved[place] for number, place in enumerate(places) if place in saved}


@contextlib.contextmanager
def _holding(model: nn.Module, values: Mapping[Place, Tensor]) -> Iterator[None]:
    """The model with other tensors in the places of its own, each under all of its names; its own come back.

    `torch.func.functional_call` leaves a model changed where one module is registered under two names.
    """
    slots: list[tuple[dict[str, Any], str, Any]] = [
        (table, key, value)
        for module in model.modules()
        for table in (module._parameters, module._buffers, vars(module))
        for key, value in table.items()
        if isinstance(value, Tensor) or type(value) in (list, tuple)
    ]

    def put(value: Any) -> Any:
        if type(value) in (list, tuple):  # an LSTM has a list of its parameters beside them
            return type(value)(map(put, value))
        return values.get(_place(value), value) if isinstance(value, Tensor) else value

    try:
        for table, key, value in slots:
            table[key] = put(value)
        yield
    finally:
        for table, key, value in slots:
            table[key] = value


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """torch logs where a fake tensor fails; ours is the error that is said, or none."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _without_memory() -> Iterator[None]:
    """While a model is traced, its tensors have no values: numpy would be given whatever lies in memory, and the
    numbers of a list are asked for one by one.
    """

    def numpy(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == here:  # other threads read data meanwhile
            raise Uncapturable("it leaves torch for numpy")
        return before["numpy"](self, *args, **kwargs)

    def tolist(self: Tensor) -> Any:
        if threading.get_ident() != here:
            return before["tolist"](self)
        return [part.tolist() for part in self.unbind()] if self.dim() else self.item()

    here = threading.get_ident()
    before = {name: getattr(torch.Tensor, name) for name in ("numpy", "tolist")}
    own = {name: vars(torch.Tensor).get(name) for name in before}
    try:
        torch.Tensor.numpy, torch.Tensor.tolist = numpy, tolist  # type: ignore[method-assign, assignment]
        yield
    finally:
        for name, method in own.items():
            delattr(torch.Tensor, name)  # most often they are inherited
            if method:
                setattr(torch.Tensor, name, method)


def _graph(traced: GraphModule, model: nn.Module, tensors: Mapping[Place, Tensor]) -> Graph:
    nodes = list(traced.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    numbers = {node: at for at, node in enumerate(sorted(nodes, key=lambda node: node.op != "placeholder"))}
    output: Any = next(node for node in nodes if node.op == "output").args[0]
    if isinstance(output, list | tuple) and len(output) == 1:  # some versions of torch put a list around it
        output = output[0]
    if not isinstance(output, Node):
        raise Uncapturable("its output does not depend on its input")
    held = {node: operator.attrgetter(str(node.target))(traced) for node in nodes if node.op == "get_attr"}
    constants = {numbers[node]: constant for node, constant in held.items()}
    _refuse_odd_constants(constants.values(), tensors.values())
    flops = _flops(nodes, constants, numbers)

    def steps(wanted: Sequence[Node]) -> tuple[Step, ...]:
        memory: dict[Node, Node] = {}
        found = []
        for node in _needed(nodes, wanted):
            if node.op == "call_function":
                _refuse_effects(node)
                memory[node] = _memory(node, memory)
                found.append(_step(node, numbers, memory, flops))
        return tuple(found)

    asked = [node for node in nodes if ANSWER in node.meta]
    guards = {numbers[node]: node.meta[ANSWER] for node in asked}
    places = {place: at for at, place in enumerate(tensors)}
    state = {name: places[_place(tensor)] for name, tensor in _all_names(model)}
    given = tuple(range(len(tensors), len(inputs)))
    return Graph(state, constants, given, numbers[output], steps([output]), steps(asked), guards)


def _all_names(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _refuse_odd_constants(constants: Iterable[Any], tensors: Iterable[Tensor]) -> None:
    """A parameter that the model also reaches by another way would be read as it was, whatever is swapped in."""
    places = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
    for constant in constants:
        if not isinstance(constant, Tensor):
            raise Uncapturable(f"it holds a {type(constant).__name__}")
        if constant.numel() and constant.untyped_storage().data_ptr() in places:
            raise Uncapturable("it reaches a parameter by another way than its module")


def _needed(nodes: Sequence[Node], outputs: Sequence[Node]) -> list[Node]:
    """What these depend on, in order; and whatever mutates, which `_refuse_effects` then refuses."""
    wanted = set(outputs)
    for node in reversed(nodes):
        if node in wanted or _mutates(node):
            wanted.add(node)
            wanted.update(node.all_input_nodes)
    return [node for node in nodes if node in wanted]


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _refuse_effects(node: Node) -> None:
    if _mutates(node):
        raise Uncapturable(f"{node.target} changes a tensor in place")
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return
    # Attention counts as random because it can drop weights; most often its probability is 0.
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if "dropout_p" not in names or given.get("dropout_p", 0.0) != 0.0:
        fault = f"the model draws random numbers in eval mode ({node.target})"
        raise ModelError(fault, remedy="switch dropout and its like off in eval mode")


def _memory(node: Node, memory: Mapping[Node, Node]) -> Node:
    """The node in whose memory a result lies: its own, or that of the first argument for views and parts."""
    first = node.args[0] if node.args else None
    schema = getattr(node.target, "_schema", None)
    is_view = schema is not None and any(result.alias_info is not None for result in schema.returns)
    if isinstance(first, Node) and (is_view or node.target is operator.getitem or schema is None):
        return memory.get(first, first)
    return node


def _step(node: Node, numbers: Mapping[Node, int], memory: Mapping[Node, Node], flops: Mapping[Node, int]) -> Step:
    own = memory[node] is node
    return Step(
        gives=numbers[node],
        op=node.target,  # type: ignore[arg-type]
        args=tuple(_template(argument, numbers) for argument in node.args),
        kwargs={name: _template(argument, numbers) for name, argument in node.kwargs.items()},
        reads=tuple(numbers[argument] for argument in node.all_input_nodes),
        memory=numbers[memory[node]],
        nbytes=_nbytes(node.meta.get("val")) if own else 0,
        flops=flops[node],
        overwrite=_overwrite(node) if own else None,
        shape=tuple(value.shape) if isinstance(value := node.meta.get("val"), Tensor) else None,
    )


def _template(value: Any, numbers: Mapping[Node, int]) -> Any:
    """An argument in plain lists, with numbers in the place of nodes."""
    if isinstance(value, Node):
        return Ref(numbers[value])
    return [_template(part, numbers) for part in value] if isinstance(value, list | tuple) else value


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    return sum(map(_nbytes, value)) if isinstance(value, tuple | list) else 0


def _overwrite(node: Node) -> Callable[..., Any] | None:
    """torch's in-place form of an operation (`relu_` for `relu`), where the result fits its first argument."""
    first, op = node.args[0] if node.args else None, node.target
    if not isinstance(op, torch._ops.OpOverload) or not isinstance(first, Node):
        return None
    values = [first.meta.get("val"), node.meta.get("val")]
    forms = {
        (value.shape, value.dtype, value.stride(), value.storage_offset()) if isinstance(value, Tensor) else None
        for value in values
    }
    if None in forms or len(forms) > 1:
        return None
    namespace, _, name = op._schema.name.partition("::")
    packet = getattr(getattr(torch.ops, namespace), f"{name}_", None)
    return getattr(packet, op._overloadname, None)


def _flops(nodes: Sequence[Node], constants: Mapping[int, Tensor], numbers: Mapping[Node, int]) -> dict[Node, int]:
    """By torch's own counter, operation by operation, on fake tensors."""

    def value(node: Node) -> Any:
        return constants[numbers[node]] if numbers[node] in constants else node.meta["val"]

    counters: Mapping[Any, Any] = FlopCounterMode(display=False).flop_registry
    counts: dict[Node, int] = {}
    for node in nodes:
        if node.op == "call_function":
            count = counters.get(getattr(node.target, "overloadpacket", None))
            args: Any = torch.fx.node.map_arg(node.args, value)
            kwargs: Any = torch.fx.node.map_arg(node.kwargs, value)
            counts[node] = int(count(*args, **kwargs, out_val=node.meta.get("val"))) if count else 0
    return counts
