"""The journal: exact, append-only, torn at the end at worst, and honest about damage."""

from __future__ import annotations

import errno
import json
import os
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sweeping import run_plan

from ckptswap.errors import RunError
from ckptswap.scoring.scorer import Block
from ckptswap.sweep.run_folder import journal as journal_module
from ckptswap.sweep.run_folder.blocks import Blocks
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import (
    Journal,
    decode,
    encode,
    journal_files,
    key_of,
    read_blocks,
    repair,
    set_aside,
)
from ckptswap.sweep.run_folder.plain import JOURNAL
from ckptswap.sweep.run_folder.sealed import sealed

PLAN = "plan.json"
KEY = {"donor": "1" * 64, "threads": 1, "task": {"model": "smp:Unet", "limit": None}}
HASH = key_of(KEY)
NANS = np.array([0x7FF8000000000001, 0xFFF8DEADBEEF0000, 0x7FF0000000000000, 0xFFF0000000000000], "<u8").view(
    "<f8"
)


def block(variant: str, batch: int = 0, value: float = 0.1, engine: str = "full") -> Block:
    return Block(
        variant,
        batch,
        {"iou": np.array([[value], [1 / 3]]), "dice:pooled": np.arange(4.0).reshape(2, 2)},
        engine=engine,
    )


def failing(variant: str, batch: int = 0, reason: str = "it broke", engine: str = "full") -> Block:
    return Block(variant, batch, {}, reason, engine)


def filled(folder: Path, count: int = 3, writer: str = "main") -> Path:
    """A prepared folder with `count` blocks; the journal's file."""
    RunFolder(folder).begin(run_plan(KEY))
    with Journal(folder, HASH, writer) as journal:
        for at in range(count):
            journal.append(block(f"v{at}", at, at / 7))
    return journal.path


def same(a: Block, b: Block) -> bool:
    return (
        (a.variant, a.batch, a.failed, a.engine) == (b.variant, b.batch, b.failed, b.engine)
        and list(a.statistics) == list(b.statistics)
        and all(a.statistics[name].tobytes() == b.statistics[name].tobytes() for name in a.statistics)
        and all(a.statistics[name].shape == b.statistics[name].shape for name in a.statistics)
    )


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


# A line ---------------------------------------------------------------------------------------------------------

values = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 5), st.integers(1, 3)),
    elements=st.sampled_from([*NANS.tolist(), -0.0, 5e-324, 1.7976931348623157e308]) | st.floats(width=64),
)
statistics = st.dictionaries(st.text(), values, max_size=3)
blocks = st.builds(
    Block,
    st.text(),
    st.integers(0, 10**9),
    statistics,
    st.none() | st.text(),
    st.sampled_from(["full", "replay"]),
)


@given(blocks)
def test_a_line_gives_back_every_bit(before: Block) -> None:
    line = encode(before)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()
    assert same(decode(line), before)


def test_nan_payloads_come_back() -> None:
    before = Block("v", 0, {"m": NANS[:, None]})
    assert decode(encode(before)).statistics["m"].tobytes() == NANS.tobytes()


def test_every_flipped_bit_is_noticed() -> None:
    line = bytearray(encode(block("v")))
    for at in range(len(line)):
        for bit in range(8):
            line[at] ^= 1 << bit
            with pytest.raises(ValueError, match="checksum"):
                decode(bytes(line))
            line[at] ^= 1 << bit


# A file ---------------------------------------------------------------------------------------------------------


def test_blocks_come_back(tmp_path: Path) -> None:
    filled(tmp_path)
    with Journal(tmp_path, HASH) as journal:
        assert list(journal.blocks) == [("v0", 0), ("v1", 1), ("v2", 2)]
        journal.append(block("v1", 1, 0.5))
        assert same(journal.blocks["v1", 1], block("v1", 1, 0.5))
    found = read_blocks(tmp_path, key=HASH)
    assert list(found) == [("v0", 0), ("v1", 1), ("v2", 2)]
    assert same(found["v1", 1], block("v1", 1, 0.5)), "of two that are as good, the last"
    assert not found.lacks("v0", 0)
    assert found.lacks("v0", 1)


@pytest.mark.parametrize("count", [0, 3])
def test_torn_at_every_byte_of_its_last_line(tmp_path: Path, count: int) -> None:
    """Of the first line, too: what is continued can be read again."""
    path = filled(tmp_path, count)
    content = path.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for end in range(start, len(content)):
        path.write_bytes(content[:end])
        assert len(read_blocks(tmp_path, key=HASH)) == max(count - 1, 0)
        with Journal(tmp_path, HASH) as journal:
            if count:
                journal.append(block("v2", 2, 2 / 7))
        assert path.read_bytes() == content, end


def test_a_flipped_bit_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    starts = [0, *(at + 1 for at, byte in enumerate(content) if byte == 10)]
    for line, (start, end) in enumerate(pairwise(starts), start=1):
        for at in range(start, end - 1, 7):
            content[at] ^= 4
            path.write_bytes(content)
            with pytest.raises(RunError, match=rf"line {line} of .*main\.jsonl is damaged"):
                read_blocks(tmp_path, key=HASH)
            with pytest.raises(RunError, match=rf"line {line} of .*--fresh"):
                Journal(tmp_path, HASH)
            content[at] ^= 4
    path.write_bytes(content)
    assert len(read_blocks(tmp_path, key=HASH)) == 3


def test_a_lost_line_feed_is_damage_too(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"\n", b"", 1))
    with pytest.raises(RunError, match="line 1"):
        read_blocks(tmp_path, key=HASH)


def test_a_missing_folder_is_an_empty_journal(tmp_path: Path) -> None:
    assert read_blocks(tmp_path / "nowhere", key=HASH) == {}
    assert journal_files(tmp_path / "nowhere") == []
    RunFolder(tmp_path / "nowhere").check_conditions(KEY)
    assert list(tmp_path.iterdir()) == []


def test_another_key_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path)
    before = path.read_bytes()
    for open_it in (read_blocks, Journal):
        with pytest.raises(RunError, match=r"main\.jsonl was made under other conditions: --fresh"):
            open_it(tmp_path, key="another")
    assert path.read_bytes() == before


def test_a_thousand_variants_on_two_hundred_batches(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    with Journal(tmp_path, HASH) as journal:
        start = journal.path.read_bytes()
    parts = [encode(Block(f"{at:016x}", 0, {"iou": np.full((8, 1), at / 7)})) for at in range(1000)]
    contents = [json.loads(part[9:]) for part in parts]
    written = [
        journal_module._line([content[0], batch, *content[2:]]) for batch in range(200) for content in contents
    ]
    journal.path.write_bytes(start + b"".join(written))
    found = read_blocks(tmp_path, key=HASH)
    assert len(found) == 200_000
    assert found[f"{999:016x}", 199].statistics["iou"].tolist() == [[999 / 7]] * 8


# Repair ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [[2], [3], [2, 4], [4]])
def test_repair_leaves_broken_lines_out_and_keeps_the_old_file(tmp_path: Path, broken: list[int]) -> None:
    path = filled(tmp_path)
    lines = [bytearray(line) for line in lines_of(path)]
    for number in broken:
        lines[number - 1][60] ^= 4
    path.write_bytes(b"".join(lines))
    [said] = repair(tmp_path)
    left_out = "1 damaged line" if len(broken) == 1 else "2 damaged lines"
    assert said == f"{path}: left out {left_out} ({', '.join(map(str, broken))})"
    assert path.with_name("main.jsonl.damaged").read_bytes() == b"".join(lines)
    kept = [("v0", 0), ("v1", 1), ("v2", 2)]
    assert list(read_blocks(tmp_path, key=HASH)) == [each for at, each in enumerate(kept) if at + 2 not in broken]
    with Journal(tmp_path, HASH) as journal:
        for number in broken:
            assert journal.blocks.lacks(*kept[number - 2])
            journal.append(block(*kept[number - 2]))
    assert sorted(read_blocks(tmp_path, key=HASH)) == kept
    assert repair(tmp_path) == []


def test_repair_of_a_broken_head_sets_the_file_aside(tmp_path: Path) -> None:
    path, other = filled(tmp_path), filled(tmp_path, writer="other")
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert len(repair(tmp_path)) == 1
    assert journal_files(tmp_path) == [other]
    assert path.with_name("main.jsonl.damaged").read_bytes() == content


@pytest.mark.parametrize("cut", [None, 5, 40])
def test_repair_leaves_what_is_sound_alone(tmp_path: Path, cut: int | None) -> None:
    """A torn end is nothing to repair."""
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[: -cut if cut else None])
    before = path.read_bytes()
    assert repair(tmp_path) == []
    assert path.read_bytes() == before
    assert repair(tmp_path / "nowhere") == []


def test_a_second_repair_keeps_the_first_ones_file(tmp_path: Path) -> None:
    path = filled(tmp_path)
    kept = []
    for _ in range(2):
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        kept.append(bytes(content))
        repair(tmp_path)
    damaged = sorted(each.read_bytes() for each in path.parent.iterdir() if each != path)
    assert damaged == sorted(kept)


# Several writers ------------------------------------------------------------------------------------------------


def test_two_writers_files_are_merged(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    with Journal(tmp_path, HASH, "one") as one, Journal(tmp_path, HASH, "two") as two:
        one.append(block("v", 0))
        two.append(block("v", 1))
        two.append(block("w", 0))
    assert journal_files(tmp_path) == [one.path, two.path]
    assert sorted(read_blocks(tmp_path, key=HASH)) == [("v", 0), ("v", 1), ("w", 0)]
    with pytest.raises(RunError, match=r"one\.jsonl was made under other conditions"):
        read_blocks(tmp_path, key="another")


BEST_FIRST = [
    block("v", 0, 0.1, "full"),
    block("v", 0, 0.2, "replay"),
    failing("v", 0, "in full", "full"),
    failing("v", 0, "in a replay", "replay"),
]


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_the_better_block_wins_whatever_the_order(order: tuple[int, ...]) -> None:
    """A score rather than a failure, a full pass rather than a replay."""
    for count in range(1, 5):
        found = Blocks()
        for at in order[:count]:
            found.put(BEST_FIRST[at])
        assert same(found["v", 0], BEST_FIRST[min(order[:count])])
        assert found.lacks("v", 0) == (min(order[:count]) > 1)


def test_a_better_block_of_another_writer_wins_on_disk(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    with Journal(tmp_path, HASH, "a") as first, Journal(tmp_path, HASH, "b") as second:
        first.append(BEST_FIRST[0])
        second.append(BEST_FIRST[3])
        second.append(BEST_FIRST[1])
    assert same(read_blocks(tmp_path, key=HASH)["v", 0], BEST_FIRST[0])


@pytest.mark.parametrize("writer", ["a", "b", "c"])
def test_distrust_outlives_the_writer_and_covers_every_file(tmp_path: Path, writer: str) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    with Journal(tmp_path, HASH, "b") as journal:
        journal.append(block("replayed", engine="replay"))
        journal.append(block("full"))
    with Journal(tmp_path, HASH, writer) as journal:
        assert not journal.blocks.distrusted
        journal.distrust()
        journal.append(block("late", engine="replay"))
        journal.append(block("full", 1))
        assert list(journal.blocks) == [("full", 0), ("full", 1)]
    found = read_blocks(tmp_path, key=HASH)
    assert found.distrusted
    assert sorted(found) == [("full", 0), ("full", 1)]
    assert found.lacks("replayed", 0)


# A full disk ----------------------------------------------------------------------------------------------------


class Full:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: object, room: int) -> None:
        self._file, self._room = file, room

    def write(self, line: memoryview) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self._file.write(line[: self._room])  # type: ignore[attr-defined]
        self._room -= written
        return written

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk_is_said_and_the_journal_continues(tmp_path: Path, room: int) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    with Journal(tmp_path, HASH) as journal:
        journal.append(block("v0"))
        journal._file = Full(journal._file, room)  # type: ignore[assignment]
        with pytest.raises(RunError, match=r"cannot write .*main\.jsonl: No space left on device: free space"):
            journal.append(block("v1"))
        assert list(journal.blocks) == [("v0", 0)], "what is not on disk is not known"
    assert list(read_blocks(tmp_path, key=HASH)) == [("v0", 0)]
    with Journal(tmp_path, HASH) as journal:
        journal.append(block("v1"))
    assert list(read_blocks(tmp_path, key=HASH)) == [("v0", 0), ("v1", 0)]


def test_short_writes_are_carried_on(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))

    class Slow(Full):
        def write(self, line: memoryview) -> int:
            return super().write(line[:3])

    with Journal(tmp_path, HASH) as journal:
        journal._file = Slow(journal._file, 10**9)  # type: ignore[assignment]
        journal.append(block("v"))
    assert same(read_blocks(tmp_path, key=HASH)["v", 0], block("v"))


def test_what_was_written_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the latest when it is a second old and the next block comes, and at the end."""
    now, synced = [0.0], []
    monkeypatch.setattr(journal_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(journal_module.os, "fsync", lambda number: synced.append(now[0]))
    RunFolder(tmp_path).begin(run_plan(KEY))
    synced.clear()
    with Journal(tmp_path, HASH) as journal:
        for now[0] in (0.5, 1.5, 2.0, 3.0):
            journal.append(block("v"))
    assert synced == [1.5, 3.0, 3.0]


def test_a_sync_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)

    def fail(number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal(tmp_path, HASH)
    monkeypatch.setattr(journal_module.os, "fsync", fail)
    with pytest.raises(RunError, match="Input/output error"), journal:
        pass
    assert journal._file.closed


# The folder -----------------------------------------------------------------------------------------------------


def test_the_plan_is_written_before_any_work_and_rewritten(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    RunFolder(folder).begin(run_plan(KEY, layers=("a",)))
    assert RunFolder(folder).read_plan().layers == ("a",)
    filled(folder)
    RunFolder(folder).begin(run_plan(KEY, layers=("b",)))
    assert RunFolder(folder).read_plan().layers == ("b",)
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL, PLAN]


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
    for look in (
        lambda: RunFolder(tmp_path).begin(run_plan(KEY | changed)),
        lambda: RunFolder(tmp_path).check_conditions(KEY | changed),
    ):
        with pytest.raises(RunError, match=f"under other conditions: {words}.*--fresh"):
            look()
    assert (path.read_bytes(), (tmp_path / PLAN).read_bytes()) == before


def test_conditions_are_compared_as_json_has_them(tmp_path: Path) -> None:
    filled(tmp_path)
    RunFolder(tmp_path).check_conditions({**KEY, "task": {"limit": None, "model": "smp:Unet"}})
    RunFolder(tmp_path).begin(run_plan({**KEY, "args": (1, 2)}), fresh=True)
    RunFolder(tmp_path).check_conditions({**KEY, "args": [1, 2]})


def test_conditions_may_change_while_nothing_is_scored(tmp_path: Path) -> None:
    RunFolder(tmp_path).begin(run_plan(KEY))
    RunFolder(tmp_path).begin(run_plan(KEY | {"threads": 2}))
    assert RunFolder(tmp_path).read_plan().key["threads"] == 2


def test_fresh_sets_journals_aside_and_keeps_them(tmp_path: Path) -> None:
    first = filled(tmp_path).read_bytes()
    RunFolder(tmp_path).begin(run_plan(KEY | {"threads": 2}), fresh=True)
    assert not (tmp_path / JOURNAL).exists()
    with Journal(tmp_path, key_of(KEY | {"threads": 2})) as journal:
        journal.append(block("second"))
    RunFolder(tmp_path).begin(run_plan(KEY), fresh=True)
    assert (tmp_path / "journal.1" / "main.jsonl").read_bytes() == first
    assert (tmp_path / "journal.2" / "main.jsonl").exists()
    assert RunFolder(tmp_path).read_plan().key == KEY
    assert read_blocks(tmp_path, key=HASH) == {}


def test_setting_nothing_aside(tmp_path: Path) -> None:
    set_aside(tmp_path / JOURNAL)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_without_plan_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / PLAN).unlink()
    with pytest.raises(RunError, match=r"has a journal but no plan\.json"):
        RunFolder(tmp_path).begin(run_plan(KEY))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "other"}', "{", "\x00", sealed({}), sealed({"schema": "other"})]
)
def test_somebody_elses_plan_is_refused(tmp_path: Path, content: str) -> None:
    filled(tmp_path)
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(RunError, match=r"or no sweep's plan"):
        RunFolder(tmp_path).read_plan()
    with pytest.raises(RunError, match=r"or no sweep's plan"):
        RunFolder(tmp_path).begin(run_plan(KEY))
    assert (tmp_path / PLAN).read_text() == content


@pytest.mark.parametrize("write", [json.dumps, sealed])
@pytest.mark.parametrize("schema", ["ckptswap.run/1", "ckptswap.run/2", "ckptswap.run/3"])
def test_an_earlier_versions_plan_is_told_from_a_damaged_one(tmp_path: Path, schema: str, write) -> None:
    (tmp_path / PLAN).write_text(write({"schema": schema, "key": KEY}))
    with pytest.raises(RunError, match="by an earlier version of ckptswap: sweep again"):
        RunFolder(tmp_path).read_plan()


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no sweep"):
        RunFolder(tmp_path / "nowhere").read_plan()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make"):
        RunFolder(tmp_path / "file" / "run").begin(run_plan(KEY))
    RunFolder(tmp_path / "run").begin(run_plan(KEY))
    (tmp_path / "run" / JOURNAL).write_text("")
    with pytest.raises(RunError, match=r"journal is not a plain folder"):
        Journal(tmp_path / "run", HASH)
