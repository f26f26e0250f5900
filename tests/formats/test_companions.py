"""What lies beside the weights in a folder goes with them: the configuration, the tokenizer, not other weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from format_samples import convert

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.companions import companions
from ckptswap.formats.companions import left_behind as left_by_convert
from ckptswap.selection import Selection
from ckptswap.transplant import left_behind, plan_transplant, transplant

OTHERS = {
    "config.json": "{}",
    "tokenizer.model": "t",
    "generation_config.json": "{}",
    "README.md": "# of the recipient",
    "1_Pooling/config.json": "{}",
}
STALE = ["optimizer.pt", "pytorch_model.bin", "onnx/model.onnx", "tf_model.h5"]


def weights(seed: int) -> Checkpoint:
    random = np.random.default_rng(seed)
    return Checkpoint.from_arrays(
        {f"layers.{at}.weight": random.normal(size=(4, 4)).astype("f4") for at in range(4)},
        metadata={"format": "pt"},
    )


def fill(folder: Path) -> None:
    """Put other files beside the weights."""
    for name in (*OTHERS, *STALE, ".gitattributes", ".cache/lock"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(OTHERS.get(name, "old"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A donor in a file, and a recipient as one file in a folder and as shards."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(weights(1), "donor.safetensors")
    for folder in ("single", "shards"):
        Path(folder).mkdir()
        fill(Path(folder))
    write_checkpoint(weights(2), "single/model.safetensors")
    write_checkpoint(weights(2), "shards/model.safetensors.index.json", shard_size=100)
    return tmp_path


def listed(folder: str | Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_dir()}


def graft(recipient: str, out: str | None) -> tuple[Path, list[str]]:
    """Write it; gives where, and what was said to stay behind."""
    with open_checkpoint("donor.safetensors") as donor, open_checkpoint(recipient) as opened:
        plan = plan_transplant(donor, opened, Selection.parse(layers=["layers.1"]))
        said = left_behind(plan, out)
        written = transplant(plan, out)
        with open_checkpoint(written) as made:
            assert {name: made.read(name).tobytes() for name in made} == {
                name: plan.variant.read(name).tobytes() for name in plan.variant
            }
    return written, said


@pytest.mark.parametrize("out", ["made", "made/", None])
@pytest.mark.parametrize("recipient", ["single", "shards", "shards/model.safetensors.index.json"])
def test_a_folder_gives_a_folder_with_its_other_files(here: Path, recipient: str, out: str | None) -> None:
    written, said = graft(recipient, out)
    folder = recipient.partition("/")[0]
    assert written.name == (f"{folder}+layers.1@donor" if out is None else "made")
    own = {name for name in listed(folder) if name.endswith(".safetensors") or name.startswith("model.")}
    assert listed(written) == own | set(OTHERS)
    assert all((written / name).read_text() == text for name, text in OTHERS.items())
    [line] = said
    assert line.endswith(f"not taken along: {', '.join(sorted(STALE))}")


@pytest.mark.parametrize("recipient", ["single", "shards"])
def test_a_single_file_says_what_stays_behind(here: Path, recipient: str) -> None:
    written, [said] = graft(recipient, "one.safetensors")
    assert written.is_file()
    assert all(name in said for name in (*OTHERS, *STALE))


def test_a_single_file_in_a_folder_is_a_file(here: Path) -> None:
    written, said = graft("single/model.safetensors", None)
    assert (written.is_file(), said) == (True, [])


def test_torch_shards_take_their_companions_too(here: Path) -> None:
    Path("t").mkdir()
    fill(Path("t"))
    with open_checkpoint("single") as plain:
        torch.save({name: torch.from_numpy(plain.read(name)) for name in plain}, "t/one.bin")
        index = {"weight_map": dict.fromkeys(plain, "one.bin")}
    Path("t/pytorch_model.bin.index.json").write_text(str(index).replace("'", '"'))
    written, _ = graft("t", None)
    assert set(OTHERS) <= listed(written)
    assert "one.bin" not in listed(written)


def test_the_links_of_a_cache_are_followed_and_become_files(here: Path) -> None:
    """Hugging Face's cache: snapshots/REVISION/NAME → ../../blobs/HASH."""
    snapshot = Path("models--a--b/snapshots/abc")
    snapshot.mkdir(parents=True)
    Path("models--a--b/blobs").mkdir()
    for at, name in enumerate(sorted(listed("shards"))):
        if "/" not in name:
            (Path("shards") / name).rename(f"models--a--b/blobs/{at}")
            (snapshot / name).symlink_to(f"../../blobs/{at}")
    before = {path.name: path.read_bytes() for path in Path("models--a--b/blobs").iterdir()}
    written, _ = graft(str(snapshot), "made")
    assert (written / "config.json").read_text() == "{}"
    assert not any(path.is_symlink() for path in written.rglob("*"))
    assert before == {path.name: path.read_bytes() for path in Path("models--a--b/blobs").iterdir()}


@pytest.mark.parametrize("target", ["../secret.json", "/etc/passwd", "nowhere", "../pipe"])
def test_what_leads_out_of_the_folder_or_is_no_file_is_left_and_said(here: Path, target: str) -> None:
    Path("secret.json").write_text("mine")
    os.mkfifo("pipe")
    Path("single/extra.json").symlink_to(target)
    written, [said] = graft("single", "made")
    assert "extra.json" in said
    assert "extra.json" not in listed(written)


def test_a_pipe_among_them_is_not_waited_for(here: Path) -> None:
    os.mkfifo("single/log.json")
    written, [said] = graft("single", "made")
    assert "log.json" in said
    assert "log.json" not in listed(written)


def test_a_project_that_lives_in_the_folder_is_not_copied(here: Path) -> None:
    """Data, a large log, a tree."""
    for path in [*(Path("single/images") / f"{at}.png" for at in range(60)), Path("single/deep/er/x.json")]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with open("single/log.txt", "wb") as file:
        file.truncate(1 << 30)
    written, [said] = graft("single", "made")
    assert all(name in said for name in ("images/", "deep/er/", "log.txt"))
    assert listed(written) == {"model.safetensors", *OTHERS}


def test_a_failure_takes_everything_back(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ckptswap.formats.companions.shutil.copyfile", lambda *paths: (_ for _ in ()).throw(OSError())
    )
    before = listed(here)
    with pytest.raises(Exception, match="could not be written"):
        graft("single", "made")
    assert listed(here) == before


@pytest.mark.parametrize("source", ["single", "shards"])
def test_convert_takes_them_from_folder_to_folder(here: Path, source: str) -> None:
    with open_checkpoint(source) as opened:
        assert all(name in left_by_convert(opened, "one.npz")[0] for name in OTHERS)
        [said] = left_by_convert(opened, "made/")
        assert said.endswith(f"not taken along: {', '.join(sorted(STALE))}")
    written = convert(source, "made/", shard_size=100)
    assert set(OTHERS) <= listed(written)
    assert not set(STALE) & listed(written)


def test_what_is_no_folder_has_none(here: Path) -> None:
    with open_checkpoint("donor.safetensors") as opened:
        assert companions(opened).taken == ()
        assert left_by_convert(opened, "x.npz") == []


def test_smp_opens_the_graft_as_it_opens_the_recipient(here: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 8)).save_pretrained(
            name
        )
    with open_checkpoint("a") as donor, open_checkpoint("b") as recipient:
        written = transplant(plan_transplant(donor, recipient, Selection.parse(layers=["encoder"])), "made")
    made, ours, theirs = (smp.from_pretrained(str(each)).state_dict() for each in (written, "b", "a"))
    for name, value in made.items():
        assert torch.equal(value, (theirs if name.startswith("encoder.") else ours)[name]), name
