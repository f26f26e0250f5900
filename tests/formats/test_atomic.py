"""Writing: a name holds the old content or the new, whatever happens; reading: a change is noticed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.errors import FileError
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.formats.atomic import atomic_file, refuse_existing, write_text
from ckptswap.transplant import plan_transplant, transplant

TARGETS = ["a.safetensors", "a.pt", "a.npz", "shards/", "a.safetensors.index.json"]


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_file_appears_whole_with_the_mode_of_any_new_file(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        assert not (tmp_path / "a").exists()
    (tmp_path / "b").touch()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failure_leaves_the_old_content_and_no_trace(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "a") as file:
        file.write(b"%d" % (1 // 0))
    assert (tmp_path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_is_in_the_way_is_refused(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileError, match="exists already"):
        refuse_existing(tmp_path / "a", force=False)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match="exists already"):
        refuse_existing(tmp_path / "dangling", force=False)
    with pytest.raises(FileError, match="is a folder"):
        refuse_existing(tmp_path, force=True)
    with pytest.raises(FileError, match="not a plain file"):
        refuse_existing(Path(os.devnull), force=True)
    with pytest.raises(FileError, match="there is no folder"):
        refuse_existing(tmp_path / "no" / "a", force=True)


@pytest.mark.parametrize("target", TARGETS)
def test_a_folder_that_cannot_be_written_to(target: str) -> None:
    with pytest.raises(FileError, match="could not be written"):
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1)}), f"/proc/{target}")


@pytest.mark.parametrize("target", ["a.safetensors", "a.pt", "a.npz", "shards/"])
@pytest.mark.parametrize("recipient", ["b.safetensors", "b/"])
def test_a_transplant_into_a_folder_that_cannot_be_written_to(target: str, recipient: str, tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(1)}), f"{tmp_path}/{recipient}")
    with open_checkpoint(path) as found, pytest.raises(FileError, match="could not be written"):
        transplant(plan_transplant(found, found), f"/proc/{target}")
    with pytest.raises(FileError, match="could not be written"):
        write_text("/proc/result.json", "{}")


@pytest.mark.parametrize("target", TARGETS)
def test_a_full_disk_leaves_nothing_behind(target: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk: both fail in write()."""
    code = (
        "import resource, signal, sys, numpy as np\n"
        "from ckptswap.checkpoint import Checkpoint\n"
        "from ckptswap.errors import FileError\n"
        "from ckptswap.formats import write_checkpoint\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "big = Checkpoint.from_arrays({'small': np.zeros(9), 'w': np.zeros(1_000_000)})\n"
        "try: write_checkpoint(big, sys.argv[1], shard_size=1000)\n"
        "except FileError as error: print(error)\n"
    )
    done = run(code, f"{tmp_path}/{target}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "could not be written (File too large): nothing was left behind" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["a.safetensors", "a.pt", "a.npz"])
def test_a_kill_while_writing_leaves_the_old_file(target: str, tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(3)}), tmp_path / target)
    code = (
        "import sys, time\n"
        "from ckptswap.checkpoint import Checkpoint, Tensor\n"
        "from ckptswap.formats import write_checkpoint\n"
        "class Slow:\n"
        "    def read_into(self, buffer, offset):\n"
        "        if offset: print('writing', flush=True); time.sleep(60)\n"
        "slow = Checkpoint([Tensor('w', (9_000_000,), 'F32', Slow())], path='', format='')\n"
        "write_checkpoint(slow, sys.argv[1], force=True)\n"
    )
    kill_when_it_says("writing", code, path)
    with open_checkpoint(path) as found:
        assert found.read("w").tolist() == [0, 1, 2]


def test_shards_never_take_the_place_of_others(tmp_path: Path) -> None:
    """Not even by force: killed halfway, the old index would open with some of the new values."""
    old = Checkpoint.from_arrays({"w": np.zeros(3), "v": np.zeros(3)})
    index = write_checkpoint(old, tmp_path / "a.safetensors.index.json", shard_size=20)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileError, match="shards replace nothing"):
        write_checkpoint(
            Checkpoint.from_arrays({"w": np.ones(3), "v": np.ones(3)}), index, force=True, shard_size=20
        )
    index.unlink()
    with pytest.raises(FileError, match=r"a-00001-of-00002\.safetensors exists already"):
        write_checkpoint(old, index, force=True, shard_size=20)
    before.pop(index)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("call", ["copy_file_range", "pwrite", "fsync", "replace", "link", "rename"])
@pytest.mark.parametrize("target", ["b.safetensors", "new.safetensors", "folder/"])
def test_a_kill_while_transplanting_leaves_the_old_file_or_the_new(call: str, target: str, tmp_path: Path) -> None:
    """Killed before each step that touches the disk: replacing the recipient, making a file, making a folder."""
    for name, value in (("a", 1.0), ("b", 2.0)):
        arrays = {"w": np.full(9000, value), "v": np.full(3, value)}
        write_checkpoint(Checkpoint.from_arrays(arrays), tmp_path / f"{name}.safetensors")
        write_checkpoint(Checkpoint.from_arrays(arrays), f"{tmp_path}/{name}/", shard_size=100)
    code = (
        "import os, sys, time\n"
        "from ckptswap.formats import open_checkpoint\n"
        "from ckptswap.selection import Selection\n"
        "from ckptswap.transplant import plan_transplant, transplant\n"
        "donor, recipient, target, call = sys.argv[1:]\n"
        "def stop(*arguments): print('there', flush=True); time.sleep(60)\n"
        "with open_checkpoint(donor) as a, open_checkpoint(recipient) as b:\n"
        "    plan = plan_transplant(a, b, Selection.exactly(['w']))\n"
        "    setattr(os, call, stop)\n"
        "    transplant(plan, target, force=True)\n"
        "    print('there', flush=True)\n"
    )
    sides = [tmp_path / side if target == "folder/" else tmp_path / f"{side}.safetensors" for side in "ab"]
    kill_when_it_says("there", code, *sides, f"{tmp_path}/{target}", call)
    with open_checkpoint(sides[1]) as recipient:
        old = recipient.read("w")[0] == 2.0
    assert old or target == "b.safetensors"
    if os.path.exists(tmp_path / target):
        with open_checkpoint(tmp_path / target) as found:
            values = (found.read("w").tolist(), found.read("v").tolist())
        assert values in (([1.0] * 9000, [2.0] * 3), ([2.0] * 9000, [2.0] * 3))


def kill_when_it_says(word: str, code: str, *arguments: object) -> None:
    """Run a program until it prints a word, and kill it there."""
    writer = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == f"{word}\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()


@pytest.mark.parametrize("target", ["a.safetensors", "a.pt", "a.npz"])
def test_a_source_that_changes_under_us_is_noticed(target: str, tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(1000)}), tmp_path / target)
    with open_checkpoint(path) as found:
        found.read("w")
        later = time.time_ns() + 10**9
        with open(path, "r+b") as file:
            file.seek(-3000, os.SEEK_END)
            file.write(b"\x01")
        os.utime(path, ns=(later, later))
        with pytest.raises(FileError, match="changed while it was being read"):
            found.read("w")


def test_a_source_that_is_cut_under_us_is_noticed(tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(1000)}), tmp_path / "a.safetensors")
    with open_checkpoint(path) as found:
        os.truncate(path, 500)
        with pytest.raises(FileError, match=r"ended at byte|changed"):
            found.read("w")


def test_a_source_that_is_replaced_under_us_stays_itself(tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(3)}), tmp_path / "a.safetensors")
    with open_checkpoint(path) as found:
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(3)}), path, force=True)
        assert found.read("w").tolist() == [0, 1, 2]


def test_a_closed_checkpoint_says_so(tmp_path: Path) -> None:
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(3)}), tmp_path / "a.safetensors")
    found = open_checkpoint(path)
    found.close()
    with pytest.raises(FileError, match="was it closed"):
        found.read("w")


def test_no_file_stays_open(tmp_path: Path) -> None:
    for target in TARGETS:
        path = write_checkpoint(Checkpoint.from_arrays({"w": np.arange(3)}), f"{tmp_path}/{target}")
        before = len(os.listdir("/proc/self/fd"))
        with open_checkpoint(path) as found:
            found.read("w")
        assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(FileError):
            open_checkpoint(tmp_path / "bad.pt")
    assert len(os.listdir("/proc/self/fd")) == before


# Who gets the name, and who may read it -------------------------------------------------------------------------


def test_of_two_that_begin_at_once_one_gets_the_name(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="exists already"), atomic_file(tmp_path / "a", force=False) as file:  # noqa: PT012
        file.write(b"second")
        write_text(tmp_path / "a", "first", force=False)
    assert (tmp_path / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_also_when_both_look_at_the_very_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last look, and before the name is taken."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        write_text(target, "first", force=False)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(FileError, match="exists already"):
        write_text(tmp_path / "a", "second", force=False)
    assert (tmp_path / "a").read_text() == "first"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_also_where_there_are_no_hard_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_text(tmp_path / "a", "first", force=False)
    assert (tmp_path / "a").read_text() == "first"
    with pytest.raises(FileError), atomic_file(tmp_path / "b", force=False):
        write_text(tmp_path / "b", "first", force=False)
    assert (tmp_path / "b").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("target", ["c.safetensors", "c.pt", "c.npz", "c/", "c.safetensors.index.json"])
@pytest.mark.parametrize("form", ["a.safetensors", "a/"])
def test_of_two_transplants_to_one_name_one_is_refused(target: str, form: str, tmp_path: Path) -> None:
    """Both have looked before either is done: the second one plans, and the first one writes."""
    path = write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(3), "v": np.zeros(2)}), f"{tmp_path}/{form}")
    done = threading.Event()

    def first(*_: object) -> None:
        if not done.is_set():
            done.set()
            with open_checkpoint(path) as a:
                transplant(plan_transplant(a, a), f"{tmp_path}/{target}")

    with open_checkpoint(path) as a, pytest.raises(FileError):
        transplant(plan_transplant(a, a), f"{tmp_path}/{target}", progress=first)
    assert done.is_set()
    with open_checkpoint(tmp_path / target) as found:
        assert list(found) == ["w", "v"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o664, 0o400])
def test_what_is_replaced_keeps_its_mode(mode: int, tmp_path: Path, umask: None) -> None:
    write_text(tmp_path / "a", "old")
    (tmp_path / "a").chmod(mode)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode
    checkpoint = Checkpoint.from_arrays({"w": np.zeros(1)})
    for name in ("a.safetensors", "a.pt", "a.npz"):
        path = write_checkpoint(checkpoint, tmp_path / name)
        assert path.stat().st_mode & 0o777 == 0o644
        path.chmod(mode)
        assert write_checkpoint(checkpoint, path, force=True).stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("private", ["a", "b"])
@pytest.mark.parametrize("form", ["safetensors", "npz", "shards"])
@pytest.mark.parametrize("target", ["c.safetensors", "c.pt", "c.npz", "c/"])
def test_what_is_made_of_a_private_file_is_private(
    private: str, form: str, target: str, tmp_path: Path, umask: None
) -> None:
    """As `cp` does: else a copy of what only its owner may read would be for everybody."""
    paths = {}
    for name in ("a", "b"):
        ending = "/" if form == "shards" else f".{form}"
        paths[name] = write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(3)}), f"{tmp_path}/{name}{ending}")
    kept = paths[private]
    for each in kept.iterdir() if kept.is_dir() else [kept]:
        each.chmod(0o600)
    with open_checkpoint(paths["a"]) as a, open_checkpoint(paths["b"]) as b:
        made = transplant(plan_transplant(a, b), f"{tmp_path}/{target}")
        copied = write_checkpoint(a if private == "a" else b, f"{tmp_path}/copy-{target}")
    for path in (made, copied):
        files = list(path.glob("*.safetensors")) if path.is_dir() else [path]
        assert files
        assert {each.stat().st_mode & 0o777 for each in files} == {0o600}


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"])
def test_a_checkpoint_takes_no_stream_s_place(name: str) -> None:
    with pytest.raises(FileError, match="is not a plain file"):
        write_checkpoint(Checkpoint.from_arrays({"w": np.zeros(3)}), name, force=True)
    assert not os.path.exists("-")
