"""How variants are scored: by replaying what a swap can change where that is proven, else by full forward passes.

`Engine` decides. It captures the model once for each shape of input, holds the replayed outputs against plain full
passes, bit by bit (the recipient's and two variants' on the first batch of a shape, then one in a hundred), and
falls back to full passes for good, saying why once, where a model cannot be captured or a bit differs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, ModelError
from ckptswap.scoring.graph import Graph, Uncapturable, capture
from ckptswap.scoring.recalibration import Recalibration
from ckptswap.scoring.replay import Replay
from ckptswap.scoring.swap import Swaps, same_bits
from ckptswap.scoring.variant import Variant
from ckptswap.task.callables import first_line

if TYPE_CHECKING:
    from ckptswap.task import Task

How = Literal["auto", "replay", "full"]
Form = tuple[tuple[int, ...], torch.dtype]
"""Shape and dtype of a batch."""
MEMORY = 2 << 30
"""Bytes that a replay's intermediate values may take, unless told otherwise."""
SHAPES = 8
"""Shapes of input for which a model is captured; batches of further shapes are run in full."""
CHECKED = 100
"""One replayed output in so many is held against a full pass."""


class Outcome(NamedTuple):
    """What became of a variant on a batch: its output, or why there is none; and which way it was computed."""

    variant: Variant
    output: Tensor | None
    failed: str | None
    engine: Literal["full", "replay"]


@dataclass(frozen=True)
class Cost:
    """What a sweep takes: which engine, the share of full passes' FLOPs, an estimate of the time in seconds, and
    the most that a replay's intermediate values take, in bytes (None for full passes)."""

    engine: Literal["full", "replay"]
    share: float
    seconds: float
    peak: int | None


class ReplayDiffers(Exception):
    """A replayed output has other bits than a full pass: what was replayed so far cannot be trusted.

    The text names the variant.
    """


class Engine:
    """Gives the outputs of the recipient and of variants of it, batch by batch.

    The task's model holds the recipient from the construction on, and between any two calls. `notes` collects what
    the user should be told, each thing once. Raises `MismatchError` when the recipient does not fit the model,
    `ModelError` where `how` is `replay` and the model cannot be captured. `calibration` are the batches by which
    recalibrated variants estimate batch norm's statistics.
    """

    def __init__(
        self,
        task: Task,
        donor: Checkpoint | Sequence[Checkpoint],
        recipient: Checkpoint,
        how: How = "auto",
        memory: int = MEMORY,
        calibration: Sequence[Tensor] = (),
    ) -> None:
        task.load(recipient)
        self.task, self.how, self.memory = task, how, memory
        donors = [donor] if isinstance(donor, Checkpoint) else donor
        self.swaps = Swaps(task.model, *donors, recipient=recipient)
        self.recalibration = Recalibration(task, self.swaps, calibration)
        self.notes: list[str] = []
        self._replays: dict[Form, Replay | None] = {}
        self._begun: set[Form] = set()
        self._faults: dict[tuple[tuple[str, ...], int, float], str | None] = {}
        self._swaps: dict[tuple[Replay, str], dict[int, Tensor]] = {}

    def replay(self, inputs: Tensor) -> Replay | None:
        """The captured model for inputs of this shape; None where it must be run in full.

        At the first of its shape it is captured and held against the model itself on these inputs.
        """
        if self.how == "full":
            return None
        form = _form(inputs)
        if form not in self._replays:
            if len(self._replays) >= SHAPES:
                self._note(f"inputs of more than {SHAPES} shapes: the rest is run in full")
                return None
            self._replays[form] = self._captured(inputs)
        return self._replays.get(form)

    def outputs(self, number: int, inputs: Tensor, variants: Sequence[Variant]) -> Iterator[Outcome]:
        """The outcome of each variant on batch `number`, in the order in which they come to be.

        Raises `ReplayDiffers` when a replayed output is found wrong; then call `run_in_full`.
        """
        replay = None if all(each.recalibrated for each in variants) else self.replay(inputs)
        faults = {variant.id: self.fault(variant) for variant in variants}
        yield from (Outcome(each, None, fault, "full") for each in variants if (fault := faults[each.id]))
        variants = [variant for variant in variants if not faults[variant.id]]
        plain = [variant for variant in variants if not variant.recalibrated]
        if replay is None:
            yield from self.in_full(inputs, variants)
            return
        checked = self._sample(number, plain, is_new=_form(inputs) not in self._begun)
        self._begun.add(_form(inputs))
        yield from self._replayed(replay, inputs, plain, checked)
        if again := [variant for variant in variants if variant.recalibrated]:
            yield from self.in_full(inputs, again)  # new statistics change nearly everything: nothing is spared

    def unread(self, inputs: Tensor) -> frozenset[str]:
        """The tensors that the model never reads in eval mode, as far as its graph tells."""
        replay = self.replay(inputs)
        if replay is None:
            return frozenset()
        read = replay.graph.read
        return frozenset(name for name in self.swaps.state if replay.graph.state.get(name) not in read)

    def cost(self, inputs: Tensor, variants: Sequence[Variant], batches: float) -> Cost:
        """What scoring the recipient and these variants takes on so many batches like this one, which is timed."""
        with self.task.pinned():
            replay = self.replay(inputs)
            self.task.forward(inputs)
            start = time.perf_counter()
            self.task.forward(inputs)
            full = time.perf_counter() - start
            if replay is None:
                estimates = len(self.recalibration.batches) * sum(each.recalibrated for each in variants)
                return Cost("full", 1.0, full * ((1 + len(variants)) * batches + estimates), None)
            steps = replay.seconds(self.task.prepared(inputs))
        again = [variant for variant in variants if variant.recalibrated]
        swaps = [frozenset(self.values(replay.graph, each)) for each in variants if not each.recalibrated]
        groups = replay.schedules(swaps, with_output=False)
        whole = max(replay.graph.flops, 1)
        work = 1 + len(again) + sum(schedule.flops for _, schedule in groups) / whole
        replayed = sum(sum(steps[at] for at in replay.cone(swap).steps) for swap in swaps) + len(groups) * sum(
            steps
        )
        peak = max((schedule.peak for _, schedule in groups), default=0)
        in_full = full * len(again) * (batches + len(self.recalibration.batches))
        return Cost("replay", work / (1 + len(variants)), (full + replayed) * batches + in_full, peak)

    def weights(self, inputs: Tensor, variants: Sequence[Variant]) -> list[float]:
        """What each variant costs by itself on such a batch: FLOPs, or 1 each where all are run in full."""
        with self.task.pinned():
            replay = self.replay(inputs)
        if replay is None:
            return [1.0] * len(variants)
        return [
            float(replay.graph.flops if each.recalibrated
                  else replay.cone(frozenset(self.values(replay.graph, each))).flops)
            for each in variants
        ]  # fmt: skip

    def values(self, graph: Graph, variant: Variant) -> dict[int, Tensor]:
        """What a variant puts in the place of which of the graph's values; nothing where it changes none."""
        found = {graph.state[name]: value for name, value in self.written(variant).items() if name in graph.state}
        own = {graph.state[name]: value for name, value in self.swaps.state.items() if name in graph.state}
        return {number: value for number, value in found.items() if value is not own[number]}

    def written(self, variant: Variant) -> dict[str, Tensor]:
        """What must be written to the model to make the variant."""
        taken = self.swaps.taken(variant.names, variant.donor, variant.alpha)
        return taken | self.recalibration.statistics(variant.id, taken) if variant.recalibrated else taken

    def fault(self, variant: Variant) -> str | None:
        """Why the variant is not what was meant once it is in the model; found once for all batches."""
        what = variant.names, variant.donor, variant.alpha
        if what not in self._faults:
            try:
                self._faults[what] = self.swaps.fault(*what)
            except CkptswapError as error:
                self._faults[what] = str(error)
        return self._faults[what]

    def _swap(self, replay: Replay, variant: Variant) -> dict[int, Tensor]:
        """`values`, found once for all batches."""
        key = replay, variant.id
        if key not in self._swaps:
            self._swaps[key] = self.values(replay.graph, variant)
        return self._swaps[key]

    def _captured(self, inputs: Tensor) -> Replay | None:
        # Before it is traced: what a model makes at its first run, and keeps, must have values.
        expected = self.task.forward(inputs)
        try:
            graph = capture(self.task.model, self.task.prepared(inputs), self.task.pick)
        except Uncapturable as error:
            self.run_in_full(f"the model cannot be captured ({error})")
            return None
        model = self.task.model
        own: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = {graph.state[name]: value for name, value in own.items()}
        replay = Replay(graph, state, self.memory)
        (_, output), *_ = replay.outputs(self.task.prepared(inputs), [], with_output=True)
        if same_bits(output, expected):
            return replay
        self._refuse_chance(inputs, expected)
        self.run_in_full("the captured model gives other bits than the model itself")
        return None

    def refuse_chance(self, inputs: Tensor) -> None:
        """Raises `ModelError` for a model that draws random numbers or keeps count; no captured one does."""
        if self.replay(inputs) is None:
            self._refuse_chance(inputs, self.task.forward(inputs))

    def _refuse_chance(self, inputs: Tensor, before: Tensor) -> None:
        if not same_bits(before, self.task.forward(inputs)):
            raise ModelError(
                "the model gives another output when it is run again on the same input",
                remedy="switch off in eval mode whatever draws random numbers or keeps count",
            )

    def run_in_full(self, reason: str) -> None:
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
        self, replay: Replay, inputs: Tensor, variants: Sequence[Variant], checked: set[Variant]
    ) -> Iterator[Outcome]:
        batch = self.task.prepared(inputs)
        swaps = {variant.id: self._swap(replay, variant) for variant in variants}
        same = [variant for variant in variants if not replay.changes(swaps[variant.id])]
        left = [variant for variant in variants if replay.changes(swaps[variant.id])]
        while left or same:
            try:
                wanted = [swaps[each.id] for each in left]
                for index, output in replay.outputs(batch, wanted, with_output=bool(same)):
                    found = same if index is None else [left[index]]
                    for variant in found:
                        self._check(variant, output, inputs, checked)
                        yield Outcome(variant, output, None, "replay")
                        del swaps[variant.id]
                return
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or not self._halve(replay, len(left)):
                    self._note(
                        f"a replay failed ({first_line(error)}): that batch's other variants are run in full"
                    )
                    yield from self.in_full(inputs, [each for each in variants if each.id in swaps])
                    return
                left, same = ([each for each in part if each.id in swaps] for part in (left, same))

    def _halve(self, replay: Replay, variants: int) -> bool:
        """Half the memory for replays from now on; whether that helps."""
        if variants < 2 or replay.memory < 2:
            return False
        needed = max((schedule.peak for _, schedule in replay.latest), default=replay.memory)
        replay.memory = self.memory = min(replay.memory, needed) // 2
        self._note("memory ran out: variants are replayed in smaller groups")
        return True

    def _sample(self, number: int, variants: Sequence[Variant], *, is_new: bool) -> set[Variant]:
        """Which variants to hold against full passes: first and last of a new shape, then some at random."""
        draw = random.Random(number)
        count = len(variants) // CHECKED + (draw.random() < len(variants) % CHECKED / CHECKED)
        chosen = set(draw.sample(list(variants), count))
        return chosen | {*variants[:1], *variants[-1:]} if is_new else chosen

    def _check(self, variant: Variant, output: Tensor, inputs: Tensor, checked: set[Variant]) -> None:
        if variant not in checked:
            return
        (expected,) = self.in_full(inputs, [variant])
        if expected.output is None or not same_bits(output, expected.output):
            raise ReplayDiffers(
                f"a replayed variant ({', '.join(variant.names[:3])}) has other bits than a full pass"
            )

    def in_full(self, inputs: Tensor, variants: Sequence[Variant]) -> Iterator[Outcome]:
        """The outcome of each variant by swapping its tensors in and running the model itself."""
        for variant in variants:
            output = failed = None
            try:
                with self.swaps.holding(self.written(variant)):
                    output = self.task.forward(inputs)
            except CkptswapError as error:
                failed = str(error)
            except Exception as error:  # the user's model may raise anything
                failed = f"{type(error).__name__}: {error}"
            yield Outcome(variant, output, failed, "full")


def _form(inputs: Tensor) -> Form:
    return tuple(inputs.shape), inputs.dtype


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("alloc" in str(error) and "memory" in str(error))
