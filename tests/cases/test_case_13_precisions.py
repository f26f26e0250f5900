"""Floats of two precisions are compared as doubles, and go into each other's place with --cast.

Relatives of the report's float32 and float16: bfloat16, float8, float64, complex, infinities that rounding
makes, integers (never), groups, a part of the way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cli_program import good, run, validate

import ckptswap as cs
from ckptswap.errors import MismatchError

RANDOM = np.random.default_rng(0)
SINGLE = {
    "0.weight": RANDOM.normal(size=(8, 3, 3, 3)).astype("f4"), "0.bias": RANDOM.normal(size=8).astype("f4"),
    "1.weight": np.ones(8, "f4"), "1.bias": np.zeros(8, "f4"), "1.num_batches_tracked": np.array(3),
}  # fmt: skip


def narrowed(dtype: Any) -> dict[str, np.ndarray]:
    return {name: value.astype(dtype) if value.dtype == "f4" else value for name, value in SINGLE.items()}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    cs.save(SINGLE, "fp32.safetensors")
    cs.save(narrowed(np.float16), "fp16.safetensors")
    return tmp_path


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float64])
def test_the_distance_is_that_of_doubles(dtype: Any) -> None:
    found = cs.diff(SINGLE, narrowed(dtype))
    assert found.summary["dtype"] == 4
    assert found.differs
    for row in found.rows:
        if row.status == "dtype":
            a, b = (side[row.name].astype(np.float64) for side in (SINGLE, narrowed(dtype)))
            assert row.changed == (a != b).sum()
            assert row.distance.max_abs == np.abs(a - b).max()
            norm = np.linalg.norm(a)
            assert row.distance.rel_l2 == (pytest.approx(np.linalg.norm(a - b) / norm) if norm else None)


def test_the_program_says_so(files: Path) -> None:
    done = good("diff", "fp32.safetensors", "fp16.safetensors", "--format", "json")
    validate("diff", done.json)
    rows = {row["name"]: row for row in done.json["rows"]}
    assert {row["status"] for row in rows.values()} == {"dtype", "identical"}
    assert 1e-4 < rows["0.weight"]["rel_l2"] < 3e-4
    assert (rows["1.weight"]["changed"], rows["1.weight"]["rel_l2"], rows["1.bias"]["rel_l2"]) == (0, 0, None)
    table = good("diff", "fp32.safetensors", "fp16.safetensors").out
    assert "0 tensors changed, 4 of another dtype, 1 identical" in table
    [grouped] = cs.diff("fp32.safetensors", "fp16.safetensors", kind="conv.weight").grouped(["kind"]).rows
    assert grouped.distance.rmse == rows["0.weight"]["rmse"]
    assert run("diff", "fp32.safetensors", "fp16.safetensors", "--exit-code").code == 1
    headers = good("diff", "fp32.safetensors", "fp16.safetensors", "--stat", "--format", "json").json
    assert {row["rmse"] for row in headers["rows"]} == {None}


def test_what_is_not_finite_is_counted() -> None:
    [row] = cs.diff({"w": np.float32([1e6, np.nan, 1])}, {"w": np.float16([np.inf, np.nan, 1])}).rows
    assert (row.status, row.distance.nan_a, row.distance.nan_b, row.distance.inf_b) == ("dtype", 1, 1, 1)
    assert row.distance.max_abs == 0


def test_complex_and_whole_numbers() -> None:
    [row] = cs.diff({"w": np.complex64([1 + 1j])}, {"w": np.complex128([1 + 2j])}).rows
    assert (row.status, row.distance.max_abs) == ("dtype", 1)
    for other in (np.int32([1]), np.array([True]), np.complex64([1])):
        [row] = cs.diff({"w": np.float32([1])}, {"w": other}).rows
        assert (row.status, row.distance) == ("dtype", None)
        with pytest.raises(MismatchError):
            cs.transplant({"w": other}, {"w": np.float32([1])}, cast=True)


def test_a_cast_is_asked_for_and_said(files: Path) -> None:
    given = ["transplant", "--from", "fp16.safetensors", "--to", "fp32.safetensors", "--kind", "conv.weight"]
    refused = run(*given, "-o", "out.safetensors")
    assert (refused.code, "--cast takes floats in the recipient's dtype" in refused.err) == (2, True)
    assert not Path("out.safetensors").exists()
    done = good(*given, "-o", "out.safetensors", "--cast")
    assert "taken in the recipient's dtype (F16 → F32): 0.weight" in done.err
    with cs.open("out.safetensors") as found:
        assert found["0.weight"].dtype == "F32"
        assert np.array_equal(found.read("0.weight"), narrowed("f2")["0.weight"].astype("f4"))
        assert json.loads(found.metadata["ckptswap.transplant"])["cast"] == {"0.weight": "F16 → F32"}
    assert "--cast" not in run("transplant", "--from", "fp16.safetensors", "--to", "fp32.safetensors",
                               "--only", "x*").err  # fmt: skip


def test_values_are_rounded_once() -> None:
    """Half a step of bf16, and a little: by way of single precision it would become an even one."""
    taken = cs.transplant({"w": np.array([1 + 2**-8 + 2**-40])}, {"w": np.zeros(1, ml_dtypes.bfloat16)}, cast=True)
    assert taken.read("w").item() == 1.0078125


def test_what_the_dtype_cannot_hold_is_said(files: Path) -> None:
    cs.save({**SINGLE, "0.bias": np.full(8, 1e6, "f4")}, "large.safetensors")
    done = good("transplant", "--from", "large.safetensors", "--to", "fp16.safetensors", "--cast", "-o", "o.npz")
    assert "8 values are beyond the recipient's dtype, and are finite no more: 0.bias (8)" in done.err


def test_a_part_of_the_way_and_an_empty_cast() -> None:
    half = cs.transplant({"w": np.float16([1])}, {"w": np.float32([0])}, cast=True, alpha=0.25)
    assert half.read("w").tolist() == [0.25]
    plain = cs.transplant({"w": np.float32([1])}, {"w": np.float32([0])}, cast=True)
    assert plain.read("w").tolist() == [1]
