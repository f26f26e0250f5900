"""Where compiled loops come from, and that nothing is lost where they cannot come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from core_samples import changed_bits, random_bits

from ckptswap import kernels
from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import distances
from ckptswap.kernels import machine_code

LOOP = machine_code.Loop("agreement", "int8", "int8", sizes=3)
GIGABYTE = 1 << 30


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, in which what is made is not machine code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(machine_code, "_object_code", lambda loop: b"code")
    kernels._made.cache_clear()
    yield tmp_path
    kernels._made.cache_clear()


def test_code_is_kept_for_the_next_process(cache: Path) -> None:
    assert not machine_code.is_kept(LOOP)
    assert machine_code._compiled(LOOP) == b"code"
    assert machine_code.is_kept(LOOP)
    assert machine_code._kept(LOOP) == b"code"
    (file,) = cache.rglob("*.o")
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("what", ["cut short", "another byte", "writable by all"])
def test_code_that_is_not_whole_or_not_ours_is_not_run(cache: Path, what: str) -> None:
    machine_code._compiled(LOOP)
    (file,) = cache.rglob("*.o")
    raw = file.read_bytes()
    if what == "writable by all":
        file.chmod(0o666)
    else:
        file.write_bytes(raw[:-1] if what == "cut short" else raw[:-1] + b"!")
    assert machine_code._kept(LOOP) is None


def test_a_cache_that_cannot_be_written_costs_only_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    assert machine_code._compiled(LOOP) == b"code"
    assert not machine_code.is_kept(LOOP)


def test_a_compiler_that_fails_leaves_numpy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(loop: machine_code.Loop) -> bytes:
        raise RuntimeError("no such processor\nand more")

    monkeypatch.setattr(machine_code, "_object_code", fails)
    assert kernels.kernel("F32", GIGABYTE) is None
    assert kernels.made_by() == "numpy (numba fails with RuntimeError: no such processor)"


def test_without_numba_it_is_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "is_there", lambda: False)
    assert kernels.kernel("F32", GIGABYTE) is None
    assert kernels.made_by() == "numpy (numba is not installed)"


def test_little_is_not_worth_a_compiler(cache: Path) -> None:
    """What is kept is loaded from some size on, and what is not compiled from a larger one on."""
    assert kernels.kernel("F32", kernels.WORTH_COMPILING - 1) is None
    assert not list(cache.rglob("*.o"))
    assert kernels.kernel("C64", GIGABYTE) is None
    assert kernels.kernel("F4", GIGABYTE) is None


def test_a_diff_by_compiled_loops_is_the_same_whoever_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few threads or many: the same bits; and numpy's numbers, of several dtypes in one checkpoint."""
    pytest.importorskip("numba")
    sides: list[dict[str, np.ndarray]] = [{}, {}]
    for at, dtype in enumerate(["F32", "BF16", "I8", "C64"]):
        sides[0][dtype] = random_bits(dtype, (50_000,), at)
        sides[1][dtype] = changed_bits(sides[0][dtype], at, 1.0)
        sides[0][f"{dtype} in part"] = random_bits(dtype, (50_000,), at)
        sides[1][f"{dtype} in part"] = np.concatenate([sides[0][dtype][:40_000], sides[1][dtype][40_000:]])
    a, b = map(Checkpoint.from_arrays, sides)
    pairs = [(a[name], b[name]) for name in a]
    monkeypatch.setattr("ckptswap.diff.READ", 1 << 13)
    monkeypatch.setattr("ckptswap.diff.BLOCK", 1 << 16)
    plain = [distance for _, distance in distances(pairs)]
    monkeypatch.setattr(kernels, "WORTH_LOADING", 1)
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 1)
    compiled = [[repr(found) for found in distances(pairs, threads=many)] for many in (1, 3)]
    assert compiled[0] == compiled[1]
    for (_, found), wanted in zip(distances(pairs), plain, strict=True):
        assert found.square == pytest.approx(wanted.square, rel=1e-12)
        assert (found.count, found.changed, found.largest) == (wanted.count, wanted.changed, wanted.largest)
    assert {dtype for dtype in ("F32", "BF16", "I8", "C64") if kernels.kernel(dtype, 1)} == {"F32", "BF16", "I8"}
