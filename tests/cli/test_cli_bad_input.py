"""Bad input: one clear line on stderr, exit 2, nothing on stdout, nothing written."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cli_program import SWAP, TASK, good, listing, run
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

GOOD = "segment.safetensors"
SWEEP = ["sweep", *SWAP, *TASK, "--run", "run"]


def refused(folder: Path, words: Sequence[object], *said: str) -> str:
    """The message, when a command refuses as it should and says these words."""
    before = listing(folder)
    done = run(*words)
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("ckptswap: ")
    assert done.err.count("\n") == 1, done.err
    assert len(done.err) < 4000
    for word in said:
        assert word in done.err
    assert listing(folder) == before, "something was written"
    return done.err


def reading(path: str) -> dict[str, list[object]]:
    """Every command that opens a checkpoint, in every place where one can stand."""
    return {
        "show": ["show", path],
        "diff a": ["diff", path, GOOD],
        "diff b": ["diff", GOOD, path],
        "diff c": ["diff", GOOD, GOOD, path],
        "transplant donor": ["transplant", "--from", path, "--to", GOOD, "-o", "out.safetensors"],
        "transplant recipient": ["transplant", "--from", GOOD, "--to", path, "-o", "out.safetensors"],
        "evaluate": ["evaluate", path, *TASK],
        "evaluate second": ["evaluate", GOOD, path, *TASK],
        "sweep donor": ["sweep", "--from", path, "--to", GOOD, *TASK, "--run", "run"],
        "sweep recipient": ["sweep", "--from", GOOD, "--to", path, *TASK, "--run", "run"],
        "train": ["train", "segment", "--data", "scans", "--init-from", path, "-o", "out.safetensors"],
        "convert": ["convert", path, "out.npz"],
    }


# Files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", reading(""))
def test_wrong_path(work: Path, place: str) -> None:
    refused(work, reading("segmnt.safetensors")[place], "segmnt.safetensors", "segment.safetensors")


@pytest.mark.parametrize("place", reading(""))
def test_directory(work: Path, place: str) -> None:
    refused(work, reading("scans")[place], "scans")


@pytest.mark.parametrize("place", reading(""))
def test_truncated_safetensors(work: Path, place: str) -> None:
    Path("short.safetensors").write_bytes(Path(GOOD).read_bytes()[:-100])
    refused(work, reading("short.safetensors")[place], "short.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"#!/bin/sh\necho not a checkpoint\n", ""),
        ("Größe\n".encode() * 100, ""),
        (b"\x00" * 64, ""),
        (b"\xff" * 1000, ""),
        (b"PK\x03\x04" + b"\x00" * 40, ""),
        (b"{}", ""),
    ],
    ids=["empty", "script", "text", "zeros", "ones", "torn zip", "json"],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_no_checkpoint(work: Path, content: bytes, words: str, suffix: str) -> None:
    Path(f"x.{suffix}").write_bytes(content)
    for place in ("show", "transplant recipient"):
        refused(work, reading(f"x.{suffix}")[place], f"x.{suffix}", words)


def test_unreadable_and_special_files(work: Path) -> None:
    os.mkfifo("pipe.safetensors")
    refused(work, ["show", "pipe.safetensors"], "pipe.safetensors")
    refused(work, ["show", "/dev/null"], "/dev/null")
    Path("loop").symlink_to("loop")
    refused(work, ["show", "loop"], "loop")


@pytest.mark.parametrize("place", [*reading(""), "show --stats"])
def test_a_flipped_bit_that_a_checksum_tells(work: Path, place: str) -> None:
    """Wherever values are used; a plain `show` and `diff --stat` use none."""
    for name in ("flipped.pt", "flipped.npz"):
        good("convert", GOOD, name)
        raw = bytearray(Path(name).read_bytes())
        at = raw.index(load_file(GOOD)["head.weight"].tobytes())
        raw[at] ^= 1
        Path(name).write_bytes(bytes(raw))
        if place == "show":
            assert run("show", name).code == run("diff", "--stat", name, name).code == 0
        else:
            words = ["show", name, "--stats"] if place == "show --stats" else reading(name)[place]
            refused(work, words, name, "CRC")


class Innocent:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("place", reading(""))
def test_a_pickle_that_would_run_code(work: Path, place: str) -> None:
    with zipfile.ZipFile("bad.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Innocent()}, 2))
        archive.writestr("archive/version", "3\n")
    refused(work, reading("bad.pt")[place], "bad.pt", "posix.system")
    assert not Path("owned").exists()


def test_a_raw_pickle_that_would_run_code(work: Path) -> None:
    Path("bad.pkl").write_bytes(pickle.dumps({"weight": Innocent()}, 2))
    refused(work, ["show", "bad.pkl"], "bad.pkl", "posix.system")
    assert not Path("owned").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_pickled_module(work: Path, zipped: bool) -> None:
    """Its tensors are read; its classes do not make it say what builds it."""
    import torch

    torch.save(torch.nn.Conv2d(1, 1, 1), "module.pt", _use_new_zipfile_serialization=zipped)
    shown = good("show", "module.pt")
    assert "the tensors of a torch.nn.modules.conv.Conv2d, of which nothing was built" in shown.err
    done = run("evaluate", "module.pt", *TASK)
    assert done.code == 2
    assert "module.pt does not say what model it is" in done.err


# Checkpoint and model -------------------------------------------------------------------------------------------


def rewrite(target: str, arrays: dict[str, np.ndarray]) -> None:
    """Other tensors under the good checkpoint's metadata."""
    with safe_open(GOOD, "np") as opened:
        save_file(arrays, target, opened.metadata())


def test_a_checkpoint_that_does_not_fit_lists_ten_of_each(work: Path) -> None:
    arrays = load_file(GOOD)
    names = [name for name in arrays if not name.endswith("num_batches_tracked")]  # these need not fit
    for name in names[:14]:
        arrays[f"more.{name}"] = arrays.pop(name)
    for name in names[14:28]:
        arrays[name] = np.zeros((*arrays[name].shape, 2), np.float32)
    rewrite("odd.safetensors", arrays)
    for words in (["evaluate", "odd.safetensors", *TASK],
                  ["sweep", "--from", GOOD, "--to", "odd.safetensors", *TASK, "--run", "run"]):  # fmt: skip
        error = refused(work, words, "odd.safetensors", "14 unexpected", "14 mismatched")
        assert len(re.findall(r"more\.\w+\.", error)) == 10
        assert error.count(" in the file, ") == 10
        assert error.count(" and 4 more") >= 2


def test_another_model_than_the_checkpoints(work: Path) -> None:
    plain = load_file(GOOD)
    save_file(plain, "bare.safetensors")
    refused(work, ["evaluate", "bare.safetensors", *TASK], "bare.safetensors", "--model")
    refused(work, ["evaluate", "bare.safetensors", *TASK, "--model", "lab:unett"], "'unett'", "'unet'")
    refused(work, ["evaluate", "bare.safetensors", *TASK, "--model", "smp:Unett"], "Unett", "Unet")
    wider = ["--model", "lab:unet", "--model-args", "width=3,depth=1"]
    refused(work, ["evaluate", "bare.safetensors", *TASK, *wider], "does not fit")
    refused(work, ["evaluate", "bare.safetensors", *TASK, "--model", "no.py:build"], "no.py")


def test_metadata_may_not_name_code(work: Path) -> None:
    Path("mine.py").write_text("def build():\n    open('owned', 'w')\n")
    save_file(load_file(GOOD), "sly.safetensors", {"ckptswap.model": "mine.py:build"})
    refused(work, ["evaluate", "sly.safetensors", *TASK], "mine.py:build", "--model")


def spoilt_baseline() -> list[object]:
    """A sweep whose recipient gives NaN."""
    arrays = load_file(GOOD)
    arrays["head.bias"] = np.full_like(arrays["head.bias"], np.nan)
    rewrite("spoilt.safetensors", arrays)
    return ["sweep", "--from", GOOD, "--to", "spoilt.safetensors", *TASK, "--run", "run"]


def test_a_baseline_with_nan(work: Path) -> None:
    done = run(*spoilt_baseline())
    assert (done.code, done.out) == (2, "")
    place, error = done.err.splitlines()
    assert place == "run: run"
    assert error.startswith("ckptswap: the baseline fails")
    assert "spoilt.safetensors: 2048 of the model's outputs are NaN or infinite in batch 0" in error


def test_a_baseline_with_nan_writes_nothing(work: Path) -> None:
    words = spoilt_baseline()
    before = listing(work)
    run(*words)
    assert listing(work) == before


def test_a_run_folder_that_cannot_be(work: Path) -> None:
    before = listing(work)
    done = run("sweep", *SWAP, *TASK, "--run", GOOD)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"ckptswap: cannot make {GOOD}")
    assert listing(work) == before


# Data -----------------------------------------------------------------------------------------------------------


def scoring(data: str) -> tuple[list[object], ...]:
    task = ["--data", data, "--threads", "1"]
    return (
        ["evaluate", GOOD, *task],
        ["sweep", *SWAP, *task, "--run", "run"],
        ["train", "segment", *task, "-o", "out.safetensors"],
    )


def test_masks_of_another_size(work: Path) -> None:
    Image.fromarray(np.zeros((8, 16), np.uint8)).save("scans/masks/s03_1.png")
    for words in scoring("scans"):
        refused(work, words, "s03_1.png", "8×16", "16×16")


def test_no_pairs(work: Path) -> None:
    for mask in Path("scans/masks").iterdir():
        mask.rename(mask.with_name(f"mask_{mask.name}"))
    for words in scoring("scans"):
        refused(work, words, "no pairs found", "s00_0.png", "mask_s00_0.png")


def test_no_masks_no_images_no_folder(work: Path) -> None:
    for words in scoring("scanz"):
        refused(work, words, "scanz")
    Path("empty/images").mkdir(parents=True)
    for words in scoring("empty"):
        refused(work, words, "empty")
    for image in Path("scans/images").iterdir():
        image.write_bytes(b"no picture")
    for words in scoring("scans"):
        refused(work, words, "s00_0.png")


def test_no_data_named(work: Path) -> None:
    refused(work, ["evaluate", GOOD], "--data")
    refused(work, ["sweep", *SWAP], "--data")


def test_groups_that_match_nothing(work: Path) -> None:
    refused(work, ["evaluate", GOOD, "--data", "scans", "--group", r"(subject\d+)"], "s00_0")


def test_user_code_that_fails(work: Path) -> None:
    Path("mine.py").write_text("def data():\n    return 1 / 0\n")
    error = refused(work, ["evaluate", GOOD, "--data", "mine.py:data"], "mine.py:2", "ZeroDivisionError")
    assert "Traceback" not in error
    refused(work, ["evaluate", GOOD, "--data", "mine.py:date"], "data")


# Words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["evaluate", GOOD, *TASK], SWEEP], ids=lambda each: each[0])
@pytest.mark.parametrize(
    ("metric", "near"),
    [
        ("diec", "dice"),
        ("psrn", "psnr"),
        ("iou:poled", "iou:pooled"),
    ],
)
def test_unknown_metric(work: Path, words: list[object], metric: str, near: str) -> None:
    refused(work, [*words, "--metric", metric], metric, near)


@pytest.mark.parametrize(
    ("flags", "near"),
    [
        (["--kind", "conv.wieght"], "conv.weight"),
        (["--layers", "encoder.0.cnov1"], "encoder.0.conv1"),
        (["--only", "head.biass"], "head.bias"),
        (["--only", "=head.Bias"], "head.bias"),
        (["--only", "*", "--exclude", "*"], ""),
    ],
)
@pytest.mark.parametrize(
    "words",
    [["show", GOOD], ["diff", GOOD, "init.safetensors"], ["transplant", *SWAP], SWEEP],
    ids=lambda each: each[0],
)
def test_selection_without_match(work: Path, words: list[object], flags: list[str], near: str) -> None:
    refused(work, [*words, *flags], near)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "scans"], "scans"),
        (["report", "nowhere"], "nowhere"),
        (["show", GOOD, "-o", "no/such/folder.json"], "no/such"),
        (["sweep", *SWAP, *TASK, "--run", "run", "--by", "colour"], "colour"),
        (["diff", GOOD, GOOD, "--by", "colour"], "colour"),
        (["evaluate", GOOD, "-c", "nowhere.toml"], "nowhere.toml"),
        (["evaluate", GOOD, *TASK, "--model-args", "width"], "width"),
        (["evaluate", GOOD, *TASK, "--device", "cudda"], "cudda"),
        (["transplant", *SWAP, "--map", "nonsense"], "nonsense"),
        (["transplant", *SWAP, "-o", "no/such/folder.safetensors"], "no/such"),
        (["convert", GOOD, "x.gguf"], "x.gguf"),
        (["train", "segment", "--data", "scans", "--steps", "1", "-o", GOOD], "--force"),
        (["sweep", *SWAP, *TASK, "--run", "run", "--tolerance", "-1"], "tolerance"),
        (["sweep", *SWAP, *TASK, "--run", "run", "--tolerance", "nan"], "tolerance"),
    ],
    ids=lambda each: " ".join(map(str, each[-2:])) if isinstance(each, list) else "",
)
def test_words_that_make_no_sense(work: Path, words: list[object], said: str) -> None:
    refused(work, words, said)
