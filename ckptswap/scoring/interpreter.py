"""Scoring swaps by replaying only what they can change: a base pass a batch, and beside it each variant's cone."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ckptswap.scoring.graph import Graph, Ref, Step
from ckptswap.scoring.guards import answer
from ckptswap.scoring.schedule import Cone, Groups, Instruction, Schedule, cone_of, within
from ckptswap.task.tree import Tree

Values = dict[int, Any]
Swaps = Mapping[int, Mapping[int, Tensor]]
Outputs = Iterator[tuple[int | None, Tensor]]
"""(index of the swap, output), in the order in which they come to be; None: the base."""


class Replay:
    """Runs a captured graph for the recipient and for variants of it, with the bits of a full forward pass.

    `state` are the recipient's tensors by their number; variants whose intermediate values need more than `memory`
    bytes are run in several base passes.
    """

    def __init__(self, graph: Graph, state: Mapping[int, Tensor], memory: int) -> None:
        self.graph, self.state, self.memory = graph, state, memory
        self._fixed: Values = {**state, **graph.constants}
        self._settle()
        self.cone: Callable[[frozenset[int]], Cone] = cache(partial(cone_of, graph))
        """What a swap of these values can change."""
        self._planned: Any = None
        self.latest: Groups = []

    def _settle(self) -> list[float]:
        """Run what depends on no batch; how long each step takes."""
        return [_timed(step, self._fixed) for step in self.graph.steps[: self.graph.settled]]

    def fits(self, batch: Tree) -> bool:
        """Whether the model does on this batch, of the graph's form, what was captured: its guards tell."""
        values = {**self._fixed, **self.graph.given(batch)}
        with torch.inference_mode():
            # Behind an answer that is another, an operation may not even be possible.
            for step in self.graph.asking:
                _do(step, values)
                expected = self.graph.guards.get(step.gives)
                if expected is not None and answer(values[step.gives]) != expected:
                    return False
        return True

    def changes(self, swap: Mapping[int, Tensor]) -> bool:
        """Whether a swap can change the output at all."""
        return self.cone(frozenset(swap)).changes_output

    def schedules(self, swaps: Sequence[frozenset[int]], *, with_output: bool) -> Groups:
        """How these swaps are run: groups of their indices, each with its base pass."""
        key = (tuple(swaps), with_output, self.memory)
        if key != self._planned:
            cones = [self.cone(swapped) for swapped in swaps]
            self.latest, self._planned = within(self.graph, cones, self.memory, with_output=with_output), key
        return self.latest

    def outputs(self, batch: Tree, swaps: Sequence[Mapping[int, Tensor]], *, with_output: bool) -> Outputs:
        """Run the base, where `with_output` asks for it, and every swap."""
        groups = self.schedules([frozenset(swap) for swap in swaps], with_output=with_output)
        for at, (chosen, schedule) in enumerate(groups):
            of_group = {index: swaps[index] for index in chosen}
            yield from self._run(batch, schedule, of_group, with_output and at == 0)

    def seconds(self, batch: Tree) -> list[float]:
        """How long each step of the graph takes on this batch, run one after another."""
        times, values = self._settle(), {**self._fixed, **self.graph.given(batch)}
        (_, schedule), *_ = within(self.graph, [], self.memory, with_output=True)
        for instruction in schedule.base:
            times.append(_timed(instruction, values))
            _forget(instruction, values)
        return times

    def _run(self, batch: Tree, schedule: Schedule, swaps: Swaps, with_output: bool) -> Outputs:
        values = {**self._fixed, **self.graph.given(batch)}
        numbered = list(swaps.items())
        for at in range(-1, len(schedule.base)):
            if at >= 0:
                with torch.inference_mode():
                    _do(schedule.base[at], values)
            for number in schedule.due.get(at, ()):
                index, swap = numbered[number]
                yield index, self._swapped(schedule.programs[number], values, swap)
            if at >= 0:
                _forget(schedule.base[at], values)
        if with_output:
            yield None, values[self.graph.output]

    def _swapped(self, program: Sequence[Instruction], values: Values, swap: Mapping[int, Tensor]) -> Tensor:
        return self._replayed(program, {**values, **swap})

    def _replayed(self, program: Sequence[Instruction], values: Values) -> Tensor:
        with torch.inference_mode():
            for instruction in program:
                _do(instruction, values)
                _forget(instruction, values)
        return values[self.graph.output]


def _timed(instruction: Step | Instruction, values: Values) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        _do(instruction, values)
    return time.perf_counter() - start


def _do(instruction: Step | Instruction, values: Values) -> None:
    args, kwargs = _arguments(instruction, values)
    values[instruction.gives] = instruction.op(*args, **kwargs)


def _arguments(step: Step | Instruction, values: Values) -> tuple[list[Any], dict[str, Any]]:
    kwargs = {name: filled(template, values) for name, template in step.kwargs.items()}
    return [filled(template, values) for template in step.args], kwargs


def _forget(instruction: Instruction, values: Values) -> None:
    for value in instruction.frees:
        del values[value]


def filled(template: Any, values: Values) -> Any:
    """An argument with values in the place of their numbers."""
    if isinstance(template, Ref):
        return values[template.value]
    if isinstance(template, list):
        return [filled(part, values) for part in template]
    return template
