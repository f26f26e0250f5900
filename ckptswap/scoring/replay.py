"""Scores by replaying what a swap can change where that is proven, else by full forward passes.

Replayed outputs are held against plain full passes, bit by bit (the recipient's and two variants' on the first
batch of a form, then one in a hundred); where one differs all is run in full for good, and a note says why.
"""

import random
import time
from collections.abc import Collection, Hashable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import ModelError
from ckptswap.scoring.costs import averaged
from ckptswap.scoring.full import FullScorer, ModelOutput
from ckptswap.scoring.graph import Graph, capture
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.scorer import REPLAY, Cost, How, ShortcutFailed, Way
from ckptswap.scoring.swap import same_bits
from ckptswap.scoring.variant import RECIPIENT, Variant
from ckptswap.task.callables import first_line
from ckptswap.task.data import Batch
from ckptswap.task.task import Task
from ckptswap.task.tree import Form, Tree, form_of, values_of

MEMORY = 2 << 30
"""Bytes that a replay's intermediate values may take, unless told otherwise."""
SHAPES = 8
"""Shapes of input for which a model is captured; batches of further shapes are run in full."""
ANSWERS = 4
"""Graphs of one shape, where a batch's values decide what the model does; further batches are run in full."""
CHECKED = 100
"""One replayed output in so many is held against a full pass."""
MANY = 3
"""Shapes of input from which on it is asked whether captures pay."""
FLOPS, TRACED, SAVED = 2e10, 4e-3, 0.4
"""Operations a second of one thread, seconds that a step takes to be traced, and the share of full passes that
replays save: as they usually are. They decide the engine only, and no score."""


class ReplayScorer(FullScorer):
    """Replays what can be replayed; where `how` is `replay`, `ModelError` is raised for what cannot."""

    how: How = "auto"
    shortest: Way = REPLAY
    """How most blocks are computed, where a model can be captured."""

    def __init__(
        self, task: Task, donors: Sequence[Checkpoint], recipient: Checkpoint, calibration: Sequence[Tree]
    ) -> None:
        super().__init__(task, donors, recipient, calibration)
        self._replays: dict[tuple[Form, int], Replay] = {}
        self._begun: set[Replay] = set()
        self._swaps: dict[tuple[Replay, str], dict[int, Tensor]] = {}

    def replay(self, inputs: Tree) -> Replay | None:
        """The model for inputs of this form, captured and held against itself once; None: run it in full.

        Where the batch's values decide what the model does, there are several of one form.
        """
        if self.how == "full":
            return None
        form = form_of(inputs)
        known = [replay for (other, _), replay in self._replays.items() if other == form]
        for replay in known:
            if not replay.graph.guards or replay.fits(self.task.prepared(inputs)):
                return replay
        if not known and len({other for other, _ in self._replays}) >= SHAPES:
            self._note(f"inputs of more than {SHAPES} shapes: the rest is run in full")
            return None
        if len(known) >= ANSWERS:
            self._note(
                f"the model does more than {ANSWERS} things, as a batch's values say: the rest is run in full"
            )
            return None
        captured = self._captured(inputs)
        if captured is not None:
            self._replays[form, len(known)] = captured
        return captured

    def fastest(self, inputs: Tree) -> Replay | None:
        """By what most variants are scored on inputs of this form; None: by full passes."""
        return self.replay(inputs)

    def graph(self, inputs: Tree) -> Graph:
        """See `FullScorer`; what was captured already is not captured again."""
        replay = self.replay(inputs)
        return super().graph(inputs) if replay is None else replay.graph

    def outputs(self, number: int, inputs: Tree, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        """See `FullScorer`. Raises `ShortcutFailed` when a replayed output is wrong; then call `distrust`."""
        if any(map(is_replayed, variants)):
            self.replay(inputs)  # whatever becomes of the variants, a model that must be captured is
        yield from super().outputs(number, inputs, variants)

    def _outputs(self, number: int, inputs: Tree, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        plain = [variant for variant in variants if is_replayed(variant)]
        whole = [variant for variant in variants if not is_replayed(variant)]
        replay = self.replay(inputs) if plain else None
        if replay is None:
            yield from self.in_full(inputs, variants)
            return
        checked = self._sample(number, plain, is_new=replay not in self._begun)
        self._begun.add(replay)
        yield from self._replayed(replay, inputs, plain, checked)
        if whole:
            yield from self.in_full(inputs, whole)

    def unread(self) -> frozenset[str]:
        """The tensors that the model reads for no form of batch in eval mode, as far as its graphs tell."""
        read = self._read(set(self.task.data.forms.values()))
        if read is not None and any(replay.graph.guards for replay in self._replays.values()):
            read = self._read(range(len(self.layout.places)))  # another batch may go another way
        return frozenset() if read is None else frozenset(self.swaps.state).difference(read)

    def _read(self, numbers: Collection[int]) -> set[str] | None:
        """The tensors that the model reads on these batches; None where one is run in full."""
        with self.task.pinned(), closing(self.task.data.numbered(numbers)) as batches:
            replays = {self.replay(batch.inputs) for _, batch in batches}
        if None in replays:
            return None
        graphs = [(replay.graph, replay.graph.read) for replay in replays if replay is not None]
        return {name for graph, read in graphs for name, number in graph.state.items() if number in read}

    def prefer_full(self, variants: int) -> None:
        """See `FullScorer`: inputs of many shapes are not captured where so many variants would save less time.

        By the first form's operations and steps, not by the clock: the same command decides the same again.
        """
        data = self.task.data
        if self.how != "auto" or len(data.shapes) < MANY:
            return
        with self.task.pinned():
            replay = self.replay(self.task.first_inputs())
        if replay is None:
            return
        first, *_ = data.batch_forms
        passes = sum(map(values_of, data.batch_forms)) / max(values_of(first), 1)  # as many as of the first batch
        saved = variants * passes * replay.graph.flops / FLOPS * SAVED
        if saved < min(len(data.forms), SHAPES) * len(replay.graph.steps) * TRACED:
            self.how = "full"
            self._replays.clear()
            shapes = len(data.shapes)
            self._note(f"inputs of {shapes} shapes, too dear to capture for what that saves: all is run in full")

    def _way_of(self, form: Form) -> Hashable:
        is_captured = form in islice(self.task.data.forms, SHAPES)
        return self.how != "full" and is_captured

    def _cost_of(self, number: int, batch: Batch, amount: float, variants: Sequence[Variant]) -> Cost:
        """See `FullScorer`: by a full pass, and by a replay step by step."""
        inputs = batch.inputs
        replay = self.fastest(inputs)
        if replay is None:
            return super()._cost_of(number, batch, amount, variants)
        full = self._seconds(batch)
        steps = averaged(partial(replay.seconds, self.task.prepared(inputs)))
        again = sum(variant.recalibrated for variant in variants)
        swaps = [frozenset(self.values(replay.graph, variant)) for variant in variants if not variant.recalibrated]
        start = time.perf_counter()
        groups = replay.schedules(swaps, with_output=False)
        planned = time.perf_counter() - start
        work = 1 + again + sum(schedule.flops for _, schedule in groups) / max(replay.graph.flops, 1)
        cones = sum(steps[at] for swap in swaps for at in replay.cone(swap).steps)
        replayed = cones + len(groups) * sum(steps)
        peak = max((schedule.peak for _, schedule in groups), default=0)
        in_full = full * (1 + again + len(swaps) / CHECKED)
        # Beside its schedule, the first and the last variant of a form are held against full passes.
        begun = planned + full * min(len(swaps), 2)
        seconds = (in_full + replayed) * amount + begun
        return Cost(self.shortest, work / (1 + len(variants)), seconds, peak, full * amount)

    def weights(self, variants: Sequence[Variant]) -> list[float]:
        inputs = self.task.first_inputs()
        with self.task.pinned():
            replay = self.fastest(inputs)
        if replay is None:
            return super().weights(variants)
        swaps = [None if variant.recalibrated else self.values(replay.graph, variant) for variant in variants]
        of = (replay.graph if swap is None else replay.cone(frozenset(swap)) for swap in swaps)
        return [float(part.flops) for part in of]

    def values(self, graph: Graph, variant: Variant) -> dict[int, Tensor]:
        """What a variant puts in the place of which of the graph's values; nothing where it changes none."""
        own = {graph.state[name]: value for name, value in self.swaps.state.items() if name in graph.state}
        written = {
            graph.state[name]: value for name, value in self.written(variant).items() if name in graph.state
        }
        return {number: value for number, value in written.items() if value is not own[number]}

    def _swap(self, replay: Replay, variant: Variant) -> dict[int, Tensor]:
        """`values`, found once for all batches."""
        if (key := (replay, variant.id)) not in self._swaps:
            self._swaps[key] = self.values(replay.graph, variant)
        return self._swaps[key]

    def _captured(self, inputs: Tree) -> Replay | None:
        # Before it is traced: what a model makes at its first run, and keeps, must have values.
        expected = self.task.forward(inputs)
        try:
            graph = capture(self.task.model, self.task.prepared(inputs), self.task.pick)
        except Uncapturable as error:
            self.distrust(f"the model cannot be captured ({error})")
            return None
        model = self.task.model
        own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        replay = Replay(graph, {graph.state[name]: value for name, value in own.items()}, self.memory)
        (_, output), *_ = replay.outputs(self.task.prepared(inputs), [], with_output=True)
        if same_bits(output, expected):
            return replay
        self._refuse_chance(inputs, expected)
        self.distrust("the captured model gives other bits than the model itself")
        return None

    def refuse_chance(self) -> None:
        """See `FullScorer`; no captured model draws random numbers or keeps count."""
        inputs = self.task.first_inputs()
        with self.task.pinned():
            if self.replay(inputs) is None:
                self._refuse_chance(inputs, self.task.forward(inputs))
            self._refuse_memory(inputs)

    def distrust(self, reason: str) -> None:
        """Replay nothing from now on. Raises `ModelError` where nothing else was allowed."""
        if self.how == "replay":
            raise ModelError(reason, remedy="use --engine full, or auto")
        self.how = "full"
        self._replays.clear()
        self._note(f"{reason}: every variant is run in full")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _replayed(
        self, replay: Replay, inputs: Tree, variants: Sequence[Variant], checked: set[Variant]
    ) -> Iterator[ModelOutput]:
        batch = self.task.prepared(inputs)
        swaps = {variant.id: self._swap(replay, variant) for variant in variants}
        same = [variant for variant in variants if not replay.changes(swaps[variant.id])]
        left = [variant for variant in variants if replay.changes(swaps[variant.id])]
        while left or same:
            try:
                wanted = [swaps[variant.id] for variant in left]
                for index, output in replay.outputs(batch, wanted, with_output=bool(same)):
                    for variant in same if index is None else [left[index]]:
                        if variant in checked:
                            self._check(variant, output, inputs)
                        yield ModelOutput(variant, output, None, "replay")
                        del swaps[variant.id]
                return
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or not self._halve(replay, len(left)):
                    why = first_line(error)
                    self._note(f"a replay failed ({why}): that batch's other variants are run in full")
                    yield from self.in_full(inputs, [variant for variant in variants if variant.id in swaps])
                    return
                left, same = ([variant for variant in part if variant.id in swaps] for part in (left, same))

    def _halve(self, replay: Replay, variants: int) -> bool:
        """Halve the memory for replays from now on; whether that helps."""
        if variants < 2 or replay.memory < 2:
            return False
        needed = max((schedule.peak for _, schedule in replay.latest), default=replay.memory)
        replay.memory = self.memory = min(replay.memory, needed) // 2
        self._note("memory ran out: variants are replayed in smaller groups")
        return True

    def _sample(self, number: int, variants: Sequence[Variant], *, is_new: bool) -> set[Variant]:
        """Which variants to hold against full passes: first and last of a new form, then some at random."""
        draw = random.Random(number)
        count = len(variants) // CHECKED + (draw.random() < len(variants) % CHECKED / CHECKED)
        chosen = set(draw.sample(list(variants), count))
        return chosen | {*variants[:1], *variants[-1:]} if is_new else chosen

    def _check(self, variant: Variant, output: Tensor, inputs: Tree) -> None:
        (expected,) = self.in_full(inputs, [variant])
        if expected.output is None or not same_bits(output, expected.output):
            names = ", ".join(variant.names[:3])
            raise ShortcutFailed(f"a replayed variant ({names}) has other bits than a full pass")


def is_replayed(variant: Variant) -> bool:
    """Whether a variant may be replayed: not the baseline, which must stand whatever is found of replays, nor new
    statistics, which change nearly everything."""
    return not variant.recalibrated and variant != RECIPIENT


def _is_out_of_memory(error: BaseException) -> bool:
    is_told = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_told or ("alloc" in str(error) and "memory" in str(error))
