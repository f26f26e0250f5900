"""What must be computed for a set of swaps, and when: pure data, made from a captured graph.

A swap changes only what lies downstream of its tensors, its *cone*. As soon as the base pass has given the last
value that a cone reads from outside, that cone is run; a value is freed after its last use.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptswap.scoring.graph import Graph, Step

FOREVER = 1 << 62


@dataclass(frozen=True)
class Instruction:
    """One operation as it is run: in place where nobody needs the old value; and what is forgotten after it."""

    op: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    gives: int
    frees: tuple[int, ...]


@dataclass(frozen=True)
class Cone:
    """What a swap of the values `swapped` can change.

    `steps` are indices into the graph's; `outside` are the results of other steps that they read; `due` is the
    index of the last step that gives one of these, −1 without any.
    """

    swapped: frozenset[int]
    steps: tuple[int, ...]
    outside: tuple[int, ...]
    due: int
    flops: int
    changes_output: bool


@dataclass(frozen=True)
class Schedule:
    """A base pass, and after which of its steps which cones are run.

    `due[i]` are indices into `cones`, run when `base[i]` is done (−1: before all). `peak` is the most that
    intermediate values take at a time, in bytes; `flops` the work of one pass over one batch.
    """

    cones: tuple[Cone, ...]
    programs: tuple[tuple[Instruction, ...], ...]
    base: tuple[Instruction, ...]
    due: Mapping[int, tuple[int, ...]]
    peak: int
    flops: int


def cone_of(graph: Graph, swapped: Iterable[int]) -> Cone:
    """Everything downstream of these values of the graph's state.

    >>> from torch import nn, zeros
    >>> from ckptswap.scoring.graph import capture
    >>> graph = capture(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), zeros(1, 2), lambda output: output)
    >>> [str(graph.steps[at].op) for at in cone_of(graph, [graph.state["1.bias"]]).steps]
    ['aten.addmm.default']
    """
    start = frozenset(swapped)
    changed, inside = set(start), []
    for at, step in enumerate(graph.steps):
        if not changed.isdisjoint(step.reads):
            changed.add(step.gives)
            inside.append(at)
    makers = {step.gives: at for at, step in enumerate(graph.steps) if at >= graph.settled}
    read = {value for at in inside for value in graph.steps[at].reads}
    outside = sorted((value for value in read if value in makers and value not in changed), key=makers.__getitem__)
    return Cone(
        swapped=start,
        steps=tuple(inside),
        outside=tuple(outside),
        due=max((makers[value] for value in outside), default=-1),
        flops=sum(graph.steps[at].flops for at in inside),
        changes_output=graph.output in changed,
    )


def make_schedule(graph: Graph, cones: Sequence[Cone], *, with_output: bool) -> Schedule:
    """One base pass for all of these cones; `with_output` also gives the base's own output."""
    wanted = {value for cone in cones for value in cone.outside} | ({graph.output} if with_output else set())
    steps = _upstream(graph, wanted)
    place = {at: order for order, at in enumerate(steps)}
    due: dict[int, tuple[int, ...]] = defaultdict(tuple)
    held = {graph.output: FOREVER} if with_output else {}  # value → the last step after which a cone reads it
    for number, cone in enumerate(cones):
        order = place.get(cone.due, -1)
        due[order] += (number,)
        held |= {value: max(held.get(value, -1), order) for value in cone.outside}
    base = [graph.steps[at] for at in steps]
    inside = [[graph.steps[at] for at in cone.steps] for cone in cones]
    alive = [0, *_alive(base, held)]
    peaks = [max(_alive(own, {}), default=0) for own in inside]
    running = (alive[order + 1] + max(peaks[number] for number in numbers) for order, numbers in due.items())
    return Schedule(
        cones=tuple(cones),
        programs=tuple(_program(own, {graph.output: FOREVER}) for own in inside),
        base=_program(base, held),
        due=dict(due),
        peak=max([*alive, *running]),
        flops=sum(step.flops for step in base) + sum(cone.flops for cone in cones),
    )


Groups = list[tuple[tuple[int, ...], Schedule]]
"""Schedules, each with the indices of its cones."""


def within(graph: Graph, cones: Sequence[Cone], memory: int, *, with_output: bool) -> Groups:
    """As few schedules as it takes for none to need more than `memory` bytes, each with its cones' indices.

    Cones that start near each other stay together, since their base pass then keeps the same values. A single cone
    is not divided further, whatever it needs.
    """

    def halved(chosen: tuple[int, ...], with_output: bool) -> Groups:
        schedule = make_schedule(graph, [cones[at] for at in chosen], with_output=with_output)
        half = len(chosen) // 2
        if schedule.peak <= memory or not half:
            return [(chosen, schedule)]
        return halved(chosen[:half], with_output) + halved(chosen[half:], False)

    order = sorted(range(len(cones)), key=lambda at: (cones[at].due, cones[at].steps[:1]))
    return halved(tuple(order), with_output)


def _upstream(graph: Graph, wanted: Collection[int]) -> list[int]:
    """The steps that these values depend on, in order."""
    needed, steps = set(wanted), []
    for at in reversed(range(graph.settled, len(graph.steps))):
        if graph.steps[at].gives in needed:
            needed.update(graph.steps[at].reads)
            steps.append(at)
    return steps[::-1]


def _program(steps: Sequence[Step], held: Mapping[int, int]) -> tuple[Instruction, ...]:
    """The steps with the place where each value is forgotten.

    `held[value]` is the position of the step up to and after which somebody else reads the value. A step may write
    over its first argument when it is the last to read that memory, and the memory was made by one of these steps.
    """
    own = {step.gives for step in steps if step.memory == step.gives}
    last = {value: at for at, step in enumerate(steps) for value in step.reads}
    dies = {step.gives: max(last.get(step.gives, -1), held.get(step.gives, -1)) for step in steps}
    memory_dies: dict[int, float] = defaultdict(lambda: -1)
    for step in steps:
        late = max(dies[step.gives], held.get(step.gives, -1) + 0.5)
        memory_dies[step.memory] = max(memory_dies[step.memory], late)
    frees: dict[int, list[int]] = defaultdict(list)
    for at, step in enumerate(steps):
        if dies[step.gives] < FOREVER:
            frees[max(dies[step.gives], at)].append(step.gives)
    memory = {step.gives: step.memory for step in steps}

    def chosen(at: int, step: Step) -> Callable[..., Any]:
        if step.overwrite is None:
            return step.op
        first = memory.get(step.reads[0], step.reads[0])
        shared = sum(memory.get(value) == first for value in step.reads)
        return step.op if first not in own or shared > 1 or memory_dies[first] > at else step.overwrite

    return tuple(
        Instruction(chosen(at, step), step.args, step.kwargs, step.gives, tuple(frees[at]))
        for at, step in enumerate(steps)
    )


def _alive(steps: Sequence[Step], held: Mapping[int, int]) -> list[int]:
    """Bytes alive after each step, those that it has just let go included."""
    last = {value: at for at, step in enumerate(steps) for value in step.reads}
    dies: dict[int, int] = {}
    for at, step in enumerate(steps):
        until = max(at, last.get(step.gives, -1), held.get(step.gives, -1))
        dies[step.memory] = max(dies.get(step.memory, -1), until)
    ending: dict[int, int] = defaultdict(int)
    alive, totals = 0, []
    for at, step in enumerate(steps):
        alive += step.nbytes
        totals.append(alive)
        if step.memory == step.gives:
            ending[dies[step.gives]] += step.nbytes
        alive -= ending.pop(at, 0)
    return totals
