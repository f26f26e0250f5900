"""A tensor without plain numbers does not spoil the rest: it is listed, not compared, and refused where needed.

Relatives of the report's sparse buffer and statically quantised weight: compressed sparse, per-channel quantised,
meta, nested, lazily conjugated, complex32; a file of nothing else, wrappers' names, shards, a module in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import good, run, validate

import ckptswap as cs
from ckptswap.entries import Unread

torch = pytest.importorskip("torch")

ODD: dict[str, tuple[Callable[[], Any], Unread]] = {
    "sparse": (lambda: torch.eye(4).to_sparse(), Unread("a sparse tensor", (4, 4), "sparse")),
    "compressed": (lambda: torch.eye(4).to_sparse_csr(), Unread("a sparse tensor", (4, 4), "sparse")),
    "quantised": (
        lambda: torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8),
        Unread("a qint8 tensor", (4, 4), "qint8")),
    "by channel": (
        lambda: torch.quantize_per_channel(
            torch.ones(4, 4), torch.ones(4), torch.zeros(4, dtype=torch.long), 0, torch.quint8),
        Unread("a quint8 tensor", (4, 4), "quint8")),
    "meta": (
        lambda: torch.empty(4, 4, device="meta"),
        Unread("a tensor on the meta device, without values", (4, 4), "F32")),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        Unread("a nested tensor", None, "nested")),
    "lazy": (lambda: torch.zeros(2, dtype=torch.complex64).conj(), Unread("a lazy conj view", (2,), "C64")),
    "half complex": (
        lambda: torch.zeros(2, dtype=torch.complex32), Unread("a tensor of dtype complex32", (2,), "complex32")),
}  # fmt: skip


def save(path: Path, content: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path)
    return path


def net(seed: int, **more: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {**torch.nn.Linear(4, 2).state_dict(), **more}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report's two graph nets. Write nothing to it."""
    folder = tmp_path_factory.mktemp("graphs")
    for at, name in enumerate(("a.pt", "b.pt")):
        save(folder / name, net(at, adjacency=torch.eye(4).to_sparse()))
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ODD)
def test_it_is_listed_and_the_rest_is_read(what: str, tmp_path: Path) -> None:
    make, told = ODD[what]
    path = save(tmp_path / "a.pt", net(0, odd=make()))
    with cs.open(path) as found:
        assert found.unread == {"odd": told}
        assert found.read("weight").shape == (2, 4)
    done = good("show", path, "--format", "json")
    validate("show", done.json)
    rows = {row["name"]: row for row in done.json["rows"]}
    assert rows.keys() == {"odd", "weight", "bias"}
    shape = None if told.shape is None else list(told.shape)
    assert (rows["odd"]["shape"], rows["odd"]["dtype"], rows["odd"]["nbytes"]) == (shape, told.dtype, None)
    assert (done.json["tensors"], done.json["unread"]) == (2, [{"name": "odd", "what": told.what}])


def test_the_kind_of_a_quantised_weight_is_known(tmp_path: Path) -> None:
    weight = torch.quantize_per_tensor(torch.ones(4, 3, 3, 3), 0.1, 0, torch.qint8)
    path = save(tmp_path / "int8.pt", {"1.weight": weight, "1.bias": torch.ones(4)})
    done = good("show", path)
    assert "1.weight  conv.weight  4×3×3×3  qint8" in done.out
    assert "1.bias    conv.bias " in done.out
    assert "adjacency" not in good("show", path, "--only", "=1.bias").out
    assert "1 tensor  4 elements  16 B\n" in good("show", path, "--only", "=1.bias").out
    assert "1.weight" in good("show", path, "--kind", "conv.weight").out


def test_diff_counts_it_as_not_compared(graphs: Path) -> None:
    done = run("diff", graphs / "a.pt", graphs / "b.pt", "--exit-code", "--format", "json")
    validate("diff", done.json)
    assert done.code == 1
    assert (done.json["summary"]["changed"], done.json["summary"]["unread"]) == (2, 1)
    [row] = [row for row in done.json["rows"] if row["status"] == "unread"]
    assert (row["shape_a"], row["dtype_b"], row["numel"]) == ([4, 4], "sparse", None)
    assert "2 tensors changed, 1 not compared" in good("diff", graphs / "a.pt", graphs / "b.pt").out
    left_out = good("diff", graphs / "a.pt", graphs / "b.pt", "--exclude", "adjacency")
    assert "not compared" not in left_out.out
    assert "matches nothing" not in left_out.err


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_it_stays_in_its_file_or_is_refused(graphs: Path, tmp_path: Path) -> None:
    given = ["transplant", "--from", graphs / "a.pt", "--to", graphs / "b.pt", "--only", "=weight", "-o"]
    good(*given, tmp_path / "out.pt")
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(content["adjacency"].to_dense(), torch.eye(4))
    assert torch.equal(content["weight"], net(0)["weight"])
    assert torch.equal(content["bias"], net(1)["bias"])
    refused = run(*given, tmp_path / "out.safetensors")
    assert (refused.code, "adjacency (a sparse tensor), and would be lost" in refused.err) == (2, True)
    assert "-o FILE.pt keeps it" in refused.err
    good(*given, tmp_path / "out.safetensors", "--drop-unread")
    wanted = run("transplant", "--from", graphs / "a.pt", "--to", graphs / "b.pt", "--only", "adjacency")
    assert wanted.code == 2
    assert "that is read is selected, only adjacency (a sparse tensor)" in wanted.err


def test_verify_and_statistics(graphs: Path) -> None:
    done = run("verify", graphs / "a.pt")
    assert (done.code, done.out) == (2, f"{graphs}/a.pt: adjacency: a sparse tensor, which is not read\n")
    done = good("show", graphs / "a.pt", "--stats", "--format", "json")
    validate("show", done.json)
    assert {row["name"]: row["mean"] is None for row in done.json["rows"]} == {
        "adjacency": True, "bias": False, "weight": False,
    }  # fmt: skip


def test_a_file_of_nothing_else(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pt", {"model": {"w": torch.eye(2).to_sparse()}, "epoch": 1})
    assert "0 tensors  0 elements  0 B  1 not read" in good("show", path).out
    assert run("diff", path, path, "--exit-code").code == 1


def test_wrappers_names_come_off_these_too(tmp_path: Path) -> None:
    wrapped = {f"module.{name}": value for name, value in net(0, adjacency=torch.eye(4).to_sparse()).items()}
    a, b = save(tmp_path / "a.pt", wrapped), save(tmp_path / "b.pt", net(0, adjacency=torch.eye(4).to_sparse()))
    assert {row.name: row.status for row in cs.diff(a, b).rows} == {
        "adjacency": "unread", "bias": "identical", "weight": "identical",
    }  # fmt: skip


def test_a_module_in_memory() -> None:
    module = torch.nn.Linear(4, 2)
    module.register_buffer("adjacency", torch.eye(4).to_sparse())
    for given in (module, module.state_dict()):
        assert cs.diff(given, given).summary == {
            "identical": 2, "changed": 0, "shape": 0, "dtype": 0, "only_a": 0, "only_b": 0, "unread": 1,
        }  # fmt: skip


def test_against_a_plain_one(tmp_path: Path) -> None:
    """A dense tensor against a sparse one was not compared; the donor's cannot be taken."""
    a, b = (
        save(tmp_path / "a.pt", net(0, adj=torch.eye(4).to_sparse())),
        save(tmp_path / "b.pt", net(1, adj=torch.eye(4))),
    )
    assert {row.name: row.status for row in cs.diff(a, b).rows}["adj"] == "unread"
    refused = run("transplant", "--from", a, "--to", b, "--only", "adj")
    assert "adj: the donor has a sparse tensor there, which is not read" in refused.err
    assert np.array_equal(cs.transplant(a, b, only="weight").read("adj"), np.eye(4))
