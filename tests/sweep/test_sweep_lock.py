"""One sweep at a time on a run folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptswap.errors import RunError
from ckptswap.sweep.run_folder import lock as lock_module
from ckptswap.sweep.run_folder.lock import DEAD, Lock, is_held
from ckptswap.sweep.run_folder.plain import LOCK
from ckptswap.sweep.run_folder.sealed import sealed, unsealed


def held_by(folder: Path, *, age: float = 0.0, **holder: object) -> Path:
    """A lock that somebody else left, touched so many seconds ago."""
    path = folder / LOCK
    path.write_text(sealed({"token": "theirs", **holder}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_it_is_held_within_the_block_and_leaves_nothing(tmp_path: Path) -> None:
    with Lock(tmp_path / "run") as lock:
        assert is_held(tmp_path / "run")
        with pytest.raises(RunError, match=f"worked on by process {os.getpid()} on .*another --run"):
            Lock(tmp_path / "run").__enter__()
        lock.check()
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    assert not is_held(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_holder_elsewhere_is_alive_while_it_touches_the_file(tmp_path: Path) -> None:
    held_by(tmp_path, host="elsewhere 1", pid=7, process="1", age=DEAD / 2)
    with pytest.raises(RunError, match="process 7 on elsewhere"):
        Lock(tmp_path).__enter__()
    held_by(tmp_path, host="elsewhere 1", pid=7, process="1", age=DEAD + 5)
    assert not is_held(tmp_path)
    with Lock(tmp_path):
        assert is_held(tmp_path)


def test_a_dead_process_of_this_machine_is_found_out_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ckptswap.sweep.run_folder.lock import Lock;"
        "Lock(Path(sys.argv[1])).__enter__(); import os; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / LOCK).exists()
    with Lock(tmp_path):
        pass


def test_another_process_with_the_number_of_a_dead_one_is_another(tmp_path: Path) -> None:
    with Lock(tmp_path):
        mine = unsealed((tmp_path / LOCK).read_bytes())
    held_by(tmp_path, **{**mine, "process": "1", "token": "theirs"})
    with Lock(tmp_path):
        pass


def test_a_damaged_lock_counts_as_long_as_it_is_new(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{")
    with pytest.raises(RunError, match="worked on by somebody unknown"):
        Lock(tmp_path).__enter__()
    os.utime(tmp_path / LOCK, (0, 0))
    with Lock(tmp_path):
        pass


def test_who_was_held_for_dead_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT", 0.01)
    with Lock(tmp_path) as lock:
        held_by(tmp_path, host="elsewhere 1", pid=7)
        end = time.monotonic() + 60
        while not lock.is_lost:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(RunError, match="another sweep has taken over"):
            lock.check()
    assert (tmp_path / LOCK).exists(), "it is theirs"


def test_it_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "BEAT", 0.01)
    with Lock(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        end = time.monotonic() + 60
        while not (tmp_path / LOCK).stat().st_mtime:
            assert time.monotonic() < end
            time.sleep(0.01)
