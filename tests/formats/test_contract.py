"""What every format promises: exactly the bytes, names, shapes, dtypes, order and metadata that it was given."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from format_samples import ML, NAMES, PLAIN, arrays, convert, filled
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import CkptswapError, FileError, FormatError, UsageError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.verify import verify

TARGETS = {
    "c.safetensors": [*PLAIN, *ML],
    "c.pt": [*PLAIN, "C128", *ML],
    "c.npz": [*PLAIN, "C128"],
    "folder/": [*PLAIN, *ML],
    "c.safetensors.index.json": [*PLAIN, *ML],
}
EXPECTED = {
    "c.safetensors": "safetensors",
    "c.pt": "torch",
    "c.npz": "npz",
    "folder/": "sharded safetensors",
    "c.safetensors.index.json": "sharded safetensors",
}
TORCH = ["c.pt", "d.pth", "e.bin", "f.ckpt"]
METADATA = {"who": "ä \n\x1b[31m", "empty": ""}


def same(found: Checkpoint, wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        read = found.read(name)
        assert (read.shape, read.dtype) == (array.shape, array.dtype)
        assert read.tobytes() == array.tobytes()
        assert b"".join(part.tobytes() for part in found[name].chunks(7)) == array.tobytes()


@pytest.mark.parametrize("target", TARGETS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_round_trip_is_bit_for_bit(target: str, data: st.DataObject) -> None:
    names = st.one_of(st.sampled_from(NAMES), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
    given_names = names.filter(lambda name: "\x00" not in name and name != "__metadata__")
    wanted = data.draw(arrays(TARGETS[target], given_names))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint.from_arrays(wanted, metadata=METADATA)
        path = write_checkpoint(checkpoint, f"{folder}/{target}", shard_size=40)
        with open_checkpoint(path) as found:
            same(found, wanted)
            assert found.metadata == METADATA
            assert found.format == EXPECTED[target]


@pytest.mark.parametrize("target", TARGETS)
def test_every_dtype_and_three_thousand_tensors(target: str, tmp_path: Path) -> None:
    dtypes = TARGETS[target]
    wanted = {f"t.{at}": filled(dtypes[at % len(dtypes)], (at % 3, 2), at) for at in range(3000)}
    path = write_checkpoint(Checkpoint.from_arrays(wanted), f"{tmp_path}/{target}", shard_size=10_000)
    with open_checkpoint(path) as found:
        assert list(found) == list(wanted)
        for name in list(wanted)[::29]:
            assert found.read(name).tobytes() == wanted[name].tobytes()


def test_a_chain_of_conversions_changes_nothing(tmp_path: Path) -> None:
    wanted = {name: filled(PLAIN[at], (2, at), at) for at, name in enumerate(NAMES)}
    path = write_checkpoint(Checkpoint.from_arrays(wanted, metadata=METADATA), tmp_path / "a.safetensors")
    for target in TARGETS:
        path = convert(path, f"{tmp_path}/{target}", shard_size=50)
    with open_checkpoint(path) as found:
        same(found, wanted)
        assert found.metadata == METADATA


@pytest.mark.parametrize("name", TORCH)
def test_torch_reads_what_we_write(name: str, tmp_path: Path) -> None:
    import torch

    wanted = {each: filled(each, (3, 5), 1) for each in [*PLAIN, "C128", *ML]} | {"0": filled("F32", (), 0)}
    path = write_checkpoint(Checkpoint.from_arrays(wanted, metadata=METADATA), tmp_path / name)
    for mmap in (False, True):
        found = torch.load(path, weights_only=True, mmap=mmap)
        assert list(found) == list(wanted)
        for key, tensor in found.items():
            assert tuple(tensor.shape) == wanted[key].shape
            assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == wanted[key].tobytes()


def test_numpy_reads_what_we_write(tmp_path: Path) -> None:
    wanted = {each: filled(each, (3, 0, 5)[: at % 4], at) for at, each in enumerate(PLAIN)}
    path = write_checkpoint(Checkpoint.from_arrays(wanted, metadata=METADATA), tmp_path / "a.npz")
    with np.load(path) as found:
        assert {key: array.tobytes() for key, array in found.items()} == {
            key: array.tobytes() for key, array in wanted.items()
        }
        assert all(found[key].shape == wanted[key].shape for key in wanted)


def test_safetensors_reads_our_shards(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    wanted = {f"t{at}": filled("F32", (4,), at) for at in range(5)}
    write_checkpoint(Checkpoint.from_arrays(wanted), f"{tmp_path}/s/", shard_size=33)
    shards = sorted((tmp_path / "s").glob("*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-0000{at}-of-00003.safetensors" for at in (1, 2, 3)]
    found = {name: array for shard in shards for name, array in load_file(shard).items()}
    assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


@pytest.mark.parametrize(
    ("target", "arrays", "fault"),
    [
        ("a.npz", {"w": filled("BF16", (2,), 0)}, "numpy has no BF16"),
        ("a.npz", {"a\x00": filled("F32", (2,), 0)}, "no such name"),
        ("a.safetensors", {"w": filled("C128", (2,), 0)}, "no C128"),
        ("a.safetensors", {"__metadata__": filled("F32", (2,), 0)}, "__metadata__"),
        ("a.safetensors", {"\ud800": filled("F32", (2,), 0)}, "not Unicode"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written(
    target: str, arrays: dict, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=fault):
        write_checkpoint(Checkpoint.from_arrays(arrays), tmp_path / target)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.npz"):
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1)}), tmp_path / "a.docx")


def test_too_much_metadata_for_npz_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_arrays({"w": np.zeros(1)}, metadata={"a": "x" * 70_000})
    with pytest.raises(FormatError, match="no room"):
        write_checkpoint(checkpoint, tmp_path / "a.npz")


@pytest.mark.parametrize("target", TARGETS)
def test_an_existing_target_is_left_alone(target: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.from_arrays({"w": np.zeros(1)})
    write_checkpoint(checkpoint, f"{tmp_path}/{target}")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(FileError, match="exists already"):
        write_checkpoint(checkpoint, f"{tmp_path}/{target}")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("target", TARGETS)
def test_verify_finds_nothing_in_a_sound_file_and_counts_what_is_not_finite(target: str, tmp_path: Path) -> None:
    sound = Checkpoint.from_arrays({"w": np.arange(6, dtype=np.float32), "n": np.arange(3)})
    assert verify(write_checkpoint(sound, f"{tmp_path}/sound-{target}")).ok
    bad = Checkpoint.from_arrays({"w\n": np.array([np.nan, -np.inf, 1], np.float32)})
    report = verify(write_checkpoint(bad, f"{tmp_path}/bad-{target}"))
    assert [finding.text for finding in report.findings] == [
        "its name has control characters",
        "1 NaN and 1 infinite of 3 in all",
    ]


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    checkpoint = Checkpoint.from_arrays({"w": np.zeros(1000), "v": np.zeros(3)})
    path = write_checkpoint(checkpoint, tmp_path / "a.pt", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (8024, 8024)
    seen.clear()
    assert verify(path, lambda done, total: seen.append((done, total))).ok
    assert 0 < seen[-1][0] <= seen[-1][1]


def test_no_format_of_one_file_loads_torch(tmp_path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(2, 3).t()}, tmp_path / "z.pt")
    torch.save({"w": torch.zeros(2)}, tmp_path / "l.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "n.npz", w=np.zeros(2))
    write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(2)}), tmp_path / "s.safetensors")
    code = (
        "import sys; from pathlib import Path; from ckptswap.formats import open_checkpoint\n"
        "for path in Path(sys.argv[1]).iterdir(): open_checkpoint(path).read('w')\n"
        "assert not {'torch', 'ml_dtypes', 'segmentation_models_pytorch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_memory_stays_flat(tmp_path: Path) -> None:
    """200 MB written, converted to torch and verified, in less than half of that above the imports."""
    code = (
        "import resource, sys, numpy as np\n"
        "from ckptswap.checkpoint import Checkpoint, Tensor\n"
        "from ckptswap.formats import open_checkpoint, write_checkpoint\n"
        "from ckptswap.verify import verify\n"
        "class Ones:\n"
        "    def read_into(self, buffer, offset): buffer[:] = bytes(len(buffer))\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "big = Checkpoint([Tensor('w', (5000, 10000), 'F32', Ones())], path='', format='')\n"
        "folder = sys.argv[1]\n"
        "path = write_checkpoint(big, folder + '/a.safetensors')\n"
        "with open_checkpoint(path) as opened: path = write_checkpoint(opened, folder + '/a.pt')\n"
        "assert verify(path).ok\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60


def test_errors_are_ours_alone() -> None:
    with pytest.raises(CkptswapError, match="does not exist"):
        open_checkpoint("no/such/file")
    with pytest.raises(CkptswapError):
        open_checkpoint("a\x00b")
    with pytest.raises(CkptswapError):
        open_checkpoint("x" * 5000)
    with pytest.raises(CkptswapError):
        open_checkpoint(os.devnull)
