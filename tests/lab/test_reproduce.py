"""The experiment on a toy folder: whole, resumable, guarded, with the shares of a plain loop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import torch
from once import once
from PIL import Image

from ckptswap.errors import DataError, RunError, Stopped, TaskError
from ckptswap.executors.pool import Ending, WorkerPool
from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.formats import open_checkpoint
from ckptswap.lab import reproduce as room
from ckptswap.lab import train as training_room
from ckptswap.lab.experiment import INITS, SCORED_BATCH, Arm, Experiment, Unit, full, quick
from ckptswap.lab.networks import build
from ckptswap.lab.pairs import ALL, Pair, load_pairs
from ckptswap.lab.reproduce import Estimate, Reproduction, cost, load_experiment, reproduce
from ckptswap.lab.summary import summary, summary_json
from ckptswap.lab.units import Price, UnitWatcher, units_spec
from ckptswap.report.document import document_md
from ckptswap.sweep.spec import RunOptions
from ckptswap.sweep.stopping import Stop

SIDE = 16
UNET = Arm("unet", "lab:unet", {"width": 2, "depth": 1})


def draw(folder: Path, part: str, count: int, seed: int) -> None:
    """Bright discs on noise: images/ and masks/ of 8-bit PNGs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    for name in ("images", "masks"):
        (folder / part / name).mkdir(parents=True)
    for at in range(count):
        cy, cx = rng.uniform(4, SIDE - 4, 2)
        disc = ((y - cy) ** 2 + (x - cx) ** 2 < 16).astype(np.uint8)
        noisy = (90 * disc + rng.integers(0, 60, disc.shape)).astype(np.uint8)
        Image.fromarray(noisy).save(folder / part / "images" / f"{at:02d}.png")
        Image.fromarray(disc * 255).save(folder / part / "masks" / f"{at:02d}.png")


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many samples are scored as one batch has: each sweep then captures its model once."""

    def make(folder: Path) -> None:
        draw(folder, "train", 30, 0)
        draw(folder, "test", SCORED_BATCH, 1)

    return once(tmp_path_factory, "discs", make)


def small(discs: Path, seeds: int = 2, steps: int = 60) -> Experiment:
    return Experiment((UNET,), seeds=seeds, steps=steps, batch_size=6, data=str(discs))


@pytest.fixture(scope="module")
def done(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole experiment: one network, two seeds."""

    def make(folder: Path) -> None:
        assert reproduce(small(discs), folder / "run") == Reproduction({})

    return once(tmp_path_factory, "done", make) / "run"


@cache
def pairs_of(discs: Path, done: Path) -> list[Pair]:
    return load_pairs(small(discs), done)


# The plan --------------------------------------------------------------------------------------------------------


def test_the_full_experiment_has_what_a_claim_takes() -> None:
    found = full()
    assert found.seeds >= 5
    models = {arm.model for arm in found.arms}
    assert models == {"lab:unet", "lab:pspnet", "smp:Unet", "smp:PSPNet"}
    assert any(arm.model_args.get("skips") is False for arm in found.arms)
    assert {"sgd", "adamw"} == {arm.optimizer for arm in found.arms}
    assert any(arm.freeze == ("conv.bias",) for arm in found.arms)
    assert [arm.name for arm in quick().arms] == [arm.name for arm in found.arms]


def test_trainings_differ_in_task_and_start_only() -> None:
    segment, shared, independent = full().trainings(Unit(UNET, 3))
    assert replace(shared.spec, task="segment") == segment.spec
    assert replace(independent.spec, seed=3) == shared.spec
    assert (segment.save_init, shared.init_from, independent.init_from) == (
        "init.safetensors",
        "init.safetensors",
        None,
    )


def test_settings_survive_the_file(tmp_path: Path) -> None:
    room._claim(tmp_path, full())
    assert load_experiment(tmp_path) == full()


# The work --------------------------------------------------------------------------------------------------------


def test_every_pair_is_swept_in_every_way(done: Path) -> None:
    for init in INITS:
        runs = {path.name for path in (done / "unet/seed-0" / init).iterdir() if path.is_dir()}
        assert runs == {
            "cells",
            "kinds",
            "prefix",
            "back",
            "affine",
            "bias-before-norm",
            "bias-without-norm",
            "bias-and-mean",
        }


def test_shared_networks_began_alike_and_independent_ones_did_not(done: Path) -> None:
    with open_checkpoint(done / "unet/seed-0/init.safetensors") as start:
        said = {}
        for name in ("segment", "shared", "independent"):
            with open_checkpoint(done / f"unet/seed-0/{name}.safetensors") as network:
                said[name] = network.metadata.get("ckptswap.init_from")
        assert (said["segment"], said["shared"], said["independent"]) == (start.sha256(), start.sha256(), None)


def no_work(*args: object, **kwargs: object) -> None:
    pytest.fail("it worked again")


def test_a_second_call_trains_and_scores_nothing(
    discs: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(done, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*.jsonl")}
    assert before
    monkeypatch.setattr(training_room, "train", no_work)
    assert reproduce(small(discs), run, known=PRICE) == Reproduction({})
    assert {path: path.read_bytes() for path in run.rglob("*.jsonl")} == before


PRICE = Estimate(
    6,
    0,
    {"unet": Price(0.1, 0.1, 10, 6, 5)},
    {"unet/seed-0": 1.0, "unet/seed-1": 1.0},
)


def stopping_at(place: str | None) -> dict[str, Any]:
    """A stop that is requested when progress first tells of this place."""
    stop = Stop()

    def tell(done: float, total: float, what: str) -> None:
        if what == place:
            stop.request(signal.SIGINT)

    return {"progress": tell, "stop": stop}


def without(done: Path, run: Path, *parts: str) -> None:
    """Copy an experiment but for these files and folders: what is there is not done again, and takes no time."""
    shutil.copytree(done, run)
    for part in parts:
        path = run / "unet" / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_interrupted_anywhere_it_continues_to_the_same_numbers(discs: Path, done: Path, tmp_path: Path) -> None:
    """In a training, in a sweep, and in a sweep of the second unit; after each there is more to be done."""
    trainings = [f"seed-0/{name}.safetensors" for name in ("shared", "independent")]
    sweeps = [f"seed-{seed}/{init}/{name}" for seed, init, name in (
        (0, "shared", "cells"), (0, "independent", "kinds"), (0, "independent", "prefix"), (1, "shared", "back"),
        (1, "independent", "affine"))]  # fmt: skip
    without(done, tmp_path / "run", *trainings, *sweeps)
    for place in ("unet/seed-0: shared, step 40", "unet/seed-0: independent kinds", "unet/seed-1: shared back"):
        with pytest.raises(Stopped):
            reproduce(small(discs), tmp_path / "run", known=PRICE, **stopping_at(place))
    assert reproduce(small(discs), tmp_path / "run", known=PRICE) == Reproduction({})
    assert load_pairs(small(discs), tmp_path / "run") == pairs_of(discs, done)


def test_an_unfinished_sweep_is_not_read(discs: Path, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    journal = tmp_path / "run/unet/seed-1/shared/affine/journal/main.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
    found = {(pair.init, pair.seed) for pair in load_pairs(small(discs), tmp_path / "run")}
    assert found == {("shared", 0), ("independent", 0), ("independent", 1)}
    reproduce(small(discs), tmp_path / "run", known=PRICE)
    assert load_pairs(small(discs), tmp_path / "run") == pairs_of(discs, done)


def test_two_workers_find_what_one_finds(discs: Path, done: Path, tmp_path: Path) -> None:
    """Each trains a network and sweeps its pair."""
    pairs = ("seed-0/shared", "seed-1/independent")
    without(done, tmp_path / "run", *pairs, *(f"{pair}.safetensors" for pair in pairs))
    told: list[tuple[float, float, str]] = []
    outcome = reproduce(
        small(discs),
        tmp_path / "run",
        workers=RunOptions(jobs=2),
        known=PRICE,
        progress=lambda *news: told.append(news),
    )
    assert outcome == Reproduction({})
    assert told[-1][0] == pytest.approx(told[-1][1])
    assert {what.split(":")[0] for _, _, what in told} == {"unet/seed-0", "unet/seed-1"}
    assert load_pairs(small(discs), tmp_path / "run") == pairs_of(discs, done)


def test_two_workers_stop_when_asked(discs: Path, tmp_path: Path) -> None:
    stop = Stop()
    with pytest.raises(Stopped, match="the same command continues"):
        reproduce(
            small(discs, steps=2000),
            tmp_path,
            workers=RunOptions(jobs=2),
            known=PRICE,
            progress=lambda *_: stop.request(signal.SIGINT),
            stop=stop,
        )


ENDLESS = """
import sys
from pathlib import Path
from ckptswap.lab.experiment import Arm, Experiment
from ckptswap.lab.reproduce import Estimate, reproduce
from ckptswap.lab.units import Price, UnitWatcher, units_spec
from ckptswap.sweep.spec import RunOptions

if __name__ == "__main__":
    arm = Arm("unet", "lab:unet", {"width": 2, "depth": 1})
    price = Estimate(0, 0, {"unet": Price(1, 1, 1, 1, 1)}, {"unet/seed-0": 1, "unet/seed-1": 1})
    experiment = Experiment((arm,), seeds=2, steps=10**6, batch_size=6, data=sys.argv[1])
    two = RunOptions(jobs=2)
    reproduce(experiment, Path("run"), workers=two, known=price, progress=lambda *news: print(*news, flush=True))
"""


def descendants(pid: int) -> list[int]:
    """Of a process: the server that forks its workers, and these."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(further for child in children for further in descendants(child))]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_workers_do_not_outlive_a_killed_parent(discs: Path, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, "endless.py", str(discs)]
    env = {name: value for name, value in os.environ.items() if name != programs.DOOR}  # the server is its child
    with programs.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        units = set()
        while len(units) < 2:  # both are at work
            units.add(parent.stdout.readline().split()[2])
        orphans = descendants(parent.pid)
        assert len(orphans) >= 3
        parent.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in orphans):
        assert time.monotonic() < deadline, "a worker goes on for nobody"
        time.sleep(0.1)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_other_settings_are_refused(discs: Path, done: Path) -> None:
    with pytest.raises(RunError, match=r"other steps.*choose another --run"):
        reproduce(small(discs, steps=7), done, known=PRICE)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"arms": [{}], "seeds": 1, "steps": 1}'])
def test_a_damaged_settings_file_is_refused(discs: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(RunError, match=r"holds no experiment.*choose another --run"):
        reproduce(small(discs), tmp_path, known=PRICE)


def test_a_unit_that_fails_leaves_the_others(
    discs: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(done, tmp_path / "run", "seed-0", "seed-1/shared.safetensors", "seed-1/shared/kinds")
    train = training_room.train

    def failing(spec: object, out: Path, **how: object) -> object:
        if "seed-0" in str(out):
            raise TaskError("the loss is nan at step 3", remedy="lower --lr")
        return train(spec, out, **how)

    monkeypatch.setattr(training_room, "train", failing)
    outcome = reproduce(small(discs), tmp_path / "run", known=PRICE)
    assert outcome.failed == {"unet/seed-0": "the loss is nan at step 3: lower --lr"}
    pairs = load_pairs(small(discs), tmp_path / "run")
    assert {pair.seed for pair in pairs} == {1}
    text = document_md(summary(small(discs), pairs, 2))
    assert "2 pairs are not finished" in text


class Dying:
    """A cluster whose workers begin their unit, say so in words that are new each time, and die."""

    poll = 0.0

    def __init__(self, fault: str | None = "signal SIGKILL") -> None:
        self.fault, self.lives, self._begun = fault, 0, set[int]()

    def submit(self, spec: WorkerSpec) -> Dying:
        self.spec = spec
        return self

    def begin(self, shards: Any) -> None:
        for shard in shards:
            self.lives += 1
            news = {"done": 1.0, "what": f"step {self.lives}"}
            self.spec.path.with_name(self.spec.shards[shard]["news"]).write_text(json.dumps(news))
            self._begun.add(shard)

    def ended(self) -> dict[int, Ending]:
        assert self.lives < 99, "nobody gives up"
        return {self._begun.pop(): Ending(self.fault) for _ in list(self._begun)}

    def stop(self) -> None:
        return None

    def kill(self) -> None:
        pass


def test_a_worker_that_dies_at_one_place_is_given_up(discs: Path, tmp_path: Path) -> None:
    spec, cluster = units_spec(small(discs, seeds=1), tmp_path, [PRICE.prices["unet"]]), Dying()
    with pytest.raises(RunError, match="died 4 times"):
        WorkerPool(cluster.submit, 2).do(spec, UnitWatcher(spec, lambda *news: None, Stop()))


def test_a_unit_of_which_nothing_is_heard_is_not_done(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_pool", lambda workers: WorkerPool(Dying(None).submit, 1))
    outcome = reproduce(small(discs), tmp_path / "run", known=PRICE)
    assert set(outcome.failed) == {"unet/seed-0", "unet/seed-1"}
    assert "without a word" in outcome.failed["unet/seed-0"]


def test_a_folder_without_its_parts_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="train"):
        reproduce(replace(small(tmp_path), data=str(tmp_path / "data")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_finished_has_no_report(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished pair"):
        load_pairs(small(discs), tmp_path)


def test_the_cost_counts_what_is_done(discs: Path, done: Path) -> None:
    found = cost(small(discs))
    assert (found.trainings, found.sweeps) == (6, 2 * 2 * 8)
    assert len(list(done.rglob("plan.json"))) == found.sweeps
    assert set(found.seconds) == {"unet/seed-0", "unet/seed-1"}
    assert found.total(2) == pytest.approx(found.total(1) / 2)
    assert found.prices["unet"].cells == len(pairs_of(discs, done)[0].cells)


# The numbers -----------------------------------------------------------------------------------------------------


def dice(network: torch.nn.Module, state: dict[str, torch.Tensor], discs: Path) -> float:
    """Load, forward, score each image by itself: nothing of ours but the network."""
    network.load_state_dict(state)
    network.eval()
    scores = []
    for path in sorted((discs / "test/images").iterdir()):
        image = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) / 255)[None, None]
        truth = np.asarray(Image.open(discs / "test/masks" / path.name)) > 0
        with torch.no_grad():
            found = network(image)[0, 0].numpy() > 0
        scores.append(
            2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1) if (found | truth).any() else 1
        )
    return float(np.mean(scores))


def state_of(path: Path) -> dict[str, torch.Tensor]:
    with open_checkpoint(path) as checkpoint:
        return {name: torch.from_numpy(checkpoint.read(name).copy()) for name in checkpoint}


@pytest.mark.parametrize("init", INITS)
def test_shares_are_those_of_a_plain_loop(discs: Path, done: Path, init: str) -> None:
    (pair,) = (each for each in pairs_of(discs, done) if (each.init, each.seed) == (init, 0))
    home = done / "unet/seed-0"
    own, other = state_of(home / "segment.safetensors"), state_of(home / f"{init}.safetensors")
    network = build("unet", width=2, depth=1)
    baseline = dice(network, own, discs)
    masks = np.stack([np.asarray(Image.open(path)) > 0 for path in sorted((discs / "test/masks").iterdir())])
    full_of = [2 * mask.sum() / (mask.size + mask.sum()) for mask in masks]
    span = abs(baseline - max(float(np.mean(full_of)), 0.0))
    assert pair.baseline == pytest.approx(baseline, abs=1e-6)
    for kind, ending in (("conv.weight", "conv"), ("bn.running_mean", "running_mean")):
        taken = {name: other[name] if _is(name, ending) else value for name, value in own.items()}
        share = (baseline - dice(network, taken, discs)) / span
        assert pair.kinds[kind] == pytest.approx(share, abs=1e-5)
    assert baseline > 0.5
    assert max(map(abs, filter(None, pair.kinds.values()))) > 0.05, "a pair in which nothing matters tests nothing"


def _is(name: str, ending: str) -> bool:
    if ending == "running_mean":
        return name.endswith("running_mean")
    return name.endswith(".weight") and ".bn" not in name


def test_distances_are_numpys(discs: Path, done: Path) -> None:
    pair = pairs_of(discs, done)[0]
    home = done / "unet/seed-0"
    own, start, donor = (state_of(home / f"{name}.safetensors") for name in ("segment", "init", pair.init))
    twin = state_of(done / "unet/seed-1/segment.safetensors")
    names = [name for name in own if name.endswith((".weight", ".bias"))]

    def rmse(other: dict[str, torch.Tensor]) -> float:
        apart = np.concatenate([(own[name] - other[name]).double().numpy().ravel() for name in names])
        return float(np.sqrt(np.mean(apart**2)))

    found = pair.apart[ALL]
    assert (found.pair, found.start, found.seeds) == pytest.approx((rmse(donor), rmse(start), rmse(twin)))
    biases = ["encoder.0.conv1.bias", "encoder.0.conv2.bias", "encoder.1.conv1.bias", "encoder.1.conv2.bias"]
    biases += ["decoder.0.conv1.bias", "decoder.0.conv2.bias"]
    moved = (
        torch.cat([own[name] - start[name] for name in biases]).norm()
        / torch.cat([start[name] for name in biases]).norm()
    )
    assert pair.moved == pytest.approx(float(moved), rel=1e-6)


def test_a_bias_before_norm_does_nothing_once_statistics_are_new(discs: Path, done: Path) -> None:
    for pair in pairs_of(discs, done):
        assert pair.regrouped["bias-before-norm"] == pytest.approx(0.0, abs=1e-9)


def test_the_last_prefix_is_the_donor(discs: Path, done: Path) -> None:
    for pair in pairs_of(discs, done):
        assert pair.donor_score is not None
        assert pair.prefix[-1] is not None
        sign = np.sign(pair.baseline - pair.donor_score)
        assert np.sign(round(pair.prefix[-1], 9)) == sign


def test_the_report_is_made_of_the_same_numbers(discs: Path, done: Path) -> None:
    experiment = small(discs)
    pairs = load_pairs(experiment, done)
    data = json.loads(json.dumps(summary_json(experiment, pairs, {})))
    assert {each["verdict"] for each in data["findings"]} == {"undecided"}, "two seeds decide nothing"
    assert len(data["pairs"]) == 4
    text = document_md(summary(experiment, pairs, 0))
    assert "A claim takes 5 seeds" in text
    mean = np.mean([pair.kinds["conv.weight"] for pair in pairs if pair.init == "shared"])
    assert f"| conv.weight | {mean:.3f} (" in text
