"""The journal: exact, append-only, torn at the end at worst, and honest about damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptswap.errors import RunError
from ckptswap.sweep.journal import (
    JOURNAL,
    PLAN,
    Journal,
    Record,
    decode,
    encode,
    prepare,
    read_plan,
    read_records,
)

KEY = {"donor": "1" * 64, "threads": 1, "task": {"model": "smp:Unet", "limit": None}}


def record(variant: str, value: float = 0.1) -> Record:
    return Record(variant, {"iou": np.array([[value], [1 / 3]]), "dice:pooled": np.arange(4.0).reshape(2, 2)})


def filled(folder: Path, count: int = 3) -> Path:
    prepare(folder, {"key": KEY})
    with Journal(folder) as journal:
        for at in range(count):
            journal.append(record(f"v{at}", at / 7))
    return folder / JOURNAL


def same(a: Record, b: Record) -> bool:
    return (
        (a.variant, a.nonfinite, a.failed) == (b.variant, b.nonfinite, b.failed)
        and a.statistics.keys() == b.statistics.keys()
        and all(a.statistics[name].tobytes() == b.statistics[name].tobytes() for name in a.statistics)
    )


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2)), st.none() | st.text())
def test_a_line_gives_back_every_bit(values: np.ndarray, failed: str | None) -> None:
    before = Record("v", {"metric": values}, 3, failed)
    line = encode(before)
    assert line.count(b"\n") == 1
    assert json.loads(line)["record"]["variant"] == "v"
    assert same(decode(line), before)


def test_every_flipped_bit_is_noticed() -> None:
    line = bytearray(encode(record("v")))
    for at in range(len(line)):
        for bit in (0, 5, 7):
            line[at] ^= 1 << bit
            with pytest.raises(ValueError, match=r"checksum|codec"):
                decode(bytes(line))
            line[at] ^= 1 << bit


def test_records_come_back_in_order_and_the_last_of_a_variant_counts(tmp_path: Path) -> None:
    path = filled(tmp_path)
    with Journal(tmp_path) as journal:
        assert list(journal.records) == ["v0", "v1", "v2"]
        journal.append(record("v1", 0.5))
    records, size = read_records(path)
    assert same(records["v1"], record("v1", 0.5))
    assert size == path.stat().st_size


def test_torn_at_every_byte_of_its_last_line(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = path.read_bytes()
    start = content.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(content)):
        path.write_bytes(content[:end])
        assert list(read_records(path)[0]) == ["v0", "v1"]
    with Journal(tmp_path) as journal:
        journal.append(record("v2", 2 / 7))
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_broken_line_is_named(tmp_path: Path, line: int) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    starts = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    content[starts[line - 1] + 60] ^= 4
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"line {line} of .*journal.jsonl is damaged.*--fresh"):
        Journal(tmp_path)


def test_a_lost_line_feed_is_damage_too(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"", 1))
    with pytest.raises(RunError, match="line 1"):
        read_records(path)


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert read_records(tmp_path / JOURNAL) == ({}, 0)


def test_the_plan_is_written_before_any_work_and_rewritten(tmp_path: Path) -> None:
    prepare(tmp_path / "new" / "run", {"key": KEY, "plan": 1})
    filled(tmp_path / "new" / "run")
    prepare(tmp_path / "new" / "run", {"key": KEY, "plan": 2})
    assert read_plan(tmp_path / "new" / "run")["plan"] == 2
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == [JOURNAL, PLAN]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"threads": 2}, "threads was 1, is 2"),
        ({"donor": "2" * 64}, "donor changed"),
        ({"task": {"model": "smp:Unet", "limit": 4}}, r"task \(limit was None, is 4\)"),
        ({"dtype": "bf16"}, "dtype was None, is bf16"),
    ],
)
def test_another_key_is_refused_by_part(tmp_path: Path, changed: dict, words: str) -> None:
    path = filled(tmp_path)
    before = path.read_bytes(), (tmp_path / PLAN).read_bytes()
    with pytest.raises(RunError, match=f"under other conditions: {words}.*--fresh"):
        prepare(tmp_path, {"key": KEY | changed})
    assert (path.read_bytes(), (tmp_path / PLAN).read_bytes()) == before


def test_conditions_may_change_while_nothing_is_scored(tmp_path: Path) -> None:
    filled(tmp_path, count=0)
    prepare(tmp_path, {"key": KEY | {"threads": 2}})
    assert read_plan(tmp_path)["key"]["threads"] == 2


def test_fresh_sets_journals_aside_and_keeps_them(tmp_path: Path) -> None:
    first = filled(tmp_path).read_bytes()
    prepare(tmp_path, {"key": KEY | {"threads": 2}}, fresh=True)
    assert not (tmp_path / JOURNAL).exists()
    with Journal(tmp_path) as journal:
        journal.append(record("second"))
    prepare(tmp_path, {"key": KEY}, fresh=True)
    assert (tmp_path / "journal.1.jsonl").read_bytes() == first
    assert list(read_records(tmp_path / "journal.2.jsonl")[0]) == ["second"]
    assert read_plan(tmp_path)["key"] == KEY


def test_a_journal_without_plan_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / PLAN).unlink()
    with pytest.raises(RunError, match=r"has a journal but no plan\.json"):
        prepare(tmp_path, {"key": KEY})


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "other"}', "{", "\x00"])
def test_somebody_elses_plan_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(RunError, match="is no sweep's plan"):
        read_plan(tmp_path)
    with pytest.raises(RunError, match="is no sweep's plan"):
        prepare(tmp_path, {"key": KEY})
    assert (tmp_path / PLAN).read_text() == content


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no sweep"):
        read_plan(tmp_path / "nowhere")


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make"):
        prepare(tmp_path / "file" / "run", {"key": KEY})
