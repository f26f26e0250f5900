"""What a sweep relies on of whatever scores variants: full passes, replay, and a function that knows no torch.

`Toy` is the whole of an external scorer; another one joins by a line in `SCORERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint, overlay
from ckptswap.errors import ModelError, RunError, UsageError
from ckptswap.scoring.engines import scorer_of
from ckptswap.scoring.scorer import CLOSENESS, Block, Cost, Every, Exactness, Layout, Scorer, Wanted
from ckptswap.scoring.variant import BASELINE, RECIPIENT, Calibration, Variant
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.preparing import prepare_external
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.sides import Sides
from ckptswap.sweep.spec import RunOptions, SweepSpec
from ckptswap.task import TaskSpec, load_task

SAMPLES = 20


class Error(NamedTuple):
    """The toy's only metric."""

    name: str = "error"
    direction: Literal["max", "min"] = "min"
    bounds: tuple[float, float] = (0.0, 100.0)
    is_mean: bool = True
    is_of_set: bool = False


def errors(checkpoint: Checkpoint) -> np.ndarray:
    """How far a linear model is off, on samples of its own (N,)."""
    draw = np.random.default_rng(0)
    weight, bias = checkpoint.read("head.weight").reshape(-1).astype(float), checkpoint.read("head.bias")
    inputs = draw.normal(size=(SAMPLES, len(weight)))
    return np.square(inputs @ weight + bias.astype(float)[0] - inputs.sum(1)).clip(0, 100)


class Toy:
    """Scores whole checkpoints by a function: no torch, no batches, no model."""

    exactness: Exactness = "external"
    needs_model = False
    metrics = (Error(),)
    layout = Layout(np.arange(SAMPLES) // 2, np.arange(SAMPLES), (np.arange(SAMPLES),))

    def __init__(self, donors: Sequence[Checkpoint], recipient: Checkpoint) -> None:
        self._donors, self._recipient, self.notes = donors, recipient, list[str]()

    def blocks(self, wanted: Wanted) -> Generator[Block]:
        for variant in wanted.of(0) if 0 in wanted else ():
            try:
                donor = self._donors[variant.donor]
                checkpoint = overlay(self._recipient, donor, variant.names, alpha=variant.alpha)
                yield Block(variant.id, 0, {"error": errors(checkpoint)[:, None]}, engine="external")
            except Exception as error:
                yield Block(variant.id, 0, {}, str(error), "external")

    def distrust(self, reason: str) -> None: ...

    def unread(self) -> frozenset[str]:
        return frozenset(name for name in self._recipient if not name.startswith("head."))

    def cost(self, variants: Sequence[Variant]) -> Cost:
        return Cost("external", 1.0, 0.001 * (1 + len(variants)), None)

    def weights(self, variants: Sequence[Variant]) -> list[float]:
        return [1.0] * len(variants)

    def trivial(self, metric: str) -> float | None:
        return 10.0

    def warnings(self, baseline: Iterable[Block]) -> list[str]:
        return []

    def identity(self) -> dict[str, Any]:
        return {"task": {"function": "errors"}, "data": "0"}


def with_model(how: Any) -> Callable[..., Scorer]:
    return lambda donor, recipient, spec: scorer_of(load_task(spec, recipient), donor, recipient, how)


SCORERS: dict[str, Callable[..., Scorer]] = {
    "replay": with_model("replay"),
    "full": with_model("full"),
    "close": with_model("close"),
    "external": lambda donor, recipient, spec: Toy([donor], recipient),
}
WEIGHT, BIAS, STEM = (Variant(name, (name,)) for name in ("head.weight", "head.bias", "stem.bias"))


@pytest.fixture(params=SCORERS)
def make(request: pytest.FixtureRequest, skip: TaskSpec, save) -> Callable[[], Scorer]:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    return lambda: SCORERS[request.param](donor, recipient, skip)


@pytest.fixture
def scorer(make) -> Scorer:
    return make()


def scores(scorer: Scorer, *variants: Variant) -> dict[tuple[str, int], Block]:
    """Every block of these variants, once each."""
    with closing(scorer.blocks(Every(variants, range(len(scorer.layout.sizes))))) as blocks:
        given = list(blocks)
    assert [block.batch for block in given] == sorted(block.batch for block in given)
    found = {(block.variant, block.batch): block for block in given}
    assert len(found) == len(given) == len(variants) * len(scorer.layout.sizes)
    return found


def same(a: Block, b: Block) -> bool:
    """Equal but for how they were computed, and for what only the baseline tells."""
    shared = a.statistics.keys() & b.statistics.keys()
    return bool(shared) and all(a.statistics[name].tobytes() == b.statistics[name].tobytes() for name in shared)


def near(a: Block, b: Block) -> bool:
    """Equal but for rounding."""
    shared = a.statistics.keys() & b.statistics.keys()
    return bool(shared) and all(np.allclose(a.statistics[name], b.statistics[name], 1e-4, 1e-6) for name in shared)


def test_every_sample_is_in_one_batch(scorer: Scorer) -> None:
    layout = scorer.layout
    assert sorted(np.concatenate(layout.places).tolist()) == list(range(layout.samples))
    assert layout.sizes == tuple(map(len, layout.places))
    assert len(layout.groups) == len(layout.units) == layout.samples == SAMPLES


def test_a_block_has_a_row_a_sample_for_every_metric(scorer: Scorer) -> None:
    for (_, number), block in scores(scorer, RECIPIENT, WEIGHT).items():
        assert block.failed is None
        for metric in scorer.metrics:
            values = block.statistics[metric.name]
            assert (values.dtype, values.shape[0]) == (np.float64, scorer.layout.sizes[number])
            assert np.isfinite(values).all()
            assert metric.direction in ("max", "min")
            assert metric.bounds[0] < metric.bounds[1]


def test_scores_depend_on_the_variant_alone(make) -> None:
    """Not on what is scored beside it or before it, nor on who scores."""
    first = scores(make(), WEIGHT, BIAS, STEM)
    scorer = make()
    scores(scorer, RECIPIENT)
    again = scores(scorer, STEM, WEIGHT)
    assert all(same(block, first[place]) for place, block in again.items())
    whole = scores(scorer, Variant("twice", WEIGHT.names + BIAS.names), RECIPIENT)
    assert not same(whole["twice", 0], whole[BASELINE, 0])


def test_what_is_known_to_be_unread_changes_no_score(scorer: Scorer) -> None:
    unread = tuple(sorted(scorer.unread()))
    found = scores(scorer, RECIPIENT, Variant("unread", unread[:1]), Variant("none", ()))
    for number in range(len(scorer.layout.sizes)):
        assert same(found["none", number], found[BASELINE, number])
        assert not unread or same(found["unread", number], found[BASELINE, number])


def test_what_is_wanted_is_asked_batch_by_batch(scorer: Scorer) -> None:
    """Whoever asks may lose interest in a variant while batches pass."""
    seen: list[tuple[str, int]] = []

    class Fading:
        def __contains__(self, number: object) -> bool:
            return isinstance(number, int) and bool(self.of(number))

        def of(self, number: int) -> list[Variant]:
            return [BIAS] if ("head.weight", 0) in seen else [WEIGHT, BIAS]

    for block in scorer.blocks(Fading()):
        seen.append((block.variant, block.batch))
    expected = [("head.bias", number) for number in range(len(scorer.layout.sizes))]
    assert sorted(seen) == sorted([("head.weight", 0), *expected])


def test_only_the_wanted_batches_are_scored(scorer: Scorer) -> None:
    last = len(scorer.layout.sizes) - 1
    assert [block[:2] for block in scorer.blocks(Every([BIAS], {last}))] == [("head.bias", last)]
    assert list(scorer.blocks(Every([BIAS], ()))) == list(scorer.blocks(Every([], {0}))) == []


def test_whoever_stops_early_leaves_nothing_behind(scorer: Scorer) -> None:
    before = scores(scorer, RECIPIENT, WEIGHT)
    with closing(scorer.blocks(Every([WEIGHT, BIAS], {0}))) as blocks:
        next(blocks)
    assert all(same(block, before[place]) for place, block in scores(scorer, RECIPIENT, WEIGHT).items())


def test_what_cannot_be_scored_says_why_and_the_others_go_on(scorer: Scorer) -> None:
    found = scores(scorer, Variant("odd", ("no.such",)), BIAS)
    assert all("no.such" in (found["odd", number].failed or "") for number in range(len(scorer.layout.sizes)))
    assert all(block.failed is None for (variant, _), block in found.items() if variant == "head.bias")


def test_distrust_changes_no_score(scorer: Scorer) -> None:
    before = scores(scorer, WEIGHT)
    with pytest.raises(ModelError) if getattr(scorer, "how", "") == "replay" else nullcontext():
        scorer.distrust("somebody found other bits")  # by --engine replay nothing else is allowed
    agree = near if scorer.exactness == "close" else same
    assert all(agree(block, before[place]) for place, block in scores(scorer, WEIGHT).items())


def test_costs_are_there_for_planning(scorer: Scorer) -> None:
    variants = [WEIGHT, BIAS, STEM]
    assert len(scorer.weights(variants)) == 3
    assert min(scorer.weights(variants)) > 0
    cost = scorer.cost(variants)
    assert cost.seconds > 0
    assert 0 < cost.share <= 1


def test_what_decides_scores_is_json_and_the_same_again(make) -> None:
    first, second = make(), make()
    assert json.loads(json.dumps(first.identity())) == json.loads(json.dumps(second.identity()))
    assert first.exactness in ("bits", "close", "external")
    assert first.notes == []
    [metric, *_] = first.metrics
    assert first.trivial(metric.name) == second.trivial(metric.name)
    assert all(isinstance(text, str) for text in first.warnings(scores(first, RECIPIENT).values()))


def test_a_close_score_is_near_and_says_how_near(skip: TaskSpec, save) -> None:
    """On the first batch of a form it is exact, and beside it stands how far the other one is off."""
    donor, recipient, swaps = save(1, "Skip"), save(0, "Skip"), (WEIGHT, BIAS, STEM)
    close, full = (scores(SCORERS[how](donor, recipient, skip), RECIPIENT, *swaps) for how in ("close", "full"))
    sizes = SCORERS["full"](donor, recipient, skip).layout.sizes
    for place, block in close.items():
        is_variant = place[0] != BASELINE
        is_first = sizes.index(sizes[place[1]]) == place[1]
        assert near(block, full[place])
        assert block.engine == ("full" if not is_variant else "replay" if is_first else "close")
        assert (CLOSENESS in block.statistics) == (is_variant and is_first)
        assert same(block, full[place]) or block.engine == "close"
    assert all(close[swap.id, 0].statistics[CLOSENESS][0, 0] < 1e-5 for swap in swaps)


def test_what_is_wanted_exactly_is_not_close(skip: TaskSpec, save) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    scorer, wanted = SCORERS["close"](donor, recipient, skip), WEIGHT._replace(exact=True)
    exact, full = (scores(each, wanted) for each in (scorer, SCORERS["full"](donor, recipient, skip)))
    assert all(same(block, full[place]) and block.engine == "replay" for place, block in exact.items())


def test_full_passes_and_replay_agree_in_all_bits(skip: TaskSpec, save) -> None:
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    replay, full = (
        scores(SCORERS[how](donor, recipient, skip), RECIPIENT, WEIGHT, BIAS, STEM) for how in ("replay", "full")
    )
    assert all(same(block, full[place]) for place, block in replay.items())
    assert {block.engine for (variant, _), block in replay.items() if variant != BASELINE} == {"replay"}


# A whole sweep --------------------------------------------------------------------------------------------------


def planned(save, tmp_path: Path, **spec: Any) -> Sweep:
    """A sweep by the toy scorer, through the library."""
    donor, recipient = save(1, "Skip"), save(0, "Skip")
    told = SweepSpec((donor.path,), recipient.path, by=(("layer", "kind"), ("kind",)), **spec)
    return prepare_external(Toy, told, Sides((donor,), recipient), tmp_path / "run")


def test_a_sweep_needs_no_torch_module(save, tmp_path: Path) -> None:
    result = planned(save, tmp_path).run(RunOptions()).result
    rows = {(row.layer, row.kind): row for row in result.rows}
    assert rows["stem", "conv.weight"].status == "no-effect"
    whole = overlay(save(0, "Skip"), save(1, "Skip"), ["head.weight"])
    assert rows["head", "conv.weight"].score == errors(whole).mean()
    assert (result.metric, result.baseline) == ("error", errors(save(0, "Skip")).mean())
    assert result.donor_score == errors(save(1, "Skip")).mean()
    assert rows["head", "conv.weight"].verdict in ("sensitive", "undecided", "reusable")
    assert load_result(tmp_path / "run") == result


def test_a_finished_sweep_computes_nothing_again(save, tmp_path: Path, monkeypatch) -> None:
    result = planned(save, tmp_path).run(RunOptions()).result
    monkeypatch.setitem(globals(), "errors", None)
    assert planned(save, tmp_path).run(RunOptions()).result == result


def test_exactness_is_in_the_runs_key(save, tmp_path: Path) -> None:
    planned(save, tmp_path).run(RunOptions())
    other = planned(save, tmp_path)
    assert other.conditions["exactness"] == "external"
    changed = replace(other, conditions=other.conditions | {"exactness": "close"})
    with pytest.raises(RunError, match="exactness was external, is close"):
        changed.run(RunOptions())


def test_a_path_to_the_donor_and_a_race(save, tmp_path: Path) -> None:
    path = planned(save, tmp_path, alphas=(0.0, 0.5, 1.0)).run(RunOptions()).result
    assert any(row.path for row in path.rows)
    raced = planned(save, tmp_path).run(RunOptions(top=1)).result
    assert raced.rows[0].rank == 1


@pytest.mark.parametrize("spec", [{"mode": "prefix"}, {"calibration": Calibration(1, "scans")}])
def test_what_only_a_model_can_tell_is_refused(save, tmp_path: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="without a model"):
        planned(save, tmp_path, **spec)
    with pytest.raises(UsageError, match="has no model"):
        planned(save, tmp_path, screen="gradient").run(RunOptions())
    assert not (tmp_path / "run").exists(), "what is refused leaves no folder"
