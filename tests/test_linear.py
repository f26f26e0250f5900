"""Work that grows with the number of tensors, and no faster: calls are counted, of Python's functions and of C's.

Ten times the tensors may take little more than ten times the calls. A square would take a hundred times.
"""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from ckptswap.checkpoint import Checkpoint
from ckptswap.diff import diff
from ckptswap.errors import ALIGNED_MOST, near
from ckptswap.formats import open_checkpoint, write_checkpoint
from ckptswap.renaming import Rule, matched
from ckptswap.report.checkpoint import show_csv, show_json, show_md, show_table
from ckptswap.report.diff import diff_csv, diff_json, diff_md, diff_table, threeway_json, threeway_table
from ckptswap.report.text import Style, dump_json
from ckptswap.selection import Selection
from ckptswap.threeway import three_way
from ckptswap.transplant import left_behind, plan_transplant, transplant

FEW, MANY = 100, 1000
MOST = 1.25
"""Of ten times the calls for a tenth: sorting takes a little more than its share."""


def names(count: int) -> list[str]:
    return [f"model.layers.{at // 4}.block{at % 7}.{'qkvo'[at % 4]}.weight" for at in range(count)]


def arrays(count: int, shift: float = 0) -> dict[str, np.ndarray]:
    return {name: np.full((2, 2), at + shift * (at % 3 == 0), np.float32) for at, name in enumerate(names(count))}


def pair(count: int) -> tuple[Checkpoint, Checkpoint]:
    return Checkpoint.from_arrays(arrays(count)), Checkpoint.from_arrays(arrays(count, 0.5))


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, and how often a generator goes on."""
    count = 0

    def notice(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(notice)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def show(count: int, folder: Path) -> object:
    data = show_json(Checkpoint.from_arrays(arrays(count)))
    return show_table(data, Style()), show_table(data, Style(60, colour=True)), show_csv(data), show_md(data)


def compare(count: int, folder: Path) -> object:
    found = diff(*pair(count))
    data = diff_json(found)
    tables = [diff_table(data, Style(width), every=True) for width in (40, 80)]
    return (
        tables,
        diff_csv(data),
        diff_md(data),
        dump_json(data),
        diff_table(diff_json(found.grouped(["layer"])), Style()),
    )


def compare_three(count: int, folder: Path) -> object:
    found = three_way(Checkpoint.from_arrays(arrays(count)), *pair(count))
    return threeway_table(threeway_json(found), Style(), every=True)


def select(count: int, folder: Path) -> object:
    checkpoint = Checkpoint.from_arrays(arrays(count))
    exactly = Selection.exactly(names(count))
    return (
        exactly.pick(checkpoint),
        exactly.unmatched(checkpoint),
        Selection().split(checkpoint, ["layer", "kind"]),
    )


def rename(count: int, folder: Path) -> object:
    wrapped = Checkpoint.from_arrays({f"module.{name}": value for name, value in arrays(count).items()})
    other = Checkpoint.from_arrays(
        {name.replace("model.", "net."): value for name, value in arrays(count).items()}
    )
    plain = Checkpoint.from_arrays(arrays(count))
    return matched(wrapped, plain), matched(other, plain, [Rule.parse("net.*=model.*")])


def give(ending: str) -> Callable[[int, Path], object]:
    def work(count: int, folder: Path) -> object:
        a, b = (write_checkpoint(each, f"{folder}/{name}{ending}", shard_size=800)  # of few tensors two shards
                for name, each in zip("ab", pair(count), strict=True))  # fmt: skip
        with open_checkpoint(a) as donor, open_checkpoint(b) as recipient:
            plan = plan_transplant(donor, recipient, Selection.parse(only=["*.q.*"]))
            left_behind(plan, f"{folder}/out{ending}")
            return transplant(plan, f"{folder}/out{ending}"), plan.changed

    return work


def change_format(count: int, folder: Path) -> object:
    source = write_checkpoint(pair(count)[0], folder / "a.safetensors")
    with open_checkpoint(source) as checkpoint:
        return [write_checkpoint(checkpoint, f"{folder}/{name}") for name in ("a.pt", "a.npz", "shards/")]


WORK = {
    "show": show, "diff": compare, "threeway": compare_three, "select": select, "rename": rename,
    "convert": change_format,
    **{f"transplant{ending}": give(ending) for ending in (".safetensors", ".pt", ".npz", "/")},
}  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_calls_grow_with_the_tensors(name: str, tmp_path: Path) -> None:
    counts = []
    for size in (FEW, FEW, MANY):  # the first run imports what it needs
        folder = tmp_path / str(len(counts))
        folder.mkdir()
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            counts.append(calls(lambda size=size, folder=folder: WORK[name](size, folder)))
    assert counts[2] < MOST * (MANY / FEW) * counts[1]


def test_near_names_are_looked_for_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names there are, a bounded number is compared letter by letter; all are looked at but once."""
    aligned: list[int] = []
    found = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", lambda name, among, n: (
        aligned.append(len(among)), found(name, among, n=n))[1])  # fmt: skip
    few, many = (
        calls(lambda size=size: near("model.layers.7.block1.q.wieght", names(size))) for size in (2000, 12_000)
    )
    assert aligned == [ALIGNED_MOST] * 2
    assert many < MOST * 6 * few


def test_a_square_would_be_noticed() -> None:
    few, many = (
        calls(lambda size=size: [abs(a - b) for a in range(size) for b in range(size)]) for size in (20, 200)
    )
    assert many > MOST * 10 * few
