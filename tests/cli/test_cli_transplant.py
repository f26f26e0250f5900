"""`ckptswap transplant`: it prints the path only, replaces nothing unasked, and the file holds what was named."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_program import SWAP, good, listing, run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

DEFAULT = "segment+conv.bias@reconstruct.safetensors"
DONOR, RECIPIENT = "reconstruct.safetensors", "segment.safetensors"


def test_stdout_is_the_path_and_nothing_else(work: Path) -> None:
    assert good("transplant", *SWAP, "--kind", "conv.bias").out == f"{DEFAULT}\n"
    assert good("transplant", *SWAP, "--kind", "conv.bias", "-o", "mine.safetensors").out == "mine.safetensors\n"
    assert Path(DEFAULT).read_bytes() == Path("mine.safetensors").read_bytes()


def test_exactly_the_selected_tensors_are_the_donors(work: Path) -> None:
    good("transplant", *SWAP, "--kind", "conv.bias", "--layers", "encoder")
    [path] = Path().glob("segment+*@reconstruct.safetensors")
    ours, theirs, made = (load_file(each) for each in (RECIPIENT, DONOR, path))
    assert list(made) == list(ours)
    for name, value in made.items():
        taken = bool(re.fullmatch(r"encoder\..*conv\d\.bias", name))
        assert value.tobytes() == (theirs if taken else ours)[name].tobytes(), name


def test_the_default_name_needs_no_quotes(work: Path) -> None:
    path = good("transplant", *SWAP, "--only", "bn.running_*", "--layers", "encoder.0:1").out.strip()
    assert re.fullmatch(r"[\w.+@,=:%-]+\.safetensors", path)
    assert Path(path).is_file()


def test_nothing_is_replaced_without_force(work: Path) -> None:
    words = ["transplant", *SWAP, "--kind", "conv.bias"]
    good(*words)
    Path(DEFAULT).write_bytes(b"mine")
    before = listing(work)
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "--force" in done.err
    assert listing(work) == before
    assert good(*words, "--force").out == f"{DEFAULT}\n"
    assert Path(DEFAULT).stat().st_size > 4


@pytest.mark.parametrize("target", [DONOR, RECIPIENT])
def test_never_onto_its_own_input_unasked(work: Path, target: str) -> None:
    before = Path(target).read_bytes()
    assert run("transplant", *SWAP, "--kind", "conv.bias", "-o", target).code == 2
    assert Path(target).read_bytes() == before


def test_with_force_onto_its_own_input(work: Path) -> None:
    other = good("transplant", *SWAP, "--kind", "conv.bias").out.strip()
    good("transplant", *SWAP, "--kind", "conv.bias", "-o", RECIPIENT, "--force")
    assert good("diff", other, RECIPIENT, "--exit-code").code == 0


def test_dry_run_writes_nothing(work: Path) -> None:
    before = listing(work)
    done = good("transplant", *SWAP, "--kind", "conv.bias", "--dry-run")
    assert listing(work) == before
    assert len(done.out.splitlines()) == 8
    assert all(name.endswith(".bias") for name in done.out.splitlines())
    assert DEFAULT in done.err


def test_alpha_goes_part_of_the_way(work: Path) -> None:
    made = {}
    for alpha in ("0", "0.25", "1"):
        good("transplant", *SWAP, "--kind", "conv.bias", "--alpha", alpha, "-o", f"{alpha}.safetensors")
        made[alpha] = load_file(f"{alpha}.safetensors")
    ours, theirs = load_file(RECIPIENT), load_file(DONOR)
    name = "head.bias"
    assert made["0"][name].tobytes() == ours[name].tobytes()
    assert made["1"][name].tobytes() == theirs[name].tobytes()
    np.testing.assert_allclose(made["0.25"][name], 0.75 * ours[name] + 0.25 * theirs[name], rtol=1e-6)
    assert run("transplant", *SWAP, "--alpha", "nan", "-o", "x.safetensors").code == 2
    assert not Path("x.safetensors").exists()


def test_metadata_says_where_it_came_from_beside_what_was_there(work: Path) -> None:
    path = good("transplant", *SWAP, "--kind", "conv.bias").out.strip()
    with safe_open(path, "np") as made, safe_open(RECIPIENT, "np") as recipient:
        said, before = made.metadata(), recipient.metadata()
    assert {key: said[key] for key in before} == before
    added = "".join(value for key, value in said.items() if key not in before)
    assert "conv.bias" in added
    assert len(re.findall(r"[0-9a-f]{32,64}", added)) >= 2


def test_the_file_has_an_ordinary_mode(work: Path) -> None:
    path = Path(good("transplant", *SWAP, "--kind", "conv.bias").out.strip())
    Path("plain").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path("plain").stat().st_mode)


def test_a_misfit_is_refused_by_name_or_left_out(work: Path) -> None:
    good("train", "segment", "--model", "lab:unet", "--model-args", "width=3,depth=1", "--data", "scans",
         "--steps", 1, "--threads", 1, "-o", "wide.safetensors")  # fmt: skip
    before = listing(work)
    words = ["transplant", "--from", "wide.safetensors", "--to", RECIPIENT, "--layers", "head"]
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert "head.weight" in done.err
    assert "[1, 3, 1, 1]" in done.err
    assert "[1, 2, 1, 1]" in done.err
    assert listing(work) == before
    done = good(*words, "--skip-missing")
    assert "head.weight" in done.err
    found = good("diff", RECIPIENT, done.out.strip(), "--format", "json").json
    assert [row["name"] for row in found["rows"] if row["status"] == "changed"] == ["head.bias"]


def test_names_are_brought_together(work: Path) -> None:
    from safetensors.numpy import save_file

    save_file({f"module.{name}": value for name, value in load_file(DONOR).items()}, "wrapped.safetensors")
    words = ["transplant", "--from", "wrapped.safetensors", "--to", RECIPIENT, "--kind", "conv.bias"]
    good("transplant", *SWAP, "--kind", "conv.bias", "-o", "plain.safetensors")
    for at, flags in enumerate(([], ["--strip-prefix", "module."], ["--map", "module.*=*"])):
        done = good(*words, *flags, "-o", f"{at}.safetensors")
        assert good("diff", "plain.safetensors", f"{at}.safetensors", "--exit-code").code == 0
        assert ("module." in done.err) == (not flags), "a prefix that was found is said"


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A donor and a recipient that share some values, a copy of the recipient, and two whose counters differ."""
    monkeypatch.chdir(tmp_path)
    zeros = {"a": np.zeros(3, "f4"), "b": np.zeros(2, "f4"), "n": np.array([1, 2])}
    save_file(zeros, "recipient.safetensors")
    save_file(zeros, "same.safetensors")
    save_file({**zeros, "a": np.ones(3, "f4"), "n": np.array([3, 4])}, "donor.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "said", "changes"),
    [
        ([], ["took 3 tensors (36 bytes)", "; 1 of these is the same in both, and changed nothing"], ["a", "n"]),
        (["--only", "a"], ["took 1 tensor (12 bytes) from donor.safetensors into recipient.safetensors\n"], ["a"]),
        (["--alpha", "0"], ["took nothing", ": alpha 0 is the recipient"], []),
        (["--alpha", "0.5"], ["took 2 tensors (20 bytes)", ", by 0.5 of the way; 1 of these is the same"], ["a"]),
        (["--alpha", "0.5", "--only", "n"], ["took nothing", ": what cannot be mixed stays the recipient's"], []),
        (["--from", "same.safetensors"], ["took 3 tensors (36 bytes)", "; all of these are the same in both"], []),
    ],
)
def test_what_it_says_it_took_is_what_changed(
    sides: Path, flags: list[str], said: list[str], changes: list[str]
) -> None:
    words = ["--from", "donor.safetensors", "--to", "recipient.safetensors", *flags, "-o", "out.safetensors"]
    told = good("transplant", *words).err
    assert all(part in told for part in said)
    ours, made = (load_file(each) for each in ("recipient.safetensors", "out.safetensors"))
    assert sorted(name for name in ours if ours[name].tobytes() != made[name].tobytes()) == changes


def test_a_dry_run_names_nothing_where_nothing_is_taken(sides: Path) -> None:
    words = ["transplant", "--from", "donor.safetensors", "--to", "recipient.safetensors", "--dry-run", "--alpha"]
    nothing = good(*words, "0")
    assert (nothing.out, "would take nothing" in nothing.err) == ("", True)
    assert good(*words, "0.5").out == "a\nb\n"


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints of a training script, with more in them than tensors."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("donor.ckpt", 1.0), ("recipient.ckpt", 0.0)):
        content = {"state_dict": {"w": torch.full((2,), value)}, "epoch": 3, "hyper_parameters": {"lr": 0.1}}
        torch.save(content, name)
    return tmp_path


LOST = "warning: recipient.ckpt: what lies beside the tensors is not written: epoch, hyper_parameters"


@pytest.mark.parametrize("more", [[], ["-o", "out.safetensors"], ["-o", "out.npz"], ["-o", "out.pt", "--dry-run"]])
def test_what_is_lost_is_said_before_anything_is_written(training: Path, more: list[str]) -> None:
    done = good("transplant", "--from", "donor.ckpt", "--to", "recipient.ckpt", *more)
    assert (LOST in done.err) == ("out.pt" not in more)
    if LOST in done.err:
        assert "(-o FILE.ckpt keeps it)" in done.err
        assert done.err.index(LOST) < done.err.index("took 1 tensor")
    refused = run("transplant", "--from", "donor.ckpt", "--to", "recipient.ckpt", "-o", "recipient.ckpt")
    assert refused.code == 2
    assert torch.load("recipient.ckpt")["state_dict"]["w"].tolist() == [0, 0]


def test_a_graft_of_a_training_checkpoint_is_one(training: Path) -> None:
    done = good("transplant", "--from", "donor.ckpt", "--to", "recipient.ckpt", "-o", "out.ckpt")
    assert done.out == "out.ckpt\n"
    found = torch.load("out.ckpt")
    assert found["state_dict"]["w"].tolist() == [1, 1]
    assert {key: value for key, value in found.items() if key != "state_dict"} == {
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
    }


@pytest.mark.parametrize("target", ["out.safetensors", "out.pt"])
def test_a_conversion_says_what_it_leaves(training: Path, target: str) -> None:
    done = good("convert", "recipient.ckpt", target)
    message = "note: recipient.ckpt: what lies beside the tensors is not written: epoch, hyper_parameters\n"
    assert message in done.err
