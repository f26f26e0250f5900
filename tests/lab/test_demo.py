"""The demo on toy data: it continues, it guards its folder, and its commands do the same by hand."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ckptswap.errors import DataError, RunError
from ckptswap.formats import open_checkpoint
from ckptswap.lab import data, train
from ckptswap.lab.demo import HELD_OUT, RUN, SEGMENT, Demo, commands, demo
from ckptswap.runs import report
from ckptswap.task import TaskSpec

SMALL = replace(
    SEGMENT, model_args={"width": 2, "depth": 1}, data="lab:tiny", data_args={}, steps=4, threads=1, batch_size=4
)
SCORED = replace(HELD_OUT, data="lab:tiny", data_args={}, threads=1)


class Tiny:
    """Nine groups of one noisy 8 × 8 image each."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.masks = rng.integers(0, 2, (9, 8, 8))
        self.images = (self.masks[:, None] + rng.normal(0, 0.1, (9, 1, 8, 8))).astype(np.float32)

    def __len__(self) -> int:
        return 9

    def __getitem__(self, at: int) -> tuple[np.ndarray, np.ndarray, int]:
        return self.images[at], self.masks[at], at


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "DATASETS", {"tiny": Tiny})


def no_training(*args: object, **kwargs: object) -> None:
    pytest.fail("it trained again")


def test_it_sweeps_kinds_and_cells_and_judges_four_claims(tmp_path: Path) -> None:
    stages: list[str] = []
    found = demo(tmp_path / "demo", lambda stage, *_: stages.append(stage), segment=SMALL, held_out=SCORED).result
    assert list(dict.fromkeys(stages)) == ["train segment", "train reconstruct", "sweep"]
    assert {row.kind for row in found.rows if row.layer is None} >= {"conv.weight", "bn.running_mean"}
    assert sum(row.layer is not None for row in found.rows) > 20
    assert len(found.findings) == 4
    assert found.samples == 9


def test_the_pair_shares_its_initialisation(tmp_path: Path) -> None:
    demo(tmp_path, segment=SMALL, held_out=SCORED)
    with (
        open_checkpoint(tmp_path / "init.safetensors") as init,
        open_checkpoint(tmp_path / "reconstruct.safetensors") as network,
    ):
        assert network.metadata["ckptswap.init_from"] == init.sha256()
        assert json.loads(network.metadata["ckptswap.task"])["target"] == "input"


def test_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = demo(tmp_path, segment=SMALL, held_out=SCORED)
    monkeypatch.setattr("ckptswap.lab.train.train", no_training)
    assert demo(tmp_path, segment=SMALL, held_out=SCORED) == first
    assert first == Demo(tmp_path, report(tmp_path / RUN, claims=True))


def test_a_lost_network_is_trained_again_to_the_same_bits(tmp_path: Path) -> None:
    demo(tmp_path, segment=SMALL, held_out=SCORED)
    path = tmp_path / "reconstruct.safetensors"
    before = path.read_bytes()
    path.unlink()
    demo(tmp_path, segment=SMALL, held_out=SCORED)
    assert path.read_bytes() == before


def test_checkpoints_of_other_settings_are_not_replaced(tmp_path: Path) -> None:
    train.train(replace(SMALL, steps=1), tmp_path / "segment.safetensors", save_init=tmp_path / "init.safetensors")
    before = (tmp_path / "segment.safetensors").read_bytes()
    with pytest.raises(RunError, match="other settings"):
        demo(tmp_path, segment=SMALL, held_out=SCORED)
    assert (tmp_path / "segment.safetensors").read_bytes() == before


def test_without_data_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data 'tinny'"):
        demo(tmp_path / "demo", segment=replace(SMALL, data="lab:tinny"), held_out=SCORED)
    assert list(tmp_path.iterdir()) == []


def test_the_commands_do_the_same_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptswap.cli.main import app

    shown = demo(tmp_path / "demo", segment=SMALL, held_out=SCORED)
    script = (tmp_path / "demo" / "commands.sh").read_text()
    (tmp_path / "hand").mkdir()
    monkeypatch.chdir(tmp_path / "hand")
    for line in script.splitlines()[2:]:
        program, *arguments = shlex.split(line)
        assert program == "ckptswap"
        app(arguments, standalone_mode=False)
    for name in ("init", "segment", "reconstruct"):
        by_hand = (tmp_path / "hand" / f"{name}.safetensors").read_bytes()
        assert by_hand == (tmp_path / "demo" / f"{name}.safetensors").read_bytes()
    by_hand = report(tmp_path / "hand" / RUN, claims=True)
    assert replace(by_hand, donors=shown.result.donors) == shown.result, "the path is written as it was given"


def test_arguments_are_written_as_the_command_line_reads_them() -> None:
    spec = replace(SMALL, model_args={"encoder_name": "resnet18", "decoder_channels": [8, 4]})
    line = shlex.split(commands(spec).splitlines()[2])
    said = line[line.index("--model-args") + 1]
    assert TaskSpec().merge({"model-args": said}).model_args == spec.model_args
