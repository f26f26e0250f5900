"""300 flipped bits of each file that a run remembers: refused in one sentence, or the same table."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_program import good, run
from stranger_runs import SWEEP, journal
from sweeping import prepare

from ckptswap.api import report
from ckptswap.errors import CkptswapError, RunError
from ckptswap.executors.pool import worker_spec_of
from ckptswap.executors.worker_spec import read_worker_spec
from ckptswap.report.html import about
from ckptswap.sweep.result import SweepResult
from ckptswap.sweep.run_folder.lock import Lock, is_held
from ckptswap.sweep.runner import Sweep
from ckptswap.task import TaskSpec

FLIPS = 300


def flipped(path: Path, seed: int = 0) -> Iterator[int]:
    """The file with one bit flipped, again and again: the last byte, those at the seams, and drawn ones."""
    whole = path.read_bytes()
    drawn = random.Random(seed)
    first = [8 * len(whole) - 8 + bit for bit in range(8)] + list(range(8))
    for at in [*first, *(drawn.randrange(8 * len(whole)) for _ in range(FLIPS - len(first)))]:
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(changed)
        yield at
    path.write_bytes(whole)


def table_or_sentence(whole: SweepResult, at: int) -> int:
    """How the library ends; what escapes it is a fault of ours. Now and then the program is asked too."""
    try:
        assert report("run") == whole, at
        code = 0
    except CkptswapError as error:
        code = error.exit_code
    if not at % 20:
        done = run("report", "run")
        assert done.code == code
        assert code == 0 or (done.out, len(done.err.splitlines())) == ("", 1), (at, done)
    return code


@pytest.mark.parametrize("part", ["plan.json", "journal/main.jsonl"])
def test_a_flipped_bit_gives_no_other_table(work: Path, part: str) -> None:
    whole = report("run")
    codes = Counter(table_or_sentence(whole, at) for at in flipped(work / "run" / part))
    assert set(codes) <= {0, 2}
    assert codes[2] > 0.9 * FLIPS, "but for the user's mark each byte counts"
    assert report("run") == whole


def test_a_flipped_bit_of_the_users_mark_makes_the_folder_a_strangers(work: Path) -> None:
    """The table stays, for it needs no trust."""
    plan = work / "run/plan.json"
    text = plan.read_text()
    at = text.index('"mark": "') + len('"mark": "')
    plan.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    good("report", "run")
    done = run("select", "run")
    assert done.code == 2
    assert "does not show that a command of yours made it" in done.err


def test_a_flipped_bit_of_the_samples_shows_no_others(work: Path) -> None:
    """The HTML page shows them; nothing else reads them."""
    before = about("run")
    assert before.samples is not None
    assert before.samples.hits
    for _ in flipped(work / "run/samples.json"):
        with pytest.raises(RunError, match=r"samples\.json is damaged"):
            about("run")
    assert about("run") == before


def test_a_flipped_bit_of_an_order_is_not_obeyed(work: Path) -> None:
    from ckptswap.formats import open_checkpoint

    spec = TaskSpec(model="own.py:Net", data="own.py:data", threads=1)
    with open_checkpoint("donor.pt") as donor, open_checkpoint("recipient.pt") as recipient:
        proposal: Sweep = prepare(donor, recipient, spec, run_dir="other")
        order = worker_spec_of(proposal, [proposal.variants])
    order.write()
    for _ in flipped(order.path):
        with pytest.raises(RunError, match="is no order for a worker"):
            read_worker_spec(order.path, order.seal)
    assert read_worker_spec(order.path, order.seal).seal == order.seal


def test_a_flipped_bit_of_a_lock_takes_it_from_nobody(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds it is then unknown, and that it is held is known by its time."""
    monkeypatch.setattr("ckptswap.sweep.run_folder.lock.BEAT", 3600.0)  # the holder itself does not look meanwhile
    with Lock(work / "run") as lock:
        for _ in flipped(work / "run/lock"):
            assert is_held(work / "run")
            os.utime(work / "run/lock")
            with pytest.raises(RunError, match="is worked on by somebody unknown"):
                Lock(work / "run").__enter__()
        assert is_held(work / "run")
        lock.check()


ALTER: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda raw: b"",
    "cut in half": lambda raw: raw[: len(raw) // 2],
    "a byte less": lambda raw: raw[:-1],
    "a byte more": lambda raw: raw + b" ",
    "twice": lambda raw: raw + raw,
    "zeros": lambda raw: bytes(len(raw)),
    "other line ends": lambda raw: raw.replace(b"\n", b"\r\n"),
    "without its first line": lambda raw: raw[raw.index(b"\n") + 1 :],
    "of another run": lambda raw: Path("other/plan.json").read_bytes(),
}


@pytest.mark.parametrize("way", ALTER)
def test_a_plan_that_was_cut_or_written_over_is_a_sentence(work: Path, way: str) -> None:
    good(*SWEEP[:-4], "--run", "other", "--limit", "12")
    command, plan = ["report", "run", "--format", "json"], work / "run/plan.json"
    plan.write_bytes(ALTER[way](plan.read_bytes()))
    done = run(*command)
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1), done
    again = run(*SWEEP)
    assert (again.code, again.out) == (2, ""), again


def test_what_lies_in_the_folder_for_others_is_not_read(work: Path) -> None:
    """Exports are made anew by a sweep; no command takes its numbers from them."""
    before = {kind: good("report", "run", "--format", kind).out for kind in ("json", "csv", "md")}
    for kind in ("json", "csv", "md", "html"):
        (work / f"run/result.{kind}").write_text("changed")
    assert {kind: good("report", "run", "--format", kind).out for kind in before} == before
    good(*SWEEP, "--tolerance", "0.01")
    assert (work / "run/result.json").read_text() == before["json"]


def test_a_journal_of_another_run_is_refused(work: Path) -> None:
    good(*SWEEP[:-4], "--run", "other", "--limit", "12")
    shutil.copy(journal(Path("other")), journal(Path("run")))
    done = run("report", "run")
    assert done.code == 2
    assert "was made under other conditions" in done.err


def test_repair_writes_a_damaged_plan_anew(work: Path) -> None:
    """Hours of scores are not lost by a bit of what the same command says again."""
    before = good("report", "run", "--format", "json").out
    plan = work / "run/plan.json"
    damaged = plan.read_bytes().replace(b'"max"', b'"mix"')
    plan.write_bytes(damaged)
    assert "writes it anew" in run("report", "run").err
    other = run(*SWEEP, "--repair", "--limit", "12")
    assert other.code == 2, "the journal's key tells that these are other conditions"
    assert plan.read_bytes() == damaged
    done = good(*SWEEP, "--tolerance", "0.01", "--repair")
    assert "plan.json: was damaged, and is written anew" in done.err
    assert done.out == good("report", "run", "--format", "json").out == before
    assert (work / "run/plan.json.damaged").read_bytes() == damaged
    good("select", "run", "--tolerance", "1")


def test_repair_takes_no_other_conditions_for_a_plan_that_is_sound(work: Path) -> None:
    done = run(*SWEEP, "--repair", "--limit", "12")
    assert done.code == 2
    assert "under other conditions" in done.err
