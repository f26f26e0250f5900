"""`--decide`: a walk by groups, rows that leave once their verdict is known, one table however it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_task import SOURCE
from sweeping import prepare, ran

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import Stopped, UsageError
from ckptswap.executors.pool import Ending, WorkerPool
from ckptswap.executors.worker import work
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.formats import open_checkpoint
from ckptswap.report.plan import plan_json, plan_table
from ckptswap.report.text import Style
from ckptswap.selection import Selection
from ckptswap.statistics import sequential
from ckptswap.statistics.totals import mean
from ckptswap.statistics.verdicts import drop_form
from ckptswap.sweep.analysis import load_result
from ckptswap.sweep.decide import Walked, decisions
from ckptswap.sweep.loop import score_missing
from ckptswap.sweep.preparing import prepare_external
from ckptswap.sweep.progress import BlockProgress
from ckptswap.sweep.result import Row, SweepResult
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import Journal
from ckptswap.sweep.run_folder.trust import NamedAgain, source_to_rebuild
from ckptswap.sweep.runner import Sweep
from ckptswap.sweep.scored_run import ScoredRun
from ckptswap.sweep.sides import Sides
from ckptswap.sweep.spec import SweepSpec
from ckptswap.sweep.stopping import Stop
from ckptswap.sweep.worst_samples import _worst_hits
from ckptswap.task import TaskSpec
from ckptswap.task.data import load_data

GROUPS, TOLERANCE = 30, 0.02
FEW = Selection.parse(only=["head.*", "norm.*", "stem.bias"])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint, Checkpoint]:
    """The user's file, and a donor that is near enough to be reusable in parts."""
    folder = tmp_path_factory.mktemp("decide")
    (folder / "own.py").write_text(SOURCE)
    namespace: dict[str, Any] = {}
    exec(SOURCE, namespace)
    for seed, name, size in ((0, "recipient", 0.1), (1, "donor", 0.02)):
        torch.manual_seed(seed)
        state = namespace["Skip"]().state_dict()
        noise = {key: size * torch.rand(value.shape) for key, value in state.items() if value.is_floating_point()}
        torch.save(state | {key: state[key] + part for key, part in noise.items()}, folder / f"{name}.pt")
    return folder / "own.py", open_checkpoint(folder / "donor.pt"), open_checkpoint(folder / "recipient.pt")


def task(own: Path, **args: Any) -> TaskSpec:
    data = {"samples": 2 * GROUPS, "group": 2} | args
    return TaskSpec(model=f"{own}:Skip", data=f"{own}:data", data_args=data, metrics=(f"{own}:error", "iou"),
                    batch_size=6, threads=1)  # fmt: skip


def planned(pair: tuple[Path, Checkpoint, Checkpoint], run: Path, **how: Any) -> Sweep:
    own, donor, recipient = pair
    told = {"selection": FEW, "decide": True, "engine": "full"} | how
    return prepare(told.pop("donor", donor), recipient, told.pop("task", task(own)), run_dir=run, **told)


def decided(pair: Any, run: Path, **how: Any) -> SweepResult:
    options = {name: how.pop(name) for name in ("executor", "budget", "progress", "tolerance") if name in how}
    return ran(planned(pair, run, **how), **{"tolerance": TOLERANCE} | options)


@pytest.fixture(scope="module")
def whole(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepResult]:
    run = tmp_path_factory.mktemp("whole") / "run"
    return run, decided(pair, run)


def measured(result: SweepResult) -> list[Row]:
    return [row for row in result.rows if row.status == "measured"]


# The walk -------------------------------------------------------------------------------------------------------


def test_the_walk_goes_group_by_group_and_is_cut_at_looks(pair: Any) -> None:
    data = load_data(replace(task(pair[0]), walk="groups"))
    groups = data.groups[np.concatenate(data.places)]
    assert (groups[::2] == groups[1::2]).all()
    assert sorted(groups[::2].tolist()) == list(range(GROUPS))
    assert groups[::2].tolist() != list(range(GROUPS))
    assert {16, 24, 32, 48, 60} <= set(np.cumsum(data.sizes).tolist())
    assert np.array_equal(data.units, data.groups)


def test_another_walk_is_another_key_and_the_usual_one_is_what_it_was(pair: Any) -> None:
    usual = task(pair[0])
    assert "walk" not in usual.as_dict()
    assert replace(usual, walk="groups").as_dict() == usual.as_dict() | {"walk": "groups"}


# The run --------------------------------------------------------------------------------------------------------


def test_rows_leave_when_their_verdict_is_known(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    rows = measured(result)
    assert {"reusable", "sensitive"} <= {row.verdict for row in rows}
    assert min(row.samples or 0 for row in rows) < 2 * GROUPS
    assert {row.samples for row in rows} <= {16, 20, 24, 28, 32, 40, 48, 2 * GROUPS}
    assert all((row.p_reusable or 0) <= 0.025 for row in rows if row.verdict == "reusable")
    assert any("verdicts are known" in note and "of all scores" in note for note in result.notes)
    assert load_result(run) == result


def test_verdicts_are_those_of_all_scores(pair: Any, whole: tuple[Path, SweepResult], tmp_path: Path) -> None:
    """An executor that scores more than it is asked for changes no verdict, nor a p-value."""

    class Everything:
        def run(self, sweep: Sweep, journal: Journal, progress: BlockProgress) -> None:
            score_missing(sweep.scorer, sweep.variants, journal, progress)

    result = decided(pair, tmp_path / "run", executor=Everything())
    told = [[(row.tensors, row.verdict, row.p_reusable, row.p_sensitive) for row in measured(part)]
            for part in (result, whole[1])]  # fmt: skip
    assert sorted(told[0]) == sorted(told[1])
    assert {row.samples for row in measured(result)} == {2 * GROUPS}


def test_an_interrupted_run_gives_the_same_table(
    pair: Any, whole: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    stopped = 0
    for last in (14, 24, 10**6):
        stop = Stop()

        def progress(done: int, total: int, last: int = last, stop: Stop = stop) -> None:
            if done >= last:
                stop.request()

        try:
            result = ran(planned(pair, tmp_path / "run"), tolerance=TOLERANCE, progress=progress, stop=stop)
        except Stopped as end:
            stopped += end.message == RunFolder(tmp_path / "run").read_plan().ended
    assert stopped == 2
    assert result == whole[1]


def test_a_budget_leaves_a_table_that_says_what_is_missing(
    pair: Any, whole: tuple[Path, SweepResult], tmp_path: Path
) -> None:
    first = decided(pair, tmp_path / "run", budget=0.0)
    assert "not scored yet" in " ".join(first.notes)
    assert (first.complete, whole[1].complete) == (False, True), "rows that are decided need no more samples"
    assert decided(pair, tmp_path / "run") == whole[1]


class Here:
    """Workers of a pool, one after the other, in this process."""

    poll = 0.0

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, self._ended = spec, dict[int, Ending]()

    def begin(self, shards: Sequence[int]) -> None:
        for shard in shards:
            work(self._spec, shard, Stop())
            self._ended[shard] = Ending()

    def ended(self) -> Mapping[int, Ending]:
        ended, self._ended = self._ended, {}
        return ended

    def stop(self) -> None:
        return None

    def kill(self) -> None:
        pass


def test_several_workers_give_the_same_table(pair: Any, whole: tuple[Path, SweepResult], tmp_path: Path) -> None:
    assert decided(pair, tmp_path / "run", executor=WorkerPool(Here, 2)) == whole[1]


def test_what_fails_is_told_and_the_others_are_decided(pair: Any, tmp_path: Path) -> None:
    _, donor, recipient = pair
    state = torch.load(donor.path, weights_only=True)
    torch.save(state | {"head.weight": torch.full((1, 4, 1, 1), torch.nan)}, tmp_path / "bad.pt")
    bad = open_checkpoint(tmp_path / "bad.pt")
    result = decided((pair[0], bad, recipient), tmp_path / "run")
    failed = [row for row in result.rows if row.status == "failed"]
    assert [row.tensors for row in failed] == [("head.weight",)]
    assert {row.verdict for row in measured(result)} >= {"reusable"}


def test_another_tolerance_or_metric_judges_what_is_there(whole: tuple[Path, SweepResult]) -> None:
    run, result = whole
    wide = load_result(run, tolerance=10.0)
    assert {row.verdict for row in measured(wide)} == {"reusable"}
    assert [row.samples for row in sorted(measured(wide), key=lambda row: row.tensors)] == [
        row.samples for row in sorted(measured(result), key=lambda row: row.tensors)
    ]
    assert "until their verdict by" in " ".join(load_result(run, metric="iou").notes)


def test_bets_need_bounds_and_say_little_of_what_is_reusable(pair: Any, tmp_path: Path) -> None:
    how = {"confidence_sequence": True, "tolerance": 0.01}
    with pytest.raises(UsageError, match=r"needs a mean with bounds, and .* has no bounds"):
        decided(pair, tmp_path / "run", **how)
    result = decided(pair, tmp_path / "run", task=replace(task(pair[0]), metrics=("iou",)), **how)
    assert {row.verdict for row in measured(result)} <= {"sensitive", "undecided"}
    assert "verdicts are by bets on each group" in " ".join(result.notes)


# What makes no sense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"top": 3}, "--top asks for the worst rows only"),
        ({"error": "fdr"}, "keeps the family-wise error"),
        ({"se": "successive"}, "are no neighbours"),
    ],
)
def test_what_does_not_go_with_it_is_refused(pair: Any, tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ran(planned(pair, tmp_path / "run"), tolerance=TOLERANCE, **how)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"alphas": (0.5,)}, "scores no paths"),
        ({"screen": "sample:4"}, "begins with groups drawn at random"),
        ({"decide": False, "confidence_sequence": True}, "is for --decide"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SweepSpec(("a.pt",), "b.pt", **{"decide": True} | how)


def test_a_report_refuses_another_error_rate(whole: tuple[Path, SweepResult]) -> None:
    with pytest.raises(UsageError, match="keeps the family-wise error"):
        load_result(whole[0], error="fdr")


def test_fewer_than_eight_groups_are_refused(pair: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="looks at 8 groups first, and there are 7"):
        decided(pair, tmp_path / "run", task=task(pair[0], samples=14))


BATCHES = """

def batches(together):
    items = data(60, 1)
    for start in range(0, 60, 6):
        part = items[start : start + 6]
        groups = [(start + at) // together if together else 0 for at in range(6)]
        yield torch.stack([item[0] for item in part]), torch.stack([item[1] for item in part]), groups
"""


def test_ready_made_batches_that_share_groups_are_drawn_together(pair: Any, tmp_path: Path) -> None:
    own = tmp_path / "made.py"
    own.write_text(SOURCE + BATCHES)
    spec = replace(task(own), data=f"{own}:batches", data_args={"together": 9}, walk="groups")
    data = load_data(spec)
    assert data.units.tolist() == sorted(data.units.tolist())
    assert len(set(data.units.tolist())) == 4  # of batches 0–1–2, 3–4–5, …: three share two groups
    walked = data.units[np.concatenate(data.places)]
    assert (np.diff(walked) != 0).sum() == 3
    with pytest.raises(UsageError, match="there are 4, since ready-made batches join what they share"):
        decided(pair, tmp_path / "run", task=replace(spec, walk="samples"))


def test_a_scorer_without_a_model_has_its_own_walk(pair: Any) -> None:
    spec = SweepSpec(("a.pt",), "b.pt", decide=True)
    with pytest.raises(UsageError, match="in an order of its own"):
        prepare_external(lambda donors, recipient: None, spec, Sides(pair[1:2], pair[2]))  # type: ignore[arg-type, return-value]


# Before it is run -----------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_will_probably_take(pair: Any, tmp_path: Path) -> None:
    sweep = planned(pair, tmp_path / "run")
    outlook = sweep.outlook
    assert outlook is not None
    assert outlook.probable_share is not None
    assert outlook.looks == (8, 10, 12, 14, 16, 20, 24, 30)
    assert outlook.least_share == pytest.approx(8 / 30)
    assert outlook.least_share <= outlook.probable_share <= 1
    data = plan_json(sweep.plan, "run", 60, sweep.scorer.cost(sweep.variants), outlook=outlook)
    assert "verdicts after 8, 10, 12, 14, 16, 20, 24, 30 groups: probably" in " ".join(
        plan_table(data, Style(200)).split()
    )


# The pure part --------------------------------------------------------------------------------------------------


def walked(drops: np.ndarray) -> Iterator[Walked]:
    """Scores of groups of one sample, in their order, whole and cut short."""
    scores = {str(row): 0.8 - own[:, None] for row, own in enumerate(drops)}
    groups = np.arange(drops.shape[1])
    baseline, unbounded = np.full((len(groups), 1), 0.8), (-np.inf, np.inf)
    whole = Walked(baseline, scores, groups, [groups], mean, "max", unbounded)
    yield whole
    yield replace(
        whole, scores={name: np.where(groups[:, None] < 12, own, np.nan) for name, own in scores.items()}
    )


def test_what_is_scored_so_far_decides_what_is_wanted() -> None:
    drops = np.random.default_rng(0).normal([[0.5], [0.0], [0.01]], 0.02, (3, 40))
    whole, cut = walked(drops)
    then, now = (decisions(part, 0.1, bets=False) for part in (whole, cut))
    assert [own.verdict for own in then.judgements.values()] == ["sensitive", "reusable", "reusable"]
    assert not then.wanted
    assert cut.known.tolist() == [12, 12, 12]
    assert all(own.groups <= 12 for own in now.judgements.values())


def test_answers_that_are_right_or_wrong_are_known_soon() -> None:
    """What never moves is left early, since 240 answers prove nothing of it; bets see what breaks four in ten."""
    broken = np.random.default_rng(0).random((2, 240)) < 0.4
    whole, _ = walked(np.vstack([np.zeros((20, 240)), broken]))
    scores = {name: (own > 0.5).astype(float) for name, own in whole.scores.items()}
    sure = replace(whole, baseline=np.ones((240, 1)), scores=scores, bounds=(0.0, 1.0))
    judgements = list(decisions(sure, 0.01, bets=False).judgements.values())
    assert all(own.is_given_up and own.groups <= 40 for own in judgements[:20])
    assert all(own.verdict == "sensitive" and own.groups <= 64 for own in judgements[20:])
    bets = decisions(sure, 0.01, bets=True).judgements
    for name, own in zip(("20", "21"), judgements[20:], strict=True):
        assert own.p_sensitive == pytest.approx(bets[name].p_sensitive)


@pytest.mark.parametrize("baseline", [[1.0] * 39 + [0.5], np.repeat([1.0, 0.5], 20)])
def test_no_look_takes_a_test_of_its_own(baseline: Any) -> None:
    """Scores that so far are right or wrong, and later are not, have the t-tests from the first look on."""
    whole, _ = walked(np.vstack([np.resize([0.0, 1.0, 1.0], 40), np.zeros(40)]))
    scores = {name: (own > 0.5).astype(float) for name, own in whole.scores.items()}
    soft = replace(whole, baseline=np.array(baseline)[:, None], scores=scores, bounds=(0.0, 1.0))
    rows, forms = np.arange(2), [drop_form(at, "max") for at in (1, 2)]
    expected = sequential.t_values(soft.sample(8, [0, 1]), forms, 0.01, 40)
    assert np.array_equal(soft.by_t(0.01)(8, rows), expected)


def test_groups_of_several_answers_may_move_by_less() -> None:
    """Eight groups of four answers, all right: one may yet be wrong, which moves its group by a quarter."""
    whole, _ = walked(np.zeros((2, 40)))
    fours = replace(whole, baseline=np.ones((40, 1)), groups=np.repeat(np.arange(10), 4), bounds=(0.0, 1.0))
    assert not fours.are_answers
    assert fours.sample(8, []).step is None
    assert replace(fours, groups=whole.groups).sample(8, []).step == 1.0


def test_nothing_is_scored_yet() -> None:
    whole, _ = walked(np.zeros((2, 40)))
    nothing = replace(whole, scores=dict.fromkeys(whole.scores, np.full((40, 1), np.nan)))
    now = decisions(nothing, 0.1, bets=False)
    assert [own.p_reusable for own in now.judgements.values()] == [None, None]
    assert set(now.wanted.values()) == {1}


def test_the_worst_rows_are_drawn_though_they_left_early(whole: tuple[Path, SweepResult]) -> None:
    """On the samples that they were scored on; a row that breaks everything has the fewest."""
    run, result = whole
    hits = list(_worst_hits(ScoredRun.read(RunFolder(run))))
    worst = sorted(measured(result), key=lambda row: -(row.drop or 0.0))[:3]
    assert list(dict.fromkeys(cell.names for cell, *_ in hits)) == [row.tensors for row in worst]
    assert min(row.samples or 0 for row in worst) < 2 * GROUPS
    assert np.isfinite([numbers for _, *numbers in hits]).all()


def test_a_run_folder_remembers_that_it_decides(whole: tuple[Path, SweepResult]) -> None:
    assert RunFolder(whole[0]).read_plan().spec.decide


def test_a_strangers_run_keeps_its_walk_when_its_task_is_named_again(whole: tuple[Path, SweepResult]) -> None:
    """`select` builds the task anew of what is named here; the walk is no code, and belongs to the scores."""
    folder = RunFolder(whole[0])
    source = folder.read_plan().source
    own = source.spec.task
    again = {"model": own.model, "data": own.data, "data_args": own.data_args, "metric": own.metrics}
    named = NamedAgain((source.donors[0].path,), source.recipient.path, again)
    assert source_to_rebuild(folder, named).spec.task.walk == "groups"
