"""A name was 'missing' although the file holds its tensor under another: `save_model` writes one name.

Relatives: either name kept; modules registered twice; shared buffers and biases; a file in which two names of one
tensor disagree; one whose counters disagree; a tensor of which no name is there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_program_of_cases import good, run
from safetensors.torch import save_file, save_model
from sweeping import sweep
from tied_networks import built, groups, opened, plain_score, save_pair, task
from torch import Tensor

from ckptswap.errors import MismatchError
from ckptswap.task import load_task

TASK = ["--data", "net.py:images", "--metric", "net.py:error", "--batch-size", 5, "--threads", 1]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def state(name: str) -> dict[str, Tensor]:
    return torch.load(f"{name}.pth", weights_only=True)


@pytest.mark.parametrize("model", ["Head", "Registered", "BaseModel", "Siamese", "Buffers", "Biases"])
def test_a_file_of_save_model_is_the_plain_loops(model: str) -> None:
    save_pair(model)
    for name in "ab":
        net = built(model)
        net.load_state_dict(state(name))
        save_model(net, f"{name}.safetensors")
    done = good("evaluate", "b.safetensors", "--model", f"net.py:{model}", *TASK, "--format", "json")
    [row] = done.json["checkpoints"]
    assert row["scores"]["net.py:error"]["value"] == pytest.approx(plain_score(model, state("b")), rel=1e-6)


@pytest.mark.parametrize("kept", [("embed.weight", "head.weight"), ("head.weight", "embed.weight")])
def test_donor_and_recipient_may_keep_different_names(kept: tuple[str, str]) -> None:
    save_pair("Head")
    for name, only in zip("ab", kept, strict=True):
        save_file({each: value for each, value in state(name).items() if "mid" in each or each == only},
                  f"{name}.safetensors")  # fmt: skip
    result = sweep(*opened("a.safetensors", "b.safetensors"), task("Head"), run_dir="run", engine="replay")
    [row] = [row for row in result.rows if "weight" in row.tensors[0] and "mid" not in row.tensors[0]]
    assert row.tensors == (kept[1],), "the name that the recipient's file has"
    expected = {
        **state("b"),
        "embed.weight": state("a")["embed.weight"],
        "head.weight": state("a")["embed.weight"],
    }
    assert row.score == pytest.approx(plain_score("Head", expected), rel=1e-6)


def test_a_tensor_of_which_no_name_is_there_is_missing() -> None:
    save_pair("Head")
    save_file({name: value for name, value in state("b").items() if "mid" in name}, "none.safetensors")
    done = run("evaluate", "none.safetensors", "--model", "net.py:Head", *TASK)
    assert done.code == 2
    assert "2 missing (embed.weight, head.weight)" in done.err


@pytest.mark.parametrize("model", ["Head", "Registered", "Biases"])
def test_names_of_one_tensor_that_disagree_are_refused(model: str) -> None:
    """torch keeps the last without a word; a careful tool says which."""
    save_pair(model)
    group = sorted(next(each for each in groups(model).values() if len(each) > 1))
    both = {name: value.clone() for name, value in state("b").items()}
    both[group[0]] += 0.5
    save_file(both, "both.safetensors")
    done = run("evaluate", "both.safetensors", "--model", f"net.py:{model}", *TASK)
    assert done.code == 2
    assert "different values under names of one tensor of the model" in done.err
    assert group[0] in done.err
    assert " ≠ " in done.err
    done = run("sweep", "--from", "a.pth", "--to", "both.safetensors", "--model", f"net.py:{model}", *TASK)
    assert done.code == 2
    assert not Path("runs").exists()
    good(
        "sweep", "--from", "both.safetensors", "--to", "b.pth", "--model", f"net.py:{model}", *TASK, "--run", "run"
    )
    rows = good("report", "run", "--format", "json").json["rows"]
    bad = [row for row in rows if set(row["tensors"]) & set(group)]
    assert [(row["status"], row["drop"], row["verdict"]) for row in bad] == [("mismatch", None, None)]
    assert all(row["status"] in ("measured", "identical", "no-effect") for row in rows if row not in bad)


def test_counters_may_disagree() -> None:
    """No model reads them in eval mode."""
    save_pair("Registered")
    both = {name: value.clone() for name, value in state("b").items()}
    both["encoder.0.norm.num_batches_tracked"] += 3
    save_file(both, "both.safetensors")
    load_task(task("Registered"), opened("both.safetensors")[0])


def test_nothing_is_loaded_of_what_disagrees() -> None:
    save_pair("Head")
    both = {name: value.clone() for name, value in state("a").items()}
    both["head.weight"] += 1
    save_file(both, "both.safetensors")
    mine = load_task(task("Head"), opened("b.pth")[0])
    with pytest.raises(MismatchError, match=r"embed\.weight ≠ head\.weight"):
        mine.load(opened("both.safetensors")[0])
    assert all(torch.equal(value, state("b")[name]) for name, value in mine.model.state_dict().items())
