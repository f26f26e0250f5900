"""Transplants on disk: what is planned, what is written, and what is left when something fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from core_samples import bytes_of, contents, fitting_pairs, packed, random_bits, stored_tensors, write_safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

from ckptswap import fingerprint
from ckptswap.checkpoint import Checkpoint, Tensor
from ckptswap.diff import diff
from ckptswap.errors import CkptswapError, FileError, FormatError, MismatchError, SelectionError, UsageError
from ckptswap.formats import open_checkpoint, patch, write_checkpoint
from ckptswap.selection import Selection
from ckptswap.sources import MemorySource
from ckptswap.transplant import METADATA_KEY, Transplant, plan_transplant, transplant
from ckptswap.version import __version__

Arrays = dict[str, np.ndarray]
VICTIM = "new\nline\x1b[31m[red]"


def network(seed: int, width: int = 5) -> Arrays:
    random = np.random.default_rng(seed)
    return {
        "stem.conv.weight": random.normal(size=(width, 3, 3, 3)).astype("f4"),
        "stem.conv.bias": random.normal(size=width).astype("f4"),
        "stem.bn.weight": random.normal(size=width).astype("f4"),
        "stem.bn.running_mean": random.normal(size=width).astype("f4"),
        "stem.bn.num_batches_tracked": np.array(seed),
        "head.weight": random.normal(size=(2, width)).astype("f2"),
        VICTIM: random.normal(size=3),
        "empty.weight": np.zeros((0, 4), "f4"),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with donor a.safetensors and recipient b.safetensors."""
    monkeypatch.chdir(tmp_path)
    write_safetensors(tmp_path / "a.safetensors", network(1))
    write_safetensors(tmp_path / "b.safetensors", network(2), {"format": "pt", "note": "kept"})
    return tmp_path


@pytest.fixture
def sides(folder: Path) -> Iterator[tuple[Checkpoint, Checkpoint]]:
    with open_checkpoint("a.safetensors") as donor, open_checkpoint("b.safetensors") as recipient:
        yield donor, recipient


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as file:
        return file.metadata()


def origin(path: Path) -> dict:
    return json.loads(metadata(path)[METADATA_KEY])


def data_start(path: Path) -> int:
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def leftovers(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if ".part" in each.name]


def plan(
    sides: tuple[Checkpoint, Checkpoint], alpha: float = 1.0, skip: bool = False, **flags: list[str]
) -> Transplant:
    return plan_transplant(*sides, Selection.parse(**flags), alpha=alpha, skip_missing=skip)


def test_the_output_is_a_plain_update_for_every_reader(sides: tuple[Checkpoint, Checkpoint]) -> None:
    written = transplant(plan(sides, kind=["conv.bias", "bn.*"]))
    taken = [name for name in network(1) if name.startswith("stem.bn.") or name == "stem.conv.bias"]
    expected = {**network(2), **{name: network(1)[name] for name in taken}}
    with safe_open(written, framework="np") as file:
        assert {name: bytes_of(file.get_tensor(name)) for name in file.keys()} == {  # noqa: SIM118
            name: bytes_of(array) for name, array in expected.items()
        }
    loaded = load_file(written)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], torch.from_numpy(array)) for name, array in expected.items())
    with open_checkpoint(written) as variant:
        changed = {row.name for row in diff(variant, sides[1]).rows if row.status != "identical"}
    assert changed == set(taken)


def test_the_output_says_where_it_came_from(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    written = transplant(plan(sides, alpha=0.25, kind=["conv.bias"], exclude=["head*"]), "out.safetensors")
    hashes = {side: hashlib.sha256((folder / f"{side}.safetensors").read_bytes()).hexdigest() for side in "ab"}
    assert origin(written) == {
        "version": __version__,
        "donor": {"path": "a.safetensors", "sha256": hashes["a"]},
        "recipient": {"path": "b.safetensors", "sha256": hashes["b"]},
        "selection": ["--exclude", "head*", "--kind", "conv.bias"],
        "alpha": 0.25, "tensors": 1, "skipped": [],
    }  # fmt: skip
    assert {key: value for key, value in metadata(written).items() if key != METADATA_KEY} == {
        "format": "pt", "note": "kept",
    }  # fmt: skip


def test_what_was_said_of_earlier_transplants_stays(sides: tuple[Checkpoint, Checkpoint]) -> None:
    paths = [Path("b.safetensors")]
    for kind in ("conv.bias", "bn.weight", "linear.weight"):
        with open_checkpoint(paths[-1]) as recipient:
            chosen = Selection.parse(kind=[kind])
            paths.append(transplant(plan_transplant(sides[0], recipient, chosen), f"{kind}.safetensors"))
    said = metadata(paths[-1])
    told = [said[f"{METADATA_KEY}{end}"] for end in (".1", ".2", "")]
    assert [json.loads(each)["selection"][1] for each in told] == ["conv.bias", "bn.weight", "linear.weight"]


@settings(max_examples=40)
@given(fitting_pairs(tensors=stored_tensors), st.data())
def test_any_tensors_are_put_into_any_file(given: tuple[Arrays, Arrays], data: st.DataObject) -> None:
    ours, theirs = given
    names = data.draw(st.lists(st.sampled_from(list(ours)), min_size=1, unique=True))
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        write_safetensors(room / "a", theirs)
        write_safetensors(room / "b", ours, data.draw(st.sampled_from([None, {"k": "x" * 5000}])))
        with open_checkpoint(room / "a") as donor, open_checkpoint(room / "b") as recipient:
            chosen = plan_transplant(donor, recipient, Selection.exactly(names))
            once = transplant(chosen, room / "c.safetensors")
            assert contents(chosen.variant) == {
                key: bytes_of(theirs[key] if key in names else array) for key, array in ours.items()
            }
            with open_checkpoint(once) as written:
                assert contents(written) == contents(chosen.variant)
                again = transplant(
                    plan_transplant(donor, written, Selection.exactly(names)), room / "d.safetensors"
                )
                with open_checkpoint(again) as twice:
                    assert contents(twice) == contents(written)
        assert (data_start(once) - data_start(room / "b")) % 4096 == 0
        with safe_open(once, framework="np") as file:
            assert set(file.keys()) == set(ours)
        assert leftovers(room) == []


@pytest.mark.parametrize("note", ["", "x" * 3900, "x" * 4096, "ü" * 9000])
def test_the_data_keeps_its_place_in_its_page(folder: Path, note: str) -> None:
    write_safetensors(folder / "b.safetensors", network(2), {"note": note})
    with open_checkpoint("a.safetensors") as donor, open_checkpoint("b.safetensors") as recipient:
        written = transplant(plan((donor, recipient), kind=["conv.bias"]))
    start, before = data_start(written), data_start(folder / "b.safetensors")
    assert (start - before) % 4096 == 0
    raw = written.read_bytes()
    assert len(raw) - start == (folder / "b.safetensors").stat().st_size - before
    assert json.loads(raw[8:start])["__metadata__"]["note"] == note


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_file_has_the_mode_of_any_new_one(sides: tuple[Checkpoint, Checkpoint], mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        written = transplant(plan(sides, kind=["conv.bias"]))
    finally:
        os.umask(before)
    assert stat.S_IMODE(written.stat().st_mode) == mode


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"kind": ["conv.bias"]}, "b+conv.bias@a.safetensors"),
        ({"kind": ["conv.bias", "bn.stats"]}, "b+conv.bias_bn.stats@a.safetensors"),
        ({"only": ["bn.running_*"], "layers": ["stem"]}, "b+bn.running__stem@a.safetensors"),
        ({"only": ["*"]}, "b+any@a.safetensors"),
        ({"exclude": ["head.*"]}, "b+not-head.@a.safetensors"),
        ({}, "b+all@a.safetensors"),
        ({"only": [f"={VICTIM}"]}, "b+new-line-31m-red@a.safetensors"),
    ],
)  # fmt: skip
def test_default_names(sides: tuple[Checkpoint, Checkpoint], flags: dict[str, list[str]], name: str) -> None:
    found = str(plan(sides, **flags).default_output)
    assert found == name


def test_long_selections_that_begin_alike_have_names_of_their_own(sides: tuple[Checkpoint, Checkpoint]) -> None:
    names = [f"={'a.very.long.layer' * 6}.{at}" for at in range(2)]
    found = {str(plan(sides, only=["*", name]).default_output) for name in names}
    assert len(found) == 2
    assert all("-and-more-" in name and len(name) < 120 for name in found)


@given(
    st.text(max_size=300),
    st.text(min_size=1, max_size=300),
    st.lists(st.text(min_size=1, max_size=60), max_size=6),
)
def test_default_names_are_plain_words_of_a_shell(donor: str, recipient: str, names: list[str]) -> None:
    sides = [Checkpoint.from_arrays({name: np.zeros(1) for name in names} | {"w": np.zeros(1)}, path=path)
             for path in (donor, recipient)]  # fmt: skip
    found = str(plan_transplant(*sides, Selection.exactly([*names, "w"])).default_output)
    assert shlex.quote(found) == found
    assert re.fullmatch(r"[A-Za-z0-9._][A-Za-z0-9._+@-]{,250}\.safetensors", found)


def test_an_existing_file_is_replaced_only_by_force(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    target = folder / "out.safetensors"
    target.write_text("mine")
    for fails in (False, False, True):
        if not fails:
            with pytest.raises(FileError, match="exists already"):
                transplant(plan(sides, kind=["conv.bias"]), target)
            assert target.read_text() == "mine"
        else:
            transplant(plan(sides, kind=["conv.bias"]), target, force=True)
    assert load_file(target)["stem.conv.bias"].tolist() == network(1)["stem.conv.bias"].tolist()
    assert leftovers(folder) == []


@pytest.mark.parametrize("own", ["a.safetensors", "b.safetensors"])
def test_a_source_can_be_replaced_by_force(sides: tuple[Checkpoint, Checkpoint], folder: Path, own: str) -> None:
    before = hashlib.sha256((folder / own).read_bytes()).hexdigest()
    written = transplant(plan(sides, kind=["conv.bias"]), own, force=True)
    loaded = load_file(written)
    assert loaded["stem.conv.bias"].tolist() == network(1)["stem.conv.bias"].tolist()
    assert loaded["head.weight"].tolist() == network(2)["head.weight"].tolist()
    assert before in (origin(written)["donor"]["sha256"], origin(written)["recipient"]["sha256"])


def test_a_folder_is_never_replaced(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    (folder / "there").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        transplant(plan(sides, kind=["conv.bias"]), "there", force=True)


@pytest.mark.parametrize("alpha", [0, 0.25, 1])
def test_alpha_goes_from_the_recipient_to_the_donor(sides: tuple[Checkpoint, Checkpoint], alpha: float) -> None:
    chosen = plan(sides, alpha=alpha, layers=["stem"])
    loaded = load_file(transplant(chosen))
    ours, theirs = network(2), network(1)
    for name in ("stem.conv.weight", "stem.bn.running_mean"):
        mixed = (1 - alpha) * ours[name].astype("f8") + alpha * theirs[name].astype("f8")
        assert loaded[name].numpy().tobytes() == mixed.astype("f4").tobytes()
    assert loaded["stem.bn.num_batches_tracked"] == (1 if alpha == 1 else 2)
    assert chosen.kept == (("stem.bn.num_batches_tracked",) if alpha == 0.25 else ())
    assert any("cannot be interpolated" in said for said in chosen.warnings) == (alpha == 0.25)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_alpha_beyond_its_ends_is_refused(sides: tuple[Checkpoint, Checkpoint], alpha: float) -> None:
    with pytest.raises(UsageError, match="it goes from 0"):
        plan(sides, alpha=alpha)


def test_packed_floats_are_taken_whole_but_not_mixed() -> None:
    donor, recipient = (packed("w", "F4", (4,), raw) for raw in (b"ab", b"cd"))
    assert plan_transplant(donor, recipient).variant.read("w").tobytes() == b"ab"
    mixed = plan_transplant(donor, recipient, alpha=0.5)
    assert (mixed.kept, mixed.variant.read("w").tobytes()) == (("w",), b"cd")


def test_misfits_are_refused_by_name_with_both_sides() -> None:
    ours = {"c.weight": np.zeros(2), "c.bias": np.zeros(2), "d.bias": np.zeros(2)}
    theirs = {"c.wieght": np.zeros(2), "c.bias": np.zeros(3), "d.bias": np.zeros(2, "f4")}
    recipient, donor = Checkpoint.from_arrays(ours, path="r"), Checkpoint.from_arrays(theirs, path="d")
    with pytest.raises(MismatchError) as caught:
        plan_transplant(donor, recipient)
    for part in (
        "3 of the selected tensors cannot go from d into r",
        "c.weight: the donor has none (did you mean 'c.wieght'?)",
        "c.bias: donor F64 [3], recipient F64 [2]", "d.bias: donor F32 [2], recipient F64 [2]", "--skip-missing",
    ):  # fmt: skip
        assert part in str(caught.value)
    assert str(caught.value).count("did you mean") == 1


def test_a_refusal_lists_ten_and_then_counts() -> None:
    recipient = Checkpoint.from_arrays({f"l{at}.w": np.zeros(1) for at in range(3000)})
    donor = Checkpoint.from_arrays({f"other{at}.w": np.zeros(1) for at in range(3000)})
    with pytest.raises(MismatchError, match="3000 of the selected") as caught:
        plan_transplant(donor, recipient)
    assert str(caught.value).count("the donor has none") == 10
    assert "and 2990 more" in str(caught.value)


def test_misfits_are_left_out_on_demand(folder: Path) -> None:
    odd = network(1, width=4) | {"extra.bias": np.zeros(1, "f4")}
    write_safetensors(folder / "a.safetensors", odd)
    with open_checkpoint("a.safetensors") as donor, open_checkpoint("b.safetensors") as recipient:
        chosen = plan((donor, recipient), skip=True)
        written = transplant(chosen)
    loaded = load_file(written)
    assert {entry.name for entry in chosen.taken} == {"stem.bn.num_batches_tracked", VICTIM, "empty.weight"}
    assert loaded[VICTIM].tolist() == odd[VICTIM].tolist()
    assert loaded["head.weight"].tolist() == network(2)["head.weight"].tolist()
    assert origin(written)["skipped"] == [misfit.name for misfit in chosen.misfits]
    assert "stem.conv.weight" in origin(written)["skipped"]
    assert any("no place for 1 of the donor's selected tensors" in said for said in chosen.warnings)


def test_nothing_that_fits_is_an_error_all_the_same() -> None:
    recipient, donor = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in "ab")
    with pytest.raises(MismatchError, match="has none of the selected tensors"):
        plan_transplant(donor, recipient, skip_missing=True)


def test_what_only_the_donor_has_selects_nothing() -> None:
    recipient, donor = (Checkpoint.from_arrays({name: np.zeros(1)}) for name in ("a.bias", "b.bias"))
    with pytest.raises(SelectionError, match="nothing in"):
        plan_transplant(donor, recipient, Selection.parse(layers=["b"]))


def test_optimizer_state_that_no_longer_fits_is_warned_of() -> None:
    tensor = Tensor("w", (1,), "U8", MemorySource(memoryview(b"a")))
    recipient = Checkpoint([tensor], path="r.pt", format="f", stale=["optimizer"])
    said = plan_transplant(Checkpoint([tensor], path="d.pt", format="f"), recipient).warnings
    assert ["optimizer" in each and "does not fit the new tensors" in each for each in said] == [True]


def test_names_of_one_tensor_are_taken_together_and_said_once(folder: Path) -> None:
    weight = torch.ones(2, 2)
    torch.save({"a.weight": weight, "b.weight": weight}, folder / "tied.pt")
    with open_checkpoint("tied.pt") as tied:
        chosen = plan((tied, tied), only=["a.weight"])
        assert [entry.name for entry in chosen.taken] == ["a.weight", "b.weight"]
        [said] = chosen.warnings
        assert said.endswith("since they share their bytes in the recipient: a.weight = b.weight")


def failing(code: int):
    def fail(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("call", ["copy_file_range", "pwrite", "fsync", "replace"])
def test_a_failure_leaves_nothing_behind(
    sides: tuple[Checkpoint, Checkpoint], folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = sorted(each.name for each in folder.iterdir())
    (folder / "old.safetensors").write_text("old")
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(FileError, match="No space left"):
        transplant(plan(sides, kind=["conv.bias"]), "old.safetensors", force=True)
    assert (folder / "old.safetensors").read_text() == "old"
    assert sorted(each.name for each in folder.iterdir()) == sorted([*before, "old.safetensors"])


def test_an_interrupt_leaves_nothing_behind(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transplant(plan(sides, kind=["conv.bias"]), "out.safetensors", progress=interrupt)
    assert sorted(each.name for each in folder.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_an_interrupt_does_not_wait_for_hashes(
    sides: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    def endless(checkpoint: Checkpoint, stop: threading.Event) -> dict[str, str]:
        stopped.append(stop.wait(30))
        return {}

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ckptswap.transplant.fingerprint", endless)
    with pytest.raises(KeyboardInterrupt):
        transplant(plan(sides, kind=["conv.bias"]), progress=interrupt)
    assert stopped == [True, True]


def test_where_the_kernel_cannot_copy_plain_reads_do(
    sides: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plan(sides, kind=["conv.bias"])
    quick = transplant(chosen, "quick.safetensors").read_bytes()
    monkeypatch.setattr(os, "copy_file_range", failing(errno.EXDEV))
    monkeypatch.setattr(patch, "COPY", 100)
    assert transplant(chosen, "slow.safetensors").read_bytes() == quick


@pytest.mark.parametrize("side", ["a.safetensors", "b.safetensors"])
@pytest.mark.parametrize("how", ["cut", "touched"])
def test_a_source_that_changed_meanwhile_is_refused(
    sides: tuple[Checkpoint, Checkpoint], folder: Path, side: str, how: str
) -> None:
    chosen = plan(sides, kind=["conv.bias"])
    if how == "cut":
        os.truncate(folder / side, (folder / side).stat().st_size - 60)
    else:
        os.utime(folder / side, (1, 1))
    with pytest.raises((FileError, FormatError), match=r"changed while|cut short|ended at"):
        transplant(chosen, "out.safetensors")
    assert not (folder / "out.safetensors").exists()
    assert leftovers(folder) == []


def test_a_source_that_went_away_has_no_hash(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    (folder / "a.safetensors").unlink()
    with pytest.raises(CkptswapError, match="cannot be read again"):
        transplant(plan(sides, kind=["conv.bias"]), "out.safetensors")
    assert not (folder / "out.safetensors").exists()


@pytest.mark.parametrize("most", [0, 10**9], ids=["xxh3", "sha256"])
def test_a_source_that_another_took_the_place_of_is_not_hashed_for_it(
    sides: tuple[Checkpoint, Checkpoint], folder: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """The values would be the old file's, which stays open, and the hash the new one's."""
    monkeypatch.setattr(fingerprint, "SHA256_MOST", most)
    write_safetensors(folder / "new", network(9))
    os.replace(folder / "new", folder / "a.safetensors")
    with pytest.raises(FileError, match="changed while it was being read"):
        transplant(plan(sides, kind=["conv.bias"]), "out.safetensors")
    assert not (folder / "out.safetensors").exists()


def test_long_hashes_are_recorded_under_their_name(
    sides: tuple[Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "SHA256_MOST", 0)
    assert set(origin(transplant(plan(sides, kind=["conv.bias"])))["donor"]) == {"path", "xxh3_128"}


@pytest.mark.parametrize("ending", [".pt", ".npz"])
def test_other_formats_are_read_and_written(folder: Path, ending: str) -> None:
    with open_checkpoint("b.safetensors") as plain:
        write_checkpoint(plain, folder / f"b{ending}")
    with open_checkpoint("a.safetensors") as donor, open_checkpoint(f"b{ending}") as recipient:
        chosen = plan((donor, recipient), kind=["conv.bias"])
        into, default = transplant(chosen, f"out{ending}"), transplant(chosen)
        assert str(default) == "b+conv.bias@a.safetensors"
        for path in (into, default):
            with open_checkpoint(path) as written:
                assert contents(written) == contents(chosen.variant)
                assert METADATA_KEY in written.metadata


def sharded(folder: Path, name: str = "s") -> Path:
    with open_checkpoint("b.safetensors") as plain:
        write_checkpoint(plain, f"{name}/", shard_size=100)
    return folder / name


@pytest.mark.parametrize("link", [False, True])
def test_a_sharded_recipient_gives_a_folder_in_which_one_shard_changed(folder: Path, link: bool) -> None:
    shards = sharded(folder)
    with open_checkpoint("a.safetensors") as donor, open_checkpoint(shards) as recipient:
        chosen = plan((donor, recipient), kind=["conv.bias"])
        written = transplant(chosen, link=link)
        assert written.is_dir()
        with open_checkpoint(written) as variant:
            assert contents(variant) == contents(chosen.variant)
    changed = [
        path.name for path in sorted(shards.glob("*.safetensors"))
        if path.read_bytes() != (written / path.name).read_bytes()
    ]  # fmt: skip
    linked = [path.name for path in shards.glob("*.safetensors") if path.samefile(written / path.name)]
    assert len(changed) == 1
    assert len(linked) == (len(list(shards.glob("*.safetensors"))) - 1 if link else 0)


@pytest.mark.parametrize("out", ["one.safetensors", "many/", "many", "again.safetensors.index.json"])
def test_shards_go_where_the_name_says(folder: Path, out: str) -> None:
    shards = sharded(folder)
    with open_checkpoint("a.safetensors") as donor, open_checkpoint(shards) as recipient:
        chosen = plan((donor, recipient), kind=["conv.bias"])
        written = transplant(chosen, out)
        assert written.is_dir() == out.startswith("many")
        with open_checkpoint(written) as variant:
            assert contents(variant) == contents(chosen.variant)


def test_shards_of_torch_give_a_folder_too(folder: Path) -> None:
    weights = {name: torch.from_numpy(array) for name, array in network(2).items()}
    (folder / "t").mkdir()
    torch.save(weights, folder / "t" / "one.bin")
    index = {"weight_map": dict.fromkeys(weights, "one.bin")}
    (folder / "t" / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with open_checkpoint("a.safetensors") as donor, open_checkpoint("t") as recipient:
        chosen = plan((donor, recipient), kind=["conv.bias"])
        written = transplant(chosen)
        assert written.is_dir()
        with open_checkpoint(written) as variant:
            assert contents(variant) == contents(chosen.variant)


def test_a_single_recipient_can_be_cut_into_shards(sides: tuple[Checkpoint, Checkpoint]) -> None:
    written = transplant(plan(sides, kind=["conv.bias"]), "cut/")
    assert (written / "model.safetensors.index.json").is_file()


def test_links_need_shards(sides: tuple[Checkpoint, Checkpoint], folder: Path) -> None:
    with pytest.raises(UsageError, match="no shards to link"):
        transplant(plan(sides, kind=["conv.bias"]), link=True)
    assert sorted(each.name for each in folder.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_file_without_an_ending_is_patched_as_well(sides: tuple[Checkpoint, Checkpoint]) -> None:
    chosen = plan(sides, kind=["conv.bias"])
    assert transplant(chosen, "bare").read_bytes() == transplant(chosen, "out.safetensors").read_bytes()


def test_many_tensors_are_planned_and_written_in_one_sweep(folder: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        write_safetensors(
            folder / f"{name}.safetensors",
            {f"l{at}.bias": random_bits("F32", (2,), at + seed) for at in range(2000)},
        )
    with open_checkpoint("a.safetensors") as donor, open_checkpoint("b.safetensors") as recipient:
        chosen = plan((donor, recipient))
        assert chosen.variant is chosen.variant
        with open_checkpoint(transplant(chosen)) as written:
            assert contents(written) == contents(donor)
