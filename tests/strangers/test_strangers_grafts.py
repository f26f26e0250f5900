"""Strangers' files of torch that grafts are made of: what is damaged, shared or packed beside the model."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_program import run
from stranger_pickles import (
    get,
    integer,
    legacy,
    listed,
    many,
    mapped,
    name_of,
    put,
    state,
    storage,
    tensor,
    text,
    zipped,
)

FAULTY = {
    "a storage that is not there": tensor(held=storage(key=text("9"))),
    "a storage that is too large": tensor(held=storage(key=text("9"), numel=integer(2**40))),
    "text for a size": tensor(sizes=many(text("a"), text("b"))),
    "a stride too few": tensor((2, 2), (1,)),
    "a place before the beginning": tensor(offset=integer(-5)),
    "a step backwards": tensor((4,), (-1,)),
    "no place": tensor(offset=b"N"),
    "the far end": tensor((4, 4), (4, 1)),
    "a size beyond counting": tensor((10**100,), (1,)),
}
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "beside the map": lambda bad: mapped((text("state_dict"), state()), (text("opt"), bad)),
    "deep beside it": lambda bad: mapped(
        (text("state_dict"), state()),
        (text("opt"), mapped((integer(0), listed([many(bad)])))),
    ),
    "in an object": lambda bad: mapped(
        (text("state_dict"), state()),
        (text("opt"), name_of("argparse.Namespace") + b")\x81" + mapped((text("a"), bad)) + b"b"),
    ),
    "inside the map": lambda bad: mapped((text("state_dict"), state((text("opt"), many(bad))))),
    "at the top": lambda bad: state((text("opt"), mapped((text("m"), bad)))),
}
WRITERS = {"zip": zipped, "legacy": legacy}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.save({"w": torch.arange(4.0).reshape(2, 2) + 5}, "donor.pt")
    return tmp_path


def refused(recipient: str) -> str:
    """What every command says of a file that torch cannot open, which is one sentence."""
    graft = run("transplant", "--from", "donor.pt", "--to", recipient, "--only", "*", "-o", "out.pt")
    ended = [run("show", recipient), run("diff", recipient, recipient, "--exit-code"), graft]
    assert [each.code for each in ended] == [2, 2, 2]
    [said] = {each.err.removeprefix("ckptswap: ") for each in ended}
    verified = run("verify", recipient)
    assert (verified.code, verified.out) == (2, said)
    assert not Path("out.pt").exists()
    assert len(said.splitlines()) == 1
    return said


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("fault", FAULTY)
def test_a_damaged_tensor_beside_the_model_is_refused(here: Path, fault: str, writer: str) -> None:
    Path("bad.pt").write_bytes(WRITERS[writer](PLACES["beside the map"](FAULTY[fault])))
    with pytest.raises((RuntimeError, TypeError, ValueError, OverflowError, KeyError, EOFError)):
        torch.load("bad.pt", weights_only=False)
    assert refused("bad.pt").startswith("bad.pt is damaged: a tensor under 'opt' ")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("where", PLACES)
def test_wherever_it_lies(here: Path, where: str, writer: str) -> None:
    Path("bad.pt").write_bytes(WRITERS[writer](PLACES[where](FAULTY["text for a size"])))
    named = {"inside the map": "tensor 'opt.0'", "at the top": "tensor 'opt.m'"}.get(where, "a tensor under 'opt'")
    assert refused("bad.pt") == f"bad.pt is damaged: {named} has a size that is not an integer\n"
    Path("good.pt").write_bytes(WRITERS[writer](PLACES[where](tensor())))
    assert run("show", "good.pt").code == 0


def shared(make: Callable[[torch.Tensor], Any], old: bool) -> list[str]:
    """The keys that a graft says change with what it takes, once they are seen to."""
    torch.save(make(torch.zeros(2, 2)), "recipient.pt", _use_new_zipfile_serialization=not old)
    done = run(
        "transplant", "--from", "donor.pt", "--to", "recipient.pt", "--only", "w", "-o", "out.pt", "--force"
    )
    assert done.code == 0
    told = [line for line in done.err.splitlines() if "shares bytes" in line]
    assert len(told) <= 1
    return [key for line in told for key in line.partition("changes with it: ")[2].split(", ")]


SHARED: dict[str, tuple[Callable[[torch.Tensor], Any], list[str]]] = {
    "at the top": (lambda w: {"w": w, "optimizer": {"m": w}}, ["optimizer"]),
    "a part, deep": (lambda w: {"state_dict": {"w": w}, "a": {"b": [{0: (1, w[1])}]}, "n": 1}, ["a"]),
    "a stray": (lambda w: {"model": {"w": w}, "best": w.T}, ["best"]),
    "one list under two keys": (
        lambda w: (lambda held: {"model": {"w": w}, "a": held, "b": [held], "c": [3]})([w]),
        ["a", "b"],
    ),
    "copies": (lambda w: {"state_dict": {"w": w, "packed": (w + 1,)}, "ema": {"w": w.clone()}}, []),
    "another's": (
        lambda w: (lambda v: {"state_dict": {"w": w, "v": v}, "old": [v], "new": [v + 1]})(torch.ones(2)),
        [],
    ),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("case", SHARED)
def test_what_changes_with_the_taken_is_named(here: Path, case: str, old: bool) -> None:
    make, keys = SHARED[case]
    assert shared(make, old) == keys
    before, after = (torch.load(name, weights_only=False) for name in ("recipient.pt", "out.pt"))
    model = before.get("state_dict", before.get("model", before))
    changed = []
    for holder, same in ((before, after), (model, after.get("state_dict", after.get("model", after)))):
        changed += [key for key in holder if key not in ("w", "state_dict", "model", *changed)
                    if repr(holder[key]) != repr(same[key])]  # fmt: skip
    assert changed == keys


def test_a_tuple_in_the_map_is_taken_too(here: Path) -> None:
    """Its tensors are the model's, by the way to them."""
    w = torch.zeros(2, 2)
    torch.save({"state_dict": {"w": w, "packed": (w,)}}, "recipient.pt")
    done = run("transplant", "--from", "donor.pt", "--to", "recipient.pt", "--only", "w", "-o", "out.pt")
    assert "1 name is taken that was not selected" in done.err
    assert "w = packed.0" in done.err
    after = torch.load("out.pt")["state_dict"]
    assert after["w"].tolist() == [[5, 6], [7, 8]]
    assert after["packed"][0].data_ptr() == after["w"].data_ptr()


def test_many_keys_of_one_long_list_are_one_look(here: Path) -> None:
    """Looked through for each of its keys, the list would take hours."""
    count = 3000
    long = listed([tensor()] + [many(integer(1))] * 100_000) + put(0) + b"0"
    pairs = [(text(f"k{at}"), get(0)) for at in range(count)]
    Path("recipient.pt").write_bytes(zipped(long + mapped((text("state_dict"), state()), *pairs)))
    done = run("transplant", "--from", "donor.pt", "--to", "recipient.pt", "--only", "w", "-o", "out.pt")
    assert done.code == 0
    assert done.err.count("shares bytes") == 1
    assert f"and {count - 10:,} more" in done.err or f"and {count - 10} more" in done.err


def packed(names: list[str], size: int = 1000) -> None:
    Path("recipient.pt").write_bytes(zipped(mapped((text("state_dict"), state()))))
    with zipfile.ZipFile("recipient.pt", "a") as archive:
        for name in names:
            archive.writestr(name, bytes(size), zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize("names", [["bomb0", "bomb1"], ["archive/bomb"], ["archive/.data/serialization_id"]])
def test_a_member_that_is_packed_is_refused(here: Path, names: list[str]) -> None:
    packed(names)
    told = f"recipient.pt is not a sound zip archive: {names[0]!r} is compressed, which torch never does\n"
    assert refused("recipient.pt") == told


def test_a_member_that_is_not_packed_is_kept(here: Path) -> None:
    packed([])
    with zipfile.ZipFile("recipient.pt", "a") as archive:
        archive.writestr("notes.txt", b"of ours")
    assert run("transplant", "--from", "donor.pt", "--to", "recipient.pt", "--only", "w", "-o", "out.pt").code == 0
    with zipfile.ZipFile("out.pt") as archive:
        assert archive.read("notes.txt") == b"of ours"
