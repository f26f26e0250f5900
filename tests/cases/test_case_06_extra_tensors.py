"""A file with tensors that the model has no place for, or without some that it has: what torch loads with
`strict=False` and a look has a way here, and errors name flags that make it fit.

Relatives: Lightning's loss with a buffer, torch's own AveragedModel (of a plain, a compiled and a parallel
network), a training step's counter at the root, a teacher beside the student, a head of another size, no head,
batch counters that are floats, whole numbers of other widths, or missing, in one file and between two.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program import good, run
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import ckptswap as cs

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Conv2d(4, classes, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def net(classes=1):
    return Net(classes)


def data():
    draw = torch.Generator().manual_seed(1)
    images = torch.rand(10, 3, 8, 8, generator=draw)
    return [(image, (image.mean(0) > 0.5).long()) for image in images]
"""
TASK = ("--model", "net.py:net", "--data", "net.py:data", "--metric", "mse", "--threads", 1, "--format", "json")
SPEC = {"model": "net.py:net", "data": "net.py:data", "metric": "mse", "threads": 1}


@pytest.fixture(autouse=True)
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "net.py").write_text(SOURCE)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def space() -> dict[str, object]:
    found: dict[str, object] = {"__name__": "net"}
    exec(SOURCE, found)
    return found


def made(seed: int, classes: int = 1) -> nn.Module:
    """The network of the file, with no value that it begins with."""
    torch.manual_seed(seed)
    model = space()["net"](classes)  # type: ignore[operator]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.rand_like(parameter) / 8)
        model.train()(torch.rand(16, 3, 8, 8))
    return model.eval()


def plain_score(state: Mapping[str, Tensor], *, initial: nn.Module | None = None) -> float:
    """By `load_state_dict(strict=False)` and one full forward."""
    model = initial or made(9)
    model.load_state_dict(dict(state), strict=False)
    samples = space()["data"]()  # type: ignore[operator]
    with torch.no_grad():
        output = torch.cat([model.eval()(image[None]) for image, _ in samples])[:, 0]
    truth = torch.stack([mask for _, mask in samples])
    return float(((output - truth) ** 2).mean((1, 2)).double().mean())


def score(*arguments: object) -> float:
    return good("evaluate", *arguments, *TASK).json["checkpoints"][0]["scores"]["mse"]["value"]


def extra_files() -> dict[str, dict[str, Tensor]]:
    state = made(0).state_dict()
    lightning = {f"model.{name}": value for name, value in state.items()}
    net = {f"net.{name}": value for name, value in state.items()}
    compiled, parallel = torch.compile(made(0), backend="eager"), nn.DataParallel(made(0))
    return {
        "lightning": lightning | {"criterion.pos_weight": torch.tensor(3.2)},
        "swa": dict(AveragedModel(made(0)).state_dict()),
        "swa_compiled": dict(AveragedModel(compiled).state_dict()),
        "swa_parallel": dict(AveragedModel(parallel).state_dict()),
        "net": net | {"loss.w": torch.ones(2), "step": torch.ones(1)},
        "teacher": state | {f"teacher.{name}": value * 2 for name, value in state.items()},
        "in_the_part": state | {"encoder.hook.scale": torch.ones(4), "head.scale": torch.ones(1)},
        "comma": state | {"a,b": torch.ones(1), "*": torch.ones(1)},
    }


@pytest.mark.parametrize("name", extra_files())
def test_the_remedy_makes_it_fit_in_evaluate_in_sweep_and_in_python(name: str) -> None:
    torch.save(extra_files()[name], "a.pt")
    refused = run("evaluate", "a.pt", *TASK)
    assert (refused.code, refused.out) == (2, "")
    assert "begins with" not in refused.err
    words = words_of(refused.err)
    assert "--exclude" in words
    expected = plain_score(made(0).state_dict())
    assert score("a.pt", *words) == pytest.approx(expected, rel=1e-6)
    assert score("a.pt", "--partial", *without_exclude(words)) == pytest.approx(expected, rel=1e-6)

    torch.save(made(1).state_dict(), "b.pt")
    swap = ("sweep", "--from", "b.pt", "--to", "a.pt", "--by", "tensor", "--run", "r", *TASK)
    refused = run(*swap)
    assert refused.code == 2
    assert words_of(refused.err) == words
    done = good(*swap, *words)
    assert done.json["baseline"] == pytest.approx(expected, rel=1e-6)
    own, donor = made(0).state_dict(), made(1).state_dict()
    rows = [row for row in done.json["rows"] if row["status"] == "measured"]
    assert len(rows) == 8
    for row in rows:
        mixed = {**own, **{name: donor[name] for name in row["tensors"]}}
        assert row["score"] == pytest.approx(plain_score(mixed), rel=1e-5)

    pairs = list(zip(words[::2], words[1::2], strict=True))
    keys = {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairs}
    exclude = [value for flag, value in pairs if flag == "--exclude"]
    found = cs.evaluate("a.pt", **{**keys, "exclude": exclude}, **SPEC)
    assert found.scores[0]["mse"].estimate == pytest.approx(expected, rel=1e-6)


def words_of(error: str) -> list[str]:
    """The flags that an error says make it fit."""
    return shlex.split(error.split("): ")[-1].split(" makes it fit")[0])


def without_exclude(words: list[str]) -> list[str]:
    pairs = zip(words[::2], words[1::2], strict=True)
    return [word for flag, value in pairs if flag != "--exclude" for word in (flag, value)]


def test_the_user_who_follows_the_advice_is_not_sent_in_a_circle() -> None:
    torch.save(extra_files()["lightning"], "a.ckpt")
    for flags in ([], ["--strip-prefix", "model."], ["--map", "model.*=*"]):
        refused = run("evaluate", "a.ckpt", *TASK, *flags)
        assert "1 unexpected (criterion.pos_weight): --exclude 'criterion.*' makes it fit" in refused.err
        done = good("evaluate", "a.ckpt", *TASK, *flags, "--exclude", "criterion.*")
        assert "left out, not fitting the model: 1 of 10 tensors (criterion.pos_weight)" in done.err
    done = run("evaluate", "a.ckpt", *TASK, "--strip-prefix", "criterion.")
    assert done.code == 2
    assert "1 unexpected (pos_weight): --exclude pos_weight makes it fit" in done.err


def test_a_pattern_that_names_nothing_is_said() -> None:
    torch.save(made(0).state_dict(), "a.pt")
    done = good("evaluate", "a.pt", *TASK, "--exclude", "head.*,critreion.*")
    assert "--exclude critreion.* matches nothing in a.pt or the model" in done.err
    assert "head.*" not in done.err, "it fits, and is loaded"
    found = done.json["checkpoints"][0]["scores"]["mse"]["value"]
    assert found == pytest.approx(plain_score(made(0).state_dict()))


# What the file lacks


def initial_model(classes: int = 1) -> nn.Module:
    """As the network begins, under the seed that is said."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return space()["net"](classes)  # type: ignore[operator]


INCOMPLETE = {
    "no head": {name: value for name, value in made(0).state_dict().items() if "head" not in name},
    "another head": dict(made(0, classes=3).state_dict()),
    "no statistics": {name: value for name, value in made(0).state_dict().items() if "running" not in name},
}


@pytest.mark.parametrize("name", INCOMPLETE)
def test_part_of_a_model_is_loaded_when_asked_for_and_the_rest_is_said(name: str) -> None:
    state, whole = INCOMPLETE[name], made(0).state_dict()
    torch.save(state, "a.pt")
    refused = run("evaluate", "a.pt", *TASK)
    assert refused.code == 2
    assert "--partial loads the" in refused.err
    assert "give the model's own arguments with --model and --model-args" in refused.err
    fitting = {key: value for key, value in state.items() if value.shape == whole[key].shape}
    expected = plain_score(fitting, initial=initial_model())
    done = good("evaluate", "a.pt", *TASK, "--partial")
    assert done.json["checkpoints"][0]["scores"]["mse"]["value"] == pytest.approx(expected, rel=1e-6)
    assert "2 of the model's tensors are not in it, or do not fit, and stay as initialised (seed 0): " in done.err
    torch.manual_seed(77)
    again = cs.evaluate("a.pt", partial=True, **SPEC)
    assert again.scores[0]["mse"].estimate == pytest.approx(expected, rel=1e-6)
    assert any("stay as initialised" in warning for warning in again.warnings)
    for layer in {key.rpartition(".")[0] for key in whole if key not in fitting}:
        excluded = good("evaluate", "a.pt", *TASK, "--exclude", f"{layer}.*")
        assert excluded.out == done.out
        assert "stay as initialised" in excluded.err


def test_a_sweep_of_part_of_a_model_is_that_of_plain_loops_also_by_workers() -> None:
    """The workers build the model anew: what the recipient lacks begins with the same values there."""
    recipient, donor = INCOMPLETE["another head"] | {"step": torch.ones(1)}, made(1).state_dict()
    torch.save(recipient, "b.pt")
    torch.save({f"module.{name}": value for name, value in donor.items()}, "a.pt")
    swap = ("sweep", "--from", "a.pt", "--from", "noise:0.5", "--to", "b.pt", "--by", "layer,kind", *TASK)
    done = good(*swap, "--partial", "--run", "r")
    assert "left out, not fitting the model: 3 of 10 tensors (step, head.weight, head.bias)" in done.err
    fitting = {name: value for name, value in recipient.items() if name.startswith("encoder.")}
    assert done.json["baseline"] == pytest.approx(plain_score(fitting, initial=initial_model()), rel=1e-6)
    rows = [row for row in done.json["rows"] if row["donor"] == "a.pt"]
    assert {row["layer"] for row in rows} == {"encoder.0", "encoder.1"}
    for row in rows:
        mixed = {**fitting, **{name: donor[name] for name in row["tensors"]}}
        assert row["score"] == pytest.approx(plain_score(mixed, initial=initial_model()), rel=1e-5)
    workers = good(*swap, "--partial", "--run", "w", "--jobs", 2)
    assert workers.json["rows"] == done.json["rows"]
    report = good("report", "r").out
    assert "stay as initialised (seed 0): head.weight, head.bias" in " ".join(report.split())


def test_other_initial_values_are_another_run() -> None:
    torch.save(INCOMPLETE["no head"], "b.pt")
    torch.save(made(1).state_dict(), "a.pt")
    swap = ("sweep", "--from", "a.pt", "--to", "b.pt", "--by", "kind", "--run", "r", *TASK)
    good(*swap, "--partial")
    Path("net.py").write_text(SOURCE.replace("self.head = nn.Conv2d(4, classes, 1)", "nn.Linear(2, 2)\n        "
                                             "self.head = nn.Conv2d(4, classes, 1)"))  # fmt: skip
    changed = run(*swap, "--partial")
    assert changed.code == 2
    assert "initial values" in changed.err


def test_where_nothing_fits_it_is_refused() -> None:
    torch.save({"x.weight": torch.ones(3), "y.weight": torch.ones(3, 3)}, "a.pt")
    for flags in (["--partial"], ["--exclude", "*"]):
        refused = run("evaluate", "a.pt", *TASK, *flags)
        assert refused.code == 2
        assert "nothing in a.pt fits the model: give the model's own arguments with --model" in refused.err


def test_what_an_exclusion_is_for_does_not_change_a_run() -> None:
    torch.save(extra_files()["lightning"], "b.pt")
    torch.save(made(1).state_dict(), "a.pt")
    swap = ("sweep", "--from", "a.pt", "--to", "b.pt", "--by", "kind", "--run", "r", *TASK)
    first = good(*swap, "--exclude", "criterion.*")
    again = good(*swap, "--exclude", "criterion.*,bn.bias")
    kept = [row["score"] for row in first.json["rows"] if row["kind"] != "bn.bias"]
    assert [row["score"] for row in again.json["rows"]] == kept


# Counters


COUNTER = "encoder.1.num_batches_tracked"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, None])
def test_batch_counters_may_be_of_any_number_type_or_missing(dtype: torch.dtype | None) -> None:
    """As old files have them; in the model, and between two files in either direction."""
    new, old = made(0).state_dict(), made(1).state_dict()
    if dtype is None:
        del old[COUNTER]
    else:
        old[COUNTER] = torch.tensor(96).to(dtype)
    save_file(new, "new.safetensors")
    save_file(old, "old.safetensors")
    assert score("old.safetensors") == pytest.approx(plain_score(old), rel=1e-6)
    for donor, recipient in (("old", "new"), ("new", "old")):
        swap = ("--from", f"{donor}.safetensors", "--to", f"{recipient}.safetensors")
        done = good("sweep", *swap, "--by", "layer", "--by", "layer,kind", "--by", "all", "--run", donor, *TASK)
        assert {row["status"] for row in done.json["rows"]} <= {"measured", "no-effect", "identical"}
        assert [row["score"] for row in done.json["rows"] if row["layer"] is row["kind"] is None] == [
            pytest.approx(plain_score(new if donor == "new" else old), rel=1e-6)
        ]
        good("transplant", *swap, "-o", f"{donor}.out.safetensors")
        written, ours = load_file(f"{donor}.out.safetensors"), load_file(f"{recipient}.safetensors")
        theirs = load_file(f"{donor}.safetensors")
        assert {name: value.dtype for name, value in written.items()} == {name: ours[name].dtype for name in ours}
        for name in ours:
            assert torch.equal(written[name], theirs.get(name, ours[name]).to(ours[name].dtype))
    status = "identical" if dtype is torch.int64 else "only_a" if dtype is None else "dtype"
    rows = good("diff", "new.safetensors", "old.safetensors", "--format", "json").json["rows"]
    assert next(row["status"] for row in rows if row["name"] == COUNTER) == status


def test_a_counter_that_is_no_number_or_has_another_shape_is_still_refused() -> None:
    for value in (np.zeros((), bool), np.zeros(1, np.int64)):
        state = {name: each.numpy() for name, each in made(0).state_dict().items()} | {COUNTER: value}
        cs.save(state, "a.safetensors", force=True)
        assert run("evaluate", "a.safetensors", *TASK).code == 2


def test_what_only_the_donor_has_is_excluded_without_a_warning() -> None:
    torch.save({**made(0).state_dict(), "n_averaged": torch.tensor(3)}, "a.pt")
    torch.save(made(1).state_dict(), "b.pt")
    pair = ("sweep", "--from", "a.pt", "--to", "b.pt", *TASK, "--by", "kind", "--dry-run")
    assert "matches nothing" not in good(*pair, "--exclude", "n_averaged").err
    assert "--exclude n_avraged matches nothing in a.pt or b.pt" in good(*pair, "--exclude", "n_avraged").err
    assert "--only n_averaged matches nothing in b.pt" in good(*pair, "--only", "n_averaged,head.bias").err
