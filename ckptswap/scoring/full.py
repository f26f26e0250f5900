"""Scores by full forward passes: a variant's tensors are written into the task's model, and it runs."""

import math
import time
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, ModelError, listing
from ckptswap.scoring.costs import averaged, stand_ins, together
from ckptswap.scoring.graph import Graph, capture
from ckptswap.scoring.recalibration import Recalibration
from ckptswap.scoring.scorer import EXTENT, Block, Cost, Exactness, How, Layout, Wanted, Way
from ckptswap.scoring.swap import Swaps, same_bits
from ckptswap.scoring.variant import RECIPIENT, Variant
from ckptswap.task.data import Batch
from ckptswap.task.task import Score, Task
from ckptswap.task.tree import Form, Tree


class ModelOutput(NamedTuple):
    """What became of a variant on a batch: its output, or why there is none; and which way it was computed."""

    variant: Variant
    output: Tensor | None
    failed: str | None
    engine: Way


class FullScorer:
    """Scores the recipient and variants of it, batch by batch, by full passes.

    The task's model holds the recipient between any two calls. `calibration` are the batches by which recalibrated
    variants estimate batch norm's statistics. Raises `MismatchError` when the recipient does not fit the model.
    """

    needs_model = True
    exactness: Exactness = "bits"
    how: How = "full"
    memory = 0
    """Bytes that a replay's intermediate values may take."""

    def __init__(
        self, task: Task, donors: Sequence[Checkpoint], recipient: Checkpoint, calibration: Sequence[Tree]
    ) -> None:
        task.load(recipient)
        self.task, self.metrics = task, task.metrics
        self.swaps = Swaps(task.model, *donors, recipient=recipient)
        self.recalibration = Recalibration(task, self.swaps, calibration)
        self.notes: list[str] = []
        self.layout = Layout(task.data.groups, task.data.units, task.data.places, task.data.drawn)
        self._faults: dict[tuple[tuple[str, ...], int, float], str | None] = {}
        self.trivial = cache(self._trivial)

    def blocks(self, wanted: Wanted) -> Generator[Block]:
        """See `Scorer`. Only the batches with something wanted are decoded."""
        with self.task.pinned(), closing(self.task.data.numbered(wanted)) as batches:
            for number, batch in batches:
                score = self.task.scored_against(batch)
                for result in self.outputs(number, batch.inputs, wanted.of(number)):
                    yield scored(number, result, score)

    def outputs(self, number: int, inputs: Tree, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        """The output of each variant on batch `number`, in the order in which they come to be."""
        faults = {variant.id: self.fault(variant) for variant in variants}
        broken = [variant for variant in variants if faults[variant.id]]
        yield from (ModelOutput(variant, None, faults[variant.id], "full") for variant in broken)
        yield from self._outputs(number, inputs, [variant for variant in variants if not faults[variant.id]])

    def _outputs(self, number: int, inputs: Tree, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        return self.in_full(inputs, variants)

    def in_full(self, inputs: Tree, variants: Sequence[Variant]) -> Iterator[ModelOutput]:
        """The output of each variant by swapping its tensors in and running the model itself."""
        for variant in variants:
            output = failed = None
            try:
                with self.swaps.holding(self.written(variant)):
                    output = self.task.forward(inputs)
            except Exception as error:  # the user's model may raise anything
                failed = reason_of(error)
            yield ModelOutput(variant, output, failed, "full")

    def graph(self, inputs: Tree) -> Graph:
        """The model captured for a batch. Raises `Uncapturable` where it cannot be."""
        return capture(self.task.model, self.task.prepared(inputs), self.task.pick)

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

    def distrust(self, reason: str) -> None:
        """Nothing is to be done: there is no shorter way."""

    def unread(self) -> frozenset[str]:
        return frozenset()

    def cost(self, variants: Sequence[Variant]) -> Cost:
        """See `Scorer`: a batch of each form is timed, of those that occur most."""
        data = self.task.data
        amounts = stand_ins(data.batch_forms, self._way_of)
        with self.task.pinned(), closing(data.numbered({data.forms[form] for form in amounts})) as batches:
            parts = [
                self._cost_of(number, batch, amounts[data.batch_forms[number]], variants)
                for number, batch in batches
            ]
        cost = together(parts)
        estimates = len(self.recalibration.batches) * sum(variant.recalibrated for variant in variants)
        one_batch = (cost.whole_pass or 0.0) / len(data.places)
        return replace(cost, seconds=cost.seconds + estimates * one_batch)

    def _way_of(self, form: Form) -> Hashable:
        """By which way batches of a form are run, as far as that tells what they take."""
        return "full"

    def _cost_of(self, number: int, batch: Batch, amount: float, variants: Sequence[Variant]) -> Cost:
        """What so many batches like this one take."""
        full = self._seconds(batch) * amount
        return Cost("full", 1.0, full * (1 + len(variants)), None, full)

    def _seconds(self, batch: Batch) -> float:
        """How long a full pass and its scoring take, once warm."""
        score = self.task.scored_against(batch)

        def timed() -> list[float]:
            start = time.perf_counter()
            output = self.task.forward(batch.inputs)
            scored(0, ModelOutput(RECIPIENT, output, None, "full"), score)
            return [time.perf_counter() - start]

        return averaged(timed)[0]

    def weights(self, variants: Sequence[Variant]) -> list[float]:
        return [1.0] * len(variants)

    def prefer_full(self, variants: int) -> None:
        """Take no shorter way where it would be longer, for so many variants; there is none."""

    def refuse_chance(self) -> None:
        """Raises `ModelError` for a model that draws random numbers or keeps count, or that keeps what it computed
        of its tensors.
        """
        inputs = self.task.first_inputs()
        with self.task.pinned():
            self._refuse_chance(inputs, self.task.forward(inputs))
            self._refuse_memory(inputs)

    def _refuse_chance(self, inputs: Tree, before: Tensor) -> None:
        if not same_bits(before, self.task.forward(inputs)):
            fault = "the model gives another output when it is run again on the same input"
            raise ModelError(fault, remedy="switch off in eval mode whatever draws random numbers or keeps count")

    def _refuse_memory(self, inputs: Tree) -> None:
        """A swap must reach what the model made when it first ran, and keeps: with all of the donor's tensors it
        must give what it gives when it makes that anew.
        """
        made, donor = self.task.watch.made, self.swaps.donors[0]
        fit = [name for name, own in self.swaps.state.items() if name in donor and donor[name].shape == own.shape]
        if not made:
            return
        with self.swaps.holding(self.swaps.taken(fit)):
            try:
                kept = self.task.forward(inputs)
                with self.task.watch.forgotten():
                    anew = self.task.forward(inputs)
            except ModelError:  # it may not bear the donor's values at all
                return
        if not same_bits(kept, anew):
            what = f"what it computed of its tensors when it first ran ({listing(made, most=3)})"
            raise ModelError(
                f"the model keeps {what}: what is swapped in later does not reach it",
                remedy="let forward compute it anew in eval mode",
            )

    def _trivial(self, metric: str) -> float | None:
        try:
            score = self.task.trivial(next(known for known in self.metrics if known.name == metric))
        except CkptswapError:
            return None
        return float(score) if math.isfinite(score) else None

    def warnings(self, baseline: Iterable[Block]) -> list[str]:
        """See `Scorer`: the range of the outputs tells logits from probabilities."""
        extents = [extent for block in baseline if (extent := block.statistics.get(EXTENT)) is not None]
        if not extents:
            return list(self.task.warnings)
        low, high = min(extent[:, 0].min() for extent in extents), max(extent[:, 1].max() for extent in extents)
        return [*self.task.warnings, *self.task.range_warnings(float(low), float(high), one_channel=True)]

    def identity(self) -> dict[str, Any]:
        return self.task.identity()


def scored(number: int, result: ModelOutput, score: Callable[[Tensor], Score]) -> Block:
    """An output as a block: what goes wrong in scoring becomes its reason, and so do values that are not finite.

    The baseline's block holds the range of its outputs too: warnings follow from the journal.
    """
    variant, output, failed, engine = result
    if output is None:
        return Block(variant.id, number, {}, failed=failed, engine=engine)
    try:
        judged = score(output)
    except Exception as error:  # the user's metric may raise anything
        return Block(variant.id, number, {}, failed=reason_of(error), engine=engine)
    if judged.fault is not None:
        return Block(variant.id, number, {}, f"{judged.fault} in batch {number}", engine)
    statistics = dict(judged.statistics)
    if variant == RECIPIENT and judged.one_channel and judged.low is not None and judged.high is not None:
        statistics[EXTENT] = np.array([[judged.low, judged.high]])
    return Block(variant.id, number, statistics, None, engine)


def reason_of(error: Exception) -> str:
    """Why something failed, in words: our own errors explain themselves."""
    return str(error) if isinstance(error, CkptswapError) else f"{type(error).__name__}: {error}"
