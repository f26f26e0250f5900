"""Two codes of one network: paired by order and shape where these tell, refused where they don't."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import ckptswap as cs
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError, UsageError
from ckptswap.formats import open_checkpoint
from ckptswap.messages import Listener, listening
from ckptswap.shape_order import by_shape_order

sys.path.insert(0, str(Path(__file__).parent / "cli"))

from cli_program import good, run

CONV = {"weight": (4, 3, 3, 3), "bias": (4,)}
NORM = {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,), "num_batches_tracked": ()}


def net(layers: Mapping[str, Mapping[str, tuple[int, ...]]], value: float = 0) -> dict[str, np.ndarray]:
    return {f"{layer}.{role}" if layer else role: np.full(shape, value)
            for layer, roles in layers.items() for role, shape in roles.items()}  # fmt: skip


OURS = net({"conv1": CONV, "bn1": NORM, "conv2": CONV, "head": {"weight": (2, 4), "bias": (2,)}})
THEIRS = net({"stem.0": CONV, "stem.1": NORM, "body": CONV, "fc": {"weight": (2, 4), "bias": (2,)}}, 1)
RULES = ["stem.0.*=conv1.*", "stem.1.*=bn1.*", "body.*=conv2.*", "fc.*=head.*"]


def paired(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> tuple[Checkpoint, list[str]]:
    return by_shape_order(*map(Checkpoint.from_arrays, (theirs, ours)))


def test_names_become_those_of_the_reference() -> None:
    found, rules = paired(THEIRS, OURS)
    assert list(found) == list(OURS)  # batch norm's counter too
    assert rules == RULES
    again = cs.diff(THEIRS, OURS, map=rules)
    assert again.summary == cs.diff(THEIRS, OURS, match="shape-order").summary
    assert again.summary["changed"] == len(OURS)


def test_what_has_a_namesake_is_a_pair_already() -> None:
    found, rules = paired({**net({"head": {"weight": (2, 4), "bias": (2,)}}), **net({"a": CONV})},
                          {**net({"b": CONV}), **net({"head": {"weight": (2, 4), "bias": (2,)}})})  # fmt: skip
    assert set(found) == {"b.weight", "b.bias", "head.weight", "head.bias"}
    assert rules == ["a.*=b.*"]
    assert paired(OURS, OURS)[1] == []


def test_words_of_another_library_stand_for_roles() -> None:
    _, rules = paired(
        {"c/kernel": np.zeros((4, 3)), "c/beta": np.zeros(4)}, net({"": {"weight": (4, 3), "bias": (4,)}})
    )
    assert rules == ["c/kernel=weight", "c/beta=bias"]


def test_a_sorted_file_tells_by_shapes_that_occur_once(tmp_path: Path) -> None:
    cs.save(dict(sorted(net({"fc": {"weight": (2, 3), "bias": (2,)}}).items())), tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as found:
        assert list(found) == ["fc.bias", "fc.weight"]
        named, rules = by_shape_order(
            found, Checkpoint.from_arrays(net({"lin": {"weight": (2, 3), "bias": (2,)}}))
        )
    assert set(named) == {"lin.weight", "lin.bias"}
    assert rules == ["fc.*=lin.*"]


ATTENTION = net({f"a.{part}": {"weight": (4, 4)} for part in ("dense", "key", "query", "value")})
REFUSED = {
    "other shapes": (net({"x": {"weight": (4, 4)}}), net({"y": {"weight": (4, 5)}}), "not one topology"),
    "another number": (net({"x": CONV}), net({"y": CONV, "z": CONV}), "other shapes"),
    "another order": (net({"x": {"b": (2,), "a": (3,)}}), net({"y": {"d": (3,), "c": (2,)}}), "the orders differ"),
    "a weight for a bias": (
        net({"x": {"weight": (4,), "bias": (4,)}}), net({"y": {"bias": (4,), "weight": (4,)}}), "ambiguous"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused(case: str) -> None:
    theirs, ours, said = REFUSED[case]
    with pytest.raises(MismatchError, match=said):
        paired(theirs, ours)


def test_the_alphabet_is_no_order_of_a_network(tmp_path: Path) -> None:
    """Sorted names pair dense with k: same shapes, other tensors."""
    cs.save(ATTENTION, tmp_path / "a.safetensors")
    ours = net({f"b.{part}": {"weight": (4, 4)} for part in "kovq"})
    with (open_checkpoint(tmp_path / "a.safetensors") as found,
          pytest.raises(MismatchError, match="sorted by names")):  # fmt: skip
        by_shape_order(found, Checkpoint.from_arrays(ours))


def test_the_program_prints_the_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, state in (("theirs.npz", THEIRS), ("ours.npz", OURS)):
        cs.save(state, name)
    done = good("transplant", "--from", "theirs.npz", "--to", "ours.npz", "--match", "shape-order", "--kind",
                "conv.bias", "-o", "out.npz")  # fmt: skip
    assert [line.rpartition(": ")[2] for line in done.err.splitlines() if "by order and shape" in line] == RULES
    assert set(cs.open("out.npz").read("conv1.bias")) == {1}
    assert set(cs.open("out.npz").read("conv1.weight").ravel()) == {0}
    assert good("diff", "theirs.npz", "ours.npz", "--match", "shape-order", "-q").err == ""
    three = good("diff", "ours.npz", "theirs.npz", "ours.npz", "--match", "shape-order", "--format", "json").json
    assert three["summary"]["a"] == len(OURS)
    assert run("diff", "theirs.npz", "ours.npz", "--match", "order").code == 2
    with pytest.raises(UsageError, match="use names or shape-order"):
        cs.diff(OURS, THEIRS, match="order")


def test_it_is_offered_where_it_would_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cs.save({"c/kernel": np.zeros((4, 3)), "c/beta": np.zeros(4)}, "tf.npz")
    cs.save(net({"": {"weight": (4, 3), "bias": (4,)}}), "own.npz")
    cs.save({"x": np.zeros(3)}, "other.npz")
    offered = "has the name of one of own.npz; --match shape-order pairs them"
    assert offered in good("diff", "tf.npz", "own.npz").err
    assert "--match shape-order pairs them" in run("transplant", "--from", "tf.npz", "--to", "own.npz").err
    assert "--match" not in good("diff", "other.npz", "own.npz").err
    assert "--match" not in good("diff", "tf.npz", "own.npz", "--match", "shape-order").err


NET = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def data():
    return list(torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(0)))
"""
OF_THE_MODEL = {"stem.c": "0", "stem.n": "1", "out": "3"}
TWO_LAYERS = {"stem.c": {"weight": (4, 1, 3, 3), "bias": (4,)}, "stem.n": NORM,
              "out": {"weight": (2, 4, 1, 1), "bias": (2,)}}  # fmt: skip


def drawn(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.random(zero.shape, "f4") for name, zero in net(TWO_LAYERS).items()}


class Hears(Listener):
    """Keeps the notes."""

    def __init__(self, heard: list[str]) -> None:
        self.note = heard.append


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A model that calls its layers otherwise than two files do, of which one was wrapped."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(NET)
    cs.save(drawn(0), "a.npz")
    cs.save({f"module.{name}": array for name, array in drawn(1).items()}, "b.npz")
    plain = {f"{OF_THE_MODEL[layer]}.{role}": array for name, array in drawn(0).items()
             for layer, _, role in [name.rpartition(".")]}  # fmt: skip
    cs.save(plain, "plain.npz")
    return {"model": "own.py:net", "data": "own.py:data", "metric": "output-mse", "threads": 1}


def test_evaluate_pairs_a_file_with_the_model(task: dict[str, object]) -> None:
    heard: list[str] = []
    with listening(Hears(heard)):
        found = cs.evaluate(["plain.npz", "a.npz", "b.npz"], match="shape-order", **task)
    same, other = (row.interval.estimate for row in found.rows[1:])
    assert same == 0 < other
    rules = [line for line in heard if "order and shape" in line and line.startswith("a.npz")]
    assert rules == [f"a.npz is paired by order and shape with the model: {old}.*={new}.*"
                     for old, new in OF_THE_MODEL.items()]  # fmt: skip
    floats = {name: array for name, array in drawn(0).items() if array.ndim}
    cs.save({name.replace(".", "/"): array for name, array in floats.items()}, "tf.npz")
    with pytest.raises(MismatchError, match="--match shape-order pairs them: the model has the same shapes"):
        cs.evaluate("tf.npz", **task)
    with pytest.raises(MismatchError, match=r"pairs nothing: wide\.npz has other shapes"):
        cs.evaluate(cs.save({**drawn(0), "x": np.zeros(9)}, "wide.npz"), match="shape-order", **task)
    with pytest.raises(UsageError, match="match is 'order'"):
        cs.evaluate("a.npz", match="order", **task)


def test_sweep_pairs_both_sides_with_the_model(task: dict[str, object]) -> None:
    """The table is that of files that have the model's names, and a run that is taken up again finds its pairs."""
    cs.save({f"{OF_THE_MODEL[layer]}.{role}": array for name, array in drawn(1).items()
             for layer, _, role in [name.rpartition(".")]}, "other.npz")  # fmt: skip
    heard: list[str] = []
    with listening(Hears(heard)):
        found = cs.sweep("b.npz", "a.npz", match="shape-order", by="kind", run="run", **task)
    wanted = cs.sweep("other.npz", "plain.npz", by="kind", run="plain", **task)
    assert [(row.kind, row.score) for row in found.rows] == [(row.kind, row.score) for row in wanted.rows]
    assert "b.npz is paired by order and shape with the model: out.*=3.*" in heard
    taken = cs.select("run", tolerance=9)
    assert {taken.own[name] for row in taken.taken for name in row.tensors} <= {*drawn(0)}
    assert len(taken.taken) == 6
