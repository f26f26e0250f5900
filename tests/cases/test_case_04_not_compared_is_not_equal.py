"""Values of a state dict that lie in containers, or are numpy's, are compared like any other; what is not read
(packed weights, bytes, arrays of objects) is never equal, sound or converted in silence.

Relatives of the report's two: bytes, streams, a tuple of arrays, a map in the map and in a list, quantized and
sparse tensors in containers; shards, three ways, distributed folders, modules in memory, one side only, headers.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import SCHEMAS, good, run
from jsonschema import Draft202012Validator

import ckptswap as cs
from ckptswap.entries import Unread
from ckptswap.errors import FormatError
from ckptswap.formats import open_checkpoint
from ckptswap.formats.state_dict import DEPTH_MOST, unread

torch = pytest.importorskip("torch")


def packed(seed: int) -> dict[str, Any]:
    """Two linear layers quantised dynamically: all weights lie in tuples."""
    torch.manual_seed(seed)
    layers = (torch.nn.Linear(8, 4, bias=False), torch.nn.ReLU(), torch.nn.Linear(4, 2, bias=False))
    net = torch.nn.Sequential(*layers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8).state_dict()


PACKED = {f"{at}._packed_params._packed_params.0" for at in (0, 2)}


def with_value(name: str, value: Callable[[int], Any]) -> Callable[[int], dict[str, Any]]:
    def content(seed: int) -> dict[str, Any]:
        torch.manual_seed(0)
        return {"state_dict": {**torch.nn.Linear(3, 2).state_dict(), name: value(seed)}}

    return content


VALUES: dict[str, tuple[Callable[[int], Any], set[str], str]] = {
    "packed weights": (packed, PACKED, "a qint8 tensor"),
    "an array of texts": (
        with_value("labels", lambda seed: np.array([f"{seed}"])), {"labels"}, "a numpy array"),
    # relatives
    "bytes": (with_value("_extra_state", lambda seed: bytes([seed, 1])), {"_extra_state"}, "bytes"),
    "a stream": (with_value("_extra_state", lambda seed: io.BytesIO(bytes([seed, 1]))), {"_extra_state"}, "bytes"),
    "a byte array": (with_value("key", lambda seed: bytearray([seed])), {"key"}, "bytes"),
    "a tuple of arrays of objects": (
        with_value("grid", lambda seed: (1, np.array([{}, seed], object))), {"grid"},
        "a tuple that holds a numpy array"),
    "what a module keeps to itself": (
        with_value("_extra_state", lambda seed: {"w": torch.full((2,), float(seed))}), {"_extra_state"},
        "a map that holds a tensor"),
    "a quantized tensor in a list": (
        with_value("q", lambda seed: [torch.quantize_per_tensor(torch.ones(2), 0.1, seed, torch.qint8)]), {"q.0"},
        "a qint8 tensor"),
    "a sparse tensor in a tuple": (
        with_value("adjacency", lambda seed: (torch.eye(2 + seed).to_sparse(),)), {"adjacency.0"},
        "a sparse tensor"),
}  # fmt: skip


READ: dict[str, tuple[Callable[[int], Any], str]] = {
    "an array": (lambda seed: np.full((3, 2), seed, "f4"), ""),
    "an array in a tuple": (lambda seed: (1, np.full(2, seed)), ".1"),
    "a tensor in a tuple": (lambda seed: (torch.full((2,), float(seed)), None), ".0"),
    "a map in the map": (lambda seed: {"w": torch.full((2,), float(seed))}, ".w"),
    "a map in a list in a map": (lambda seed: {"a": [{"b.c": torch.full((2,), float(seed))}]}, ".a.0.b.c"),
    "a map by numbers": (lambda seed: {3: torch.full((2,), float(seed))}, ".3"),
}
"""What holds a tensor, and the way to it."""


@pytest.mark.parametrize("case", READ)
def test_tensors_in_containers_and_arrays_count(case: str, tmp_path: Path) -> None:
    """They are compared, kept by a conversion, taken by a graft; and what is not taken stays in the file."""
    make, way = READ[case]
    a, b = (save(tmp_path, f"{seed}.pt", with_value("held", make)(seed)) for seed in (0, 1))
    found = cs.diff(a, b)
    assert {row.name: row.status for row in found.rows if row.status != "identical"} == {f"held{way}": "changed"}
    assert not cs.diff(cs.save(a, tmp_path / "a.safetensors"), a).differs
    assert not cs.diff(a, with_value("held", make)(0)["state_dict"]).differs
    out = cs.transplant(a, b, tmp_path / "c.safetensors", only=f"held{way}")
    assert not cs.diff(out, a).differs
    cs.transplant(a, b, tmp_path / "d.pt", only="bias")
    assert not cs.diff(tmp_path / "d.pt", b).differs
    kept = torch.load(tmp_path / "d.pt", weights_only=False)["state_dict"]["held"]
    assert type(kept) is type(make(1))


def test_arrays_where_a_model_is_looked_for(tmp_path: Path) -> None:
    """Though the file's only tensors of torch are an optimizer's, and the arrays are told by a key."""
    state = {"w": np.ones(2), "b": np.zeros(1)}
    path = save(tmp_path, "a.pt", {"model": state, "optimizer": {"m": torch.ones(2)}, "mine": {"v": np.ones(3)}})
    assert list(cs.open(path)) == ["w", "b"]
    assert list(cs.open(f"{path}::mine")) == ["v"]


def test_a_name_that_is_taken_is_not_given_twice(tmp_path: Path) -> None:
    with open_checkpoint(save(tmp_path, "a.pt", {"a.b": torch.ones(2), "a": {"b": torch.zeros(2)}})) as found:
        assert found.read("a.b").tolist() == [1, 1]
        assert found.unread == {"a": Unread("a map that holds a tensor")}


def test_containers_that_hold_each_other_many_times(tmp_path: Path) -> None:
    """2 ^ 40 ways to one tensor: none of them is a name."""
    held: Any = torch.ones(2)
    for _ in range(40):
        held = [held, held]
    with open_checkpoint(save(tmp_path, "a.pt", {"w": torch.ones(2), "held": held})) as found:
        assert list(found) == ["w"]
        assert found.unread == {"held": Unread("a list that holds a tensor")}


@pytest.fixture(params=VALUES)
def two(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], str]:
    """Two files `a.pt` and `b.pt` that differ in nothing but what is not read; its names, and what it is."""
    make, names, what = VALUES[request.param]
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed, name in enumerate(("a.pt", "b.pt")):
            torch.save(make(seed), name)
    return names, what


def test_diff_does_not_call_them_equal(two: tuple[set[str], str]) -> None:
    names, what = two
    done = run("diff", "a.pt", "b.pt", "--exit-code", "--format", "json")
    assert done.code == 1
    Draft202012Validator(json.loads((SCHEMAS / "diff.schema.json").read_text())).validate(done.json)
    summary = done.json["summary"]
    assert summary["unread"] == len(names)
    assert summary["identical"] == done.json["a"]["tensors"] > 0
    rows = {row["name"]: row for row in done.json["rows"] if row["status"] == "unread"}
    assert rows.keys() == names
    assert {row["numel"] for row in rows.values()} == {None}
    table = run("diff", "a.pt", "b.pt", "--exit-code")
    assert table.code == 1
    assert f"{len(names)} not compared" in table.out
    assert all(f"{name} ({what})" in table.err for name in names)
    assert cs.diff("a.pt", "b.pt").differs
    assert run("diff", "a.pt", "a.pt", "--exit-code").code == 1


def test_a_selection_goes_by_their_names(two: tuple[set[str], str]) -> None:
    names, _ = two
    [name, *_] = sorted(names)
    assert run("diff", "a.pt", "b.pt", "--only", f"={name}", "--exit-code").code == 1
    assert run("diff", "a.pt", "b.pt", "--exclude", ",".join(names), "--exit-code").code == 0
    assert good("diff", "a.pt", "b.pt", "--by", "layer,kind", "--format", "json").json["summary"]["unread"]


def test_verify_says_what_it_has_not_read(two: tuple[set[str], str]) -> None:
    names, what = two
    done = run("verify", "a.pt", "--format", "json")
    assert done.code == 2
    assert not done.json["ok"]
    assert {each["place"]: each["text"] for each in done.json["findings"]} == dict.fromkeys(
        names, f"{what}, which is not read"
    )
    assert "sound" not in run("verify", "a.pt").out


@pytest.mark.parametrize("target", ["a.safetensors", "again.pt", "a.npz", "shards/"])
def test_convert_does_not_lose_them(two: tuple[set[str], str], target: str) -> None:
    names, what = two
    refused = run("convert", "a.pt", target)
    assert refused.code == 2
    assert all(f"{name} ({what})" in refused.err for name in names)
    assert "--drop-unread" in refused.err
    assert sorted(each.name for each in Path().iterdir()) == ["a.pt", "b.pt"]
    with pytest.raises(FormatError, match="drop_unread=True"):
        cs.save("a.pt", target)
    good("convert", "a.pt", target, "--drop-unread")
    with open_checkpoint(target) as written, open_checkpoint("a.pt") as source:
        assert {name: written.read(name).tobytes() for name in written} == {
            name: source.read(name).tobytes() for name in source
        }
        assert written.unread == {}


def test_a_transplant_does_not_lose_them(two: tuple[set[str], str]) -> None:
    names, _ = two
    [name, *_] = sorted(open_checkpoint("a.pt"))
    command = ("transplant", "--from", "a.pt", "--to", "b.pt", "--only", f"={name}", "-o", "c.npz")
    refused = run(*command)
    assert refused.code == 2
    assert "--drop-unread" in refused.err
    assert not Path("c.npz").exists()
    done = good(*command, "--drop-unread")
    assert all(each in done.err for each in names)
    with pytest.raises(FormatError, match="drop_unread=True"):
        cs.transplant("a.pt", "b.pt", "d.npz", only=name)
    assert list(cs.transplant("a.pt", "b.pt", "d.npz", only=name, drop_unread=True))
    assert cs.transplant("a.pt", "b.pt", only=name).unread.keys() == names


def test_show_tells_of_them(two: tuple[set[str], str]) -> None:
    names, what = two
    done = good("show", "a.pt", "--format", "json")
    Draft202012Validator(json.loads((SCHEMAS / "show.schema.json").read_text())).validate(done.json)
    assert done.json["unread"] == [{"name": name, "what": what} for name in sorted(names)]
    assert f"{len(names)} not read" in good("show", "a.pt").out


def test_three_ways(two: tuple[set[str], str]) -> None:
    done = run("diff", "a.pt", "b.pt", "b.pt", "--exit-code", "--format", "json")
    assert done.code == 1
    Draft202012Validator(json.loads((SCHEMAS / "diff3.schema.json").read_text())).validate(done.json)
    assert done.json["summary"]["unread"] == len(two[0])
    assert {row["name"] for row in done.json["rows"] if row["status"] == "unread"} == two[0]


def save(folder: Path, name: str, content: Any) -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_baggage_is_no_value(tmp_path: Path) -> None:
    """Numbers, texts, None, dtypes, what is empty, and an optimizer's state beside the tensors."""
    state = {
        "w": torch.ones(2), "n": 3, "name": "a", "none": None, "dtype": torch.float32, "empty": b"",
        "_extra_state": io.BytesIO(), "shape": torch.Size([2]), "sizes": [1, 2], "device": torch.device("cpu"),
        "rate": np.float32(1), "pair": (1, "a"), "more": {"a": None},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
    }  # fmt: skip
    with open_checkpoint(save(tmp_path, "a.pt", state)) as found:
        assert found.unread == {}
        assert list(found) == ["w"]
        assert any("it also carries optimizer" in note for note in found.notes)
    assert run("diff", tmp_path / "a.pt", tmp_path / "a.pt", "--exit-code").code == 0
    assert run("verify", tmp_path / "a.pt").code == 0


def test_an_optimizer_of_the_models_own_name_is_a_value(tmp_path: Path) -> None:
    """Under a key of its own, the map is the model's: a momentum encoder is a part of it."""
    state = {"w": torch.ones(2), "momentum_encoder": {"w": torch.ones(2)}}
    with open_checkpoint(save(tmp_path, "a.pt", {"model": state, "optimizer": {"a": torch.ones(1)}})) as found:
        assert list(found) == ["w", "momentum_encoder.w"]


def test_one_side_only(tmp_path: Path) -> None:
    """A tensor on one side and a tuple on the other were not compared; what only one side has, differs."""
    a = save(tmp_path, "a.pt", {"w": torch.ones(2), "v": torch.ones(2)})
    b = save(tmp_path, "b.pt", {"w": torch.ones(2), "v": b"values", "x": np.ones(2, object)})
    assert {row.name: row.status for row in cs.diff(a, b).rows} == {"w": "identical", "v": "unread", "x": "only_b"}
    assert {row.name: row.status for row in cs.diff(b, a).rows} == {"w": "identical", "v": "unread", "x": "only_a"}
    done = run("transplant", "--from", b, "--to", a, "--only", "v", "-o", tmp_path / "c.npz")
    assert done.code == 2
    assert "v: the donor has bytes there, which is not read" in done.err


def test_headers_alone_promise_nothing(tmp_path: Path) -> None:
    a = save(tmp_path, "a.pt", {"w": torch.ones(2)})
    for with_stat, code in ((["--stat"], 1), ([], 0)):
        assert run("diff", a, a, "--exit-code", *with_stat).code == code
    assert cs.diff(a, a, stat=True).differs
    assert not cs.diff(a, a).differs


def test_shards_of_torch(tmp_path: Path) -> None:
    save(tmp_path, "one.bin", {"w": torch.ones(2), "packed": (b"values",)})
    save(tmp_path, "two.bin", {"v": torch.ones(2)})
    index = {"weight_map": {"w": "one.bin", "v": "two.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with open_checkpoint(tmp_path) as found:
        assert found.unread == {"packed": Unread("a tuple that holds bytes")}
    assert run("diff", tmp_path, tmp_path, "--exit-code").code == 1


def test_a_distributed_folder(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch.distributed.checkpoint as room

        state = {"model": {"w": torch.ones(2), "packed": (np.ones(2),)}, "step": 3}
        room.save(state, checkpoint_id=tmp_path / "d", no_dist=True)
    with open_checkpoint(tmp_path / "d") as found:
        assert set(found.unread.values()) == {Unread("bytes that were not opened")}
        assert [name.partition(".")[0] for name in found.unread] == ["packed"]


def test_a_module_in_memory() -> None:
    class Scaled(torch.nn.Linear):
        def get_extra_state(self) -> dict:
            return {"scales": torch.ones(2)}

    net = Scaled(3, 2)
    assert cs.open(net).unread == {"_extra_state": Unread("a map that holds a tensor")}
    assert cs.diff(net, net).summary["unread"] == 1
    assert cs.diff(net, net).differs


def test_names_are_stripped_and_unread_ones_stay(tmp_path: Path) -> None:
    state = {"module.w": torch.ones(2), "module.packed": (b"values",)}
    a = save(tmp_path, "a.pt", state)
    assert cs.diff(a, {"w": np.ones(2, np.float32)}).differs
    assert run("diff", a, a, "--strip-prefix", "module.", "--exit-code").code == 1


def test_there_is_an_end_of_looking() -> None:
    deep: Any = 1
    for _ in range(DEPTH_MOST + 1):
        deep = [deep]
    ring: list[Any] = []
    ring.append(ring)
    found = unread({"deep": deep, "ring": ring, 3: (1.5,), "w": 1.5}, lambda value: type(value) is float)
    assert {name: str(held) for name, held in found.items()} == {
        "deep": "a list that holds more than can be looked through",
        "ring": "a list that holds itself",
        "<3>": "a tuple that holds a tensor",
    }
