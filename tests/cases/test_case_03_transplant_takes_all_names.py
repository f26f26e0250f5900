"""A transplant by one name of a tensor was undone at load by its other names, which kept the recipient's bytes.

Relatives: files of safetensors, npz and shards, which keep no sharing; a donor that has one of the names; names
that the donor's file fills differently; a blend; equal bytes that are no tie (zeros, batch norm's defaults,
counters, buffers that every block has); views of a fused tensor; what a variant in memory knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program_of_cases import good, run
from safetensors.torch import load_file, save_file, save_model
from tied_networks import built, groups, opened, plain_score, save_pair, variant
from torch import Tensor

import ckptswap as cs
from ckptswap import twins
from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import MismatchError
from ckptswap.selection import Selection
from ckptswap.transplant import plan_transplant
from ckptswap.twins import probable_ties

LAYERS = {"Registered": "encoder", "BaseModel": "layer0", "Siamese": "right", "Head": "head", "Biases": "layers.2"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def apart(state: Mapping[str, Tensor], path: str) -> None:
    save_file({name: value.clone() for name, value in state.items()}, path)


def arrays(state: Mapping[str, Tensor], path: str) -> None:
    np.savez(path, **{name: value.numpy() for name, value in state.items()})


def legacy(state: Mapping[str, Tensor], path: str) -> None:
    torch.save(dict(state), path, _use_new_zipfile_serialization=False)


def shards(state: Mapping[str, Tensor], path: str) -> None:
    apart(state, f"{path}.safetensors")
    good("convert", f"{path}.safetensors", f"{path}/", "--shard-size", 200)


FORMS: dict[str, tuple[Callable[..., None], str]] = {
    "torch": (torch.save, ".pth"),
    "legacy": (legacy, ".pt"),
    "safetensors": (apart, ".safetensors"),
    "npz": (arrays, ".npz"),
    "shards": (shards, ""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", LAYERS)
def test_a_file_means_the_same_whichever_name_is_read(model: str, form: str) -> None:
    write, suffix = FORMS[form]
    save_pair(model, write, suffix)
    theirs, ours = (state_of(f"{name}{suffix}", form) for name in "ab")
    layer, names = LAYERS[model], groups(model)
    done = good(
        "transplant", "--from", f"a{suffix}", "--to", f"b{suffix}", "--layers", layer, "-o", "out.safetensors"
    )
    taken = {other for name in names if name.startswith(f"{layer}.") for other in names[name]}
    expected = variant(taken, ours, theirs)
    found = load_file("out.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in names)
    assert all(torch.equal(found[name], found[other]) for name in names for other in names[name])
    assert plain_score(model, found) == plain_score(model, expected) != plain_score(model, ours)
    [said] = [line for line in done.err.splitlines() if "not selected, since they" in line]
    named = sum(name.startswith(f"{layer}.") for name in names)
    more = len(taken) - named
    assert f"warning: {more} {'name is' if more == 1 else 'names are'} taken that" in said
    assert ("share their bytes" if form in ("torch", "legacy") else "equal bytes in both files") in said
    assert len(done.err.splitlines()) == 2, "and nothing else but what was taken"
    whole = {frozenset(names[name]) for name in taken}
    assert f"took {len(whole)} tensor{'s' * (len(whole) > 1)} under {len(taken)} names" in done.err


def state_of(path: str, form: str) -> dict[str, Tensor]:
    if form in ("torch", "legacy"):
        return torch.load(path, weights_only=True)
    if form == "npz":
        return {name: torch.from_numpy(value) for name, value in np.load(path).items()}
    return load_file(path if form == "safetensors" else f"{path}.safetensors")


def test_evaluate_of_the_variant_is_the_plain_loop() -> None:
    save_pair("Registered")
    good("transplant", "--from", "a.pth", "--to", "b.pth", "--layers", "encoder", "-o", "out.safetensors")
    found = cs.evaluate("out.safetensors", model="net.py:Registered", data="net.py:images", metric="net.py:error",
                        batch_size=5, threads=1)  # fmt: skip
    expected = plain_score("Registered", load_file("out.safetensors"))
    assert found.scores[0]["net.py:error"].estimate == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kept", ["embed.weight", "head.weight"])
def test_a_donor_with_one_of_the_names_gives_all(kept: str) -> None:
    """safetensors' `save_model` writes one name of a tied pair."""
    save_pair("Head")
    theirs = torch.load("a.pth", weights_only=True)
    apart({name: value for name, value in theirs.items() if "mid" in name or name == kept}, "one.safetensors")
    for recipient in ("b.pth", "b.safetensors"):
        apart(torch.load("b.pth", weights_only=True), "b.safetensors")
        for name in ("embed.weight", "head.weight"):
            good("transplant", "--from", "one.safetensors", "--to", recipient, "--only", f"={name}", "-o",
                 "out.safetensors", "--force")  # fmt: skip
            found = load_file("out.safetensors")
            assert torch.equal(found["embed.weight"], theirs["embed.weight"])
            assert torch.equal(found["head.weight"], theirs["embed.weight"])


def test_names_that_the_donor_fills_differently_are_refused_together() -> None:
    save_pair("Head")
    theirs = torch.load("a.pth", weights_only=True)
    apart({**theirs, "head.weight": theirs["head.weight"] + 1}, "apart.safetensors")
    done = run("transplant", "--from", "apart.safetensors", "--to", "b.pth", "--only", "embed.*", "-o", "out.pt")
    assert done.code == 2
    assert "embed.weight: embed.weight and head.weight are one tensor, but the donor's differ" in done.err
    assert not Path("out.pt").exists()
    done = good("transplant", "--from", "apart.safetensors", "--to", "b.pth", "--skip-missing", "-o", "out.pt")
    found, ours = torch.load("out.pt", weights_only=True), torch.load("b.pth", weights_only=True)
    assert torch.equal(found["embed.weight"], ours["embed.weight"])
    assert torch.equal(found["head.weight"], ours["embed.weight"])
    assert torch.equal(found["mid.weight"], theirs["mid.weight"])


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_blend_and_a_variant_in_memory_keep_names_equal(alpha: float) -> None:
    save_pair("Head")
    theirs, ours = (torch.load(path, weights_only=True) for path in ("a.pth", "b.pth"))
    for donor, recipient in ((theirs, ours), ("a.pth", "b.pth"), (built_from(theirs), built_from(ours))):
        found = cs.transplant(donor, recipient, only="head.weight", alpha=alpha)
        assert found.ties.same == (("embed.weight", "head.weight"),)
        mixed = ((1 - alpha) * ours["head.weight"].double() + alpha * theirs["head.weight"].double()).float()
        for name in ("embed.weight", "head.weight"):
            assert np.array_equal(found.read(name), mixed.numpy()), name
        assert np.array_equal(found.read("mid.weight"), ours["mid.weight"].numpy())
    again = cs.transplant(found, ours, only="embed.weight")
    assert np.array_equal(again.read("head.weight"), found.read("embed.weight"))


def built_from(state: Mapping[str, Tensor]) -> torch.nn.Module:
    net = built("Head")
    net.load_state_dict(dict(state))
    return net


def test_views_of_a_fused_tensor_go_with_it() -> None:
    save_pair("Views")
    theirs = torch.load("a.pth", weights_only=True)
    for name in ("fused", "q", "k"):
        done = good(
            "transplant", "--from", "a.pth", "--to", "b.pth", "--only", name, "-o", "out.safetensors", "--force"
        )
        found = load_file("out.safetensors")
        assert all(torch.equal(found[each], theirs[each]) for each in ("fused", "q", "k"))
        assert "2 names are taken that were not selected" in done.err
    [opened_b] = opened("b.pth")
    [part] = Selection.parse(only=["q"]).split(opened_b, ("tensor",))
    assert part.names == ("fused", "k", "q")


# What is no tie ------------------------------------------------------------------------------------------------

DRAWN = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)


def guessed(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], *names: str) -> tuple[object, ...]:
    return probable_ties(Checkpoint.from_arrays(ours), Checkpoint.from_arrays(theirs), names).same


def both(value: np.ndarray) -> dict[str, np.ndarray]:
    return {"a.weight": value, "b.weight": value.copy()}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (both(np.zeros(8)), both(np.ones(8))),
        (both(np.ones(8)), {"a.weight": DRAWN[0], "b.weight": DRAWN[1]}),
        (both(DRAWN[0]), both(DRAWN[0])),
        (both(np.arange(8)), both(np.arange(8) + 1)),
        ({"a.weight": DRAWN[0], "b.weight": DRAWN[1]}, both(DRAWN[2])),
        ({"a.weight": DRAWN[0], "b.weight": np.append(DRAWN[0, :-1], 9).astype("f4")}, both(DRAWN[2])),
        (both(np.array([3.0])), both(np.array([4.0]))),
        (both(DRAWN[0]), {"a.weight": DRAWN[1], "b.weight": np.append(DRAWN[1, :-1], 9).astype("f4")}),
    ],
    ids=["constant on both sides", "a default that training moved apart", "equal in both files, nothing at stake",
         "whole numbers", "apart in the recipient", "apart in the recipient's last value", "one value",
         "apart in the donor's last value"],
)  # fmt: skip
def test_equal_bytes_that_are_no_tie(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert guessed(ours, theirs, "a.weight") == ()


def test_equal_bytes_that_are_a_tie() -> None:
    assert guessed(both(DRAWN[0]), both(DRAWN[1]), "a.weight") == (("a.weight", "b.weight"),)
    assert guessed(both(np.zeros(300, "f4")), both(DRAWN[1]), "b.weight") == (("a.weight", "b.weight"),)
    assert guessed(both(DRAWN[0]), {"a.weight": DRAWN[1]}, "a.weight") == (("a.weight", "b.weight"),)
    assert guessed(both(DRAWN[0]), both(DRAWN[1]), "a.weight", "b.weight") == (), "all of it is taken anyway"
    shifted = {"a.weight": DRAWN[0], "b.weight": DRAWN[0].copy(), "c.weight": DRAWN[0].reshape(3, 100)}
    assert guessed(shifted, {**both(DRAWN[1]), "c.weight": DRAWN[1].reshape(3, 100)}, "a.weight") == (
        ("a.weight", "b.weight"),
    )


def test_counters_and_constants_follow_their_layer() -> None:
    def state(seed: int) -> dict[str, np.ndarray]:
        norm = {"weight": DRAWN[seed], "bias": np.full(300, seed, "f4"), "num_batches_tracked": np.array(seed)}
        return {f"{layer}.{role}": value.copy() for layer in ("norm", "again") for role, value in norm.items()} | {
            "other.bias": np.full(300, seed, "f4"), "other.num_batches_tracked": np.array(seed),
        }  # fmt: skip

    for role in ("bias", "num_batches_tracked"):
        assert guessed(state(1), state(2), f"norm.{role}") == ((f"norm.{role}", f"again.{role}"),)
        assert guessed(state(1), state(2), f"other.{role}") == ()


def test_bytes_are_read_only_where_it_matters() -> None:
    """A first stretch of what looks alike; all of it only where that is equal."""
    read: list[int] = []

    class Counting:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read_into(self, buffer: memoryview, offset: int) -> None:
            read.append(len(buffer))
            buffer[:] = self.data[offset : offset + len(buffer)]

    from ckptswap.checkpoint import Tensor as Found

    def checkpoint(seed: int) -> Checkpoint:
        rng = np.random.default_rng(seed)
        tensors = [(f"layers.{at}.weight", rng.normal(size=100_000).astype(np.float32)) for at in range(20)]
        found = [Found(name, value.shape, "F32", Counting(value.tobytes())) for name, value in tensors]
        return Checkpoint(found, path=f"{seed}", format="counted")

    plan = plan_transplant(checkpoint(1), checkpoint(0), Selection.parse(layers=["layers.3"]))
    assert len(plan.taken) == 1
    assert sum(read) <= 20 * 4096


def test_a_tie_that_is_no_longer_one_is_not_called_so() -> None:
    """Half of a group taken by hand, as `overlay` lets one."""
    from ckptswap.checkpoint import overlay

    save_pair("Head")
    donor, recipient = opened("a.pth", "b.pth")
    assert overlay(recipient, donor, ["embed.weight"]).ties.same == ()
    assert overlay(recipient, donor, ["mid.weight"]).ties.same == (("embed.weight", "head.weight"),)


def test_one_name_can_not_be_excluded_from_its_tensor() -> None:
    save_pair("Head")
    [recipient] = opened("b.pth")
    names = [entry.name for entry in Selection.parse(exclude=["head.*"]).pick(recipient)]
    assert "head.weight" in names
    assert [entry.name for entry in Selection.parse(only=["head.*"]).pick(recipient)] == [
        "embed.weight",
        "head.weight",
    ]


def test_a_misfit_keeps_the_others_names_out_too() -> None:
    save_pair("Head")
    theirs = torch.load("a.pth", weights_only=True)
    apart({**theirs, "head.weight": torch.zeros(2, 2)}, "odd.safetensors")
    donor, recipient = opened("odd.safetensors", "b.pth")
    with pytest.raises(MismatchError, match=r"2 of the selected tensors"):
        plan_transplant(donor, recipient, Selection.parse(only=["embed.*"]))


def test_save_model_files_of_a_whole_network() -> None:
    """Both sides with one name: nothing is tied, nothing is said, all of it is right."""
    save_pair("Registered")
    for name in "ab":
        net = built("Registered")
        net.load_state_dict(torch.load(f"{name}.pth", weights_only=True))
        save_model(net, f"{name}.safetensors")
    good(
        "transplant",
        "--from",
        "a.safetensors",
        "--to",
        "b.safetensors",
        "--kind",
        "conv.weight",
        "-o",
        "o.safetensors",
    )
    found = cs.evaluate("o.safetensors", model="net.py:Registered", data="net.py:images", metric="net.py:error",
                        batch_size=5, threads=1)  # fmt: skip
    theirs, ours = (torch.load(path, weights_only=True) for path in ("a.pth", "b.pth"))
    names = {name for name in ours if ours[name].dim() == 4}
    expected = plain_score("Registered", variant(names, ours, theirs))
    assert found.scores[0]["net.py:error"].estimate == pytest.approx(expected, rel=1e-6)


def test_what_follows_is_hashed_once_a_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    plain = twins._hash
    monkeypatch.setattr(twins, "_hash", lambda entry: hashed.append(entry.name) or plain(entry))
    layers = [f"l{at}" for at in range(50)]

    def side(value: float) -> Checkpoint:
        weights = {f"{each}.weight": np.arange(4.0) + value for each in layers}
        return Checkpoint.from_arrays(weights | {f"{each}.bias": np.zeros(2) for each in layers})

    found = probable_ties(side(0), side(1), [f"{each}.bias" for each in layers])
    assert {len(group) for group in found.same} == {50}
    assert max(map(hashed.count, hashed)) <= 2
