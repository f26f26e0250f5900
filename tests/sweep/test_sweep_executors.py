"""What executors are made of: dividing, telling, following; tests/cluster holds all of them to one contract."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ckptswap.errors import RunError, Stopped, UsageError
from ckptswap.executors.pool import WorkerPool
from ckptswap.executors.process import environment
from ckptswap.executors.worker_spec import WorkerSpec, divide, read_worker_spec
from ckptswap.scoring.scorer import Block
from ckptswap.sweep.preparing import executor_of
from ckptswap.sweep.run_folder.journal import Journal, JournalTail
from ckptswap.sweep.spec import RunOptions
from ckptswap.sweep.stopping import Stop, on_signals
from ckptswap.task import TaskSpec


@given(st.lists(st.floats(0, 1e9), max_size=60), st.integers(1, 12))
@example([0.0, 0.0], 2)
def test_work_is_divided_whole_and_evenly(costs: list[float], parts: int) -> None:
    groups = divide(costs, parts)
    assert sorted(at for group in groups for at in group) == list(range(len(costs)))
    assert all(groups) or not costs
    assert len(groups) == min(parts, len(costs))
    loads = [sum(costs[at] for at in group) for group in groups]
    if loads:
        assert max(loads) <= sum(costs) / len(groups) + max(costs) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"executor": "cloud"}, "no executor 'cloud'"),
        ({"executor": "inline", "jobs": 2}, "inline is one job"),
        ({"executor": "slurm"}, "give --jobs"),
        ({"executor": "ray"}, "give --jobs"),
        ({"jobs": 0}, "0 jobs"),
        ({"slurm": {"time": 1}}, "without Slurm"),
        ({"ray_address": "h:1", "jobs": 2}, "without Ray"),
    ],
)
def test_what_does_not_go_together(arguments: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        executor_of(RunOptions(**arguments), TaskSpec())


def test_each_process_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-b,6")
    assert [environment("cuda", shard)["CUDA_VISIBLE_DEVICES"] for shard in range(4)] == ["4", "GPU-b", "6", "4"]
    assert environment("cuda:1", 0)["CUDA_VISIBLE_DEVICES"] == "4,GPU-b,6"
    assert environment("cpu", 0)["CUDA_VISIBLE_DEVICES"] == "4,GPU-b,6"


def order(folder: Path) -> WorkerSpec:
    return WorkerSpec("t", str(folder), "a.module:function", {"x": {"y": [1, None]}}, (["v"], ["w"]), 3, "cuda")


def test_an_order_is_read_as_it_was_written(tmp_path: Path) -> None:
    order(tmp_path).write()
    assert read_worker_spec(order(tmp_path).path, order(tmp_path).seal) == order(tmp_path)


def test_another_order_in_its_place_is_not_obeyed(tmp_path: Path) -> None:
    ours, other = order(tmp_path), replace(order(tmp_path), work="evil:function")
    other.write()
    with pytest.raises(RunError, match="its checksum does not fit"):
        read_worker_spec(ours.path, ours.seal)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"spec": {}}'])
def test_a_damaged_order_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "order.json"
    path.write_text(text)
    with pytest.raises(RunError, match="no order for a worker"):
        read_worker_spec(path, order(tmp_path).seal)
    with pytest.raises(RunError, match="no order for a worker"):
        read_worker_spec(tmp_path / "nowhere.json", order(tmp_path).seal)


def test_following_sees_each_block_once_and_no_half_of_one(tmp_path: Path) -> None:
    with Journal(tmp_path, "key") as own, Journal(tmp_path, "key", "worker") as theirs:
        follower = JournalTail(tmp_path, "key", own.path)
        own.append(Block("mine", 0, {}))
        assert list(follower.look()) == []
        theirs.append(Block("a", 0, {}))
        theirs.append(Block("a", 1, {}))
        assert list(follower.look()) == [Block("a", 0, {}), Block("a", 1, {})]
        line = theirs.path.read_bytes().splitlines(keepends=True)[-1]
        with theirs.path.open("ab") as file:
            file.write(line[:7])
        assert list(follower.look()) == []
        with theirs.path.open("ab") as file:
            file.write(line[7:])
        assert list(follower.look()) == [Block("a", 1, {})]
        theirs.distrust()
        assert list(follower.look()) == [None]
    with theirs.path.open("ab") as file:
        file.write(b"damage\n")
    with pytest.raises(RunError, match=r"line 6 of .*worker\.jsonl is damaged"):
        list(follower.look())
    with pytest.raises(RunError, match="other conditions"):
        list(JournalTail(tmp_path, "other key", own.path).look())


def test_the_first_signal_asks_and_the_second_acts(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), on_signals() as stop:  # noqa: PT012  the second is within
        assert stop.signal is None
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)
    assert "once more ends it at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_patient_stop_minds_no_second_signal() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_signals(signal.SIGTERM, patient=True) as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="terminated, 3 of 4") as caught:
            stop.check("3 of 4")
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == before


def test_nothing_is_stopped_that_nobody_stopped() -> None:
    Stop().check("")


def test_orders_are_plain_json(tmp_path: Path) -> None:
    order(tmp_path).write()
    assert json.loads(order(tmp_path).path.read_bytes())["common"] == {"x": {"y": [1, None]}}


def test_more_than_one_job_is_a_pool_of_processes() -> None:
    assert type(executor_of(RunOptions(jobs=2), TaskSpec())) is WorkerPool
