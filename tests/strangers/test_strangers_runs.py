"""Run folders from strangers: nothing that they name is run, opened or unpickled; what they hold is checked."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_program import Done, good, run
from once import once
from stranger_runs import AGAIN, SWEEP, forge, journal, make, mark_of, plan_of
from sweeping import write_plan_json

from ckptswap.executors.worker_spec import WorkerSpec
from ckptswap.scoring.scorer import Block
from ckptswap.sweep.rebuild import WORK
from ckptswap.sweep.run_folder.folder import RunFolder
from ckptswap.sweep.run_folder.journal import decode, encode
from ckptswap.sweep.run_folder.sealed import SIZE

Source = dict[str, Any]
EVIL = """
import os
open(os.environ["MARK"], "w").close()


def fn(*args, **kwargs):
    raise SystemExit("it ran")
"""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def build(folder: Path) -> None:
        with contextlib.chdir(folder):
            make(folder)

    return once(tmp_path_factory, "stranger", build)


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the run, as the current folder."""
    folder = shutil.copytree(made, tmp_path / "work")
    with contextlib.chdir(folder):
        yield folder


@pytest.fixture
def mark(fresh_servers: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is there once a stranger's code has run."""
    monkeypatch.setenv("MARK", str(tmp_path / "it-ran"))
    return tmp_path / "it-ran"


def refused(done: Done, *words: str) -> None:
    """One sentence and exit 2."""
    assert done.code == 2, (done.code, done.err)
    assert done.out == ""
    assert len(done.err.removeprefix("run: run\n").splitlines()) == 1, done.err
    for word in words:
        assert word in done.err


def spec(**changed: object) -> Callable[[Source], object]:
    return lambda source: source["spec"]["task"].update(changed)


ORDERS: dict[str, tuple[Callable[[Source], object], str]] = {
    "a builtin as data": (
        spec(data="os:system", data_args={"command": "touch $MARK"}),
        "--data os:system --data-args 'command=touch $MARK'",
    ),
    "a builtin as model": (
        spec(model="os:system", model_args={"command": "touch $MARK"}),
        "--model os:system",
    ),
    "a file in the folder as model": (spec(model="run/evil.py:fn"), "--model run/evil.py:fn"),
    "a file in the folder as data": (spec(data="run/evil.py:fn"), "--data run/evil.py:fn"),
    "a file in the folder as metric": (spec(metrics=["iou", "run/evil.py:fn"]), "--metric iou,run/evil.py:fn"),
    "a module beside its places": (
        lambda source: source.update(places=[os.path.abspath("run")]) or spec(data="evil:fn")(source),
        "--data evil:fn",
    ),
    "a relative cwd": (
        lambda source: source.update(cwd="run") or spec(data="evil.py:fn")(source),
        "--data evil.py:fn",
    ),
    "a calibration": (
        lambda source: source["spec"].update(
            calibration={"batches": 4, "data": "run/evil.py:fn", "data_args": {}}
        ),
        "--model own.py:Net",
    ),
    "a data folder": (spec(data="/etc"), "--data /etc"),
    "a list of groups": (spec(group="/etc/passwd.csv"), "--group /etc/passwd.csv"),
    "a checkpoint elsewhere": (lambda source: source["recipient"].update(path="/etc/shadow"), "/etc/shadow"),
    "a donor that is a pipe": (lambda source: source["donors"][0].update(path="pipe"), "--from pipe"),
}


@pytest.mark.parametrize("forgery", ["unmarked", "the true mark", "a mark of zeros"])
@pytest.mark.parametrize("name", ORDERS)
def test_select_runs_and_opens_nothing_that_a_folder_names(
    work: Path, mark: Path, name: str, forgery: str
) -> None:
    change, words = ORDERS[name]
    (work / "run/evil.py").write_text(EVIL)
    os.mkfifo("pipe")
    marks = {"unmarked": None, "the true mark": mark_of(work / "run"), "a mark of zeros": "0" * 64}
    forge(work / "run", lambda plan: change(plan["source"]), marks[forgery])
    modules = set(sys.modules)
    refused(run("select", "run", "--tolerance", "1"), "does not show that a command of yours made it", words)
    assert not mark.exists()
    assert not {each for each in set(sys.modules) - modules if "evil" in each or "ckptswap_user" in each}


COMMANDS = [
    ["report", "run", "--format", "json"],
    ["report", "run", "--watch"],
    ["report", "run", "--format", "html", "-o", "page.html"],
    ["report", "run", "other"],
    ["plot", "run", "-o", "heat.svg"],
    SWEEP,
    [*SWEEP, "--dry-run"],
    [*SWEEP, "--repair"],
    [*SWEEP, "--executor", "process", "--jobs", "2"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda each: " ".join([each[0], *each[-2:]]))
def test_no_other_command_runs_what_a_folder_names(work: Path, mark: Path, command: list[str]) -> None:
    """A sweep on it builds the task of the command line, also in its workers, whatever the folder says."""
    (work / "run/evil.py").write_text(EVIL)
    shutil.copytree("run", "other")

    def change(plan: dict[str, Any]) -> None:
        for alter, _ in ORDERS.values():
            alter(plan["source"])
        plan["source"].update(cwd="run", places=["run"])

    forge(work / "run", change)
    if "process" in command:  # so that there is work to do
        journal(work / "run").write_bytes(b"".join(journal(work / "run").read_bytes().splitlines(True)[:6]))
    good(*command)
    assert not mark.exists()


def test_planted_orders_are_not_obeyed(work: Path, mark: Path) -> None:
    """Workers are told which order by whoever begins them."""
    (work / "run/orders").mkdir()
    (work / "run/evil.py").write_text(EVIL)
    source = plan_of(work / "run")["source"]
    spec(model="run/evil.py:fn")(source)
    shards = [[[cell["names"][0], cell["names"]] for cell in plan_of(work / "run")["plan"]["cells"]]]
    for token in ("0" * 12, "*"):
        order = WorkerSpec(token, str(work / "run"), WORK, source, tuple(shards))
        order.write()
    before = good("report", "run", "--format", "json").json
    lines = journal(work / "run").read_bytes().splitlines(True)
    journal(work / "run").write_bytes(b"".join(lines[:6]))
    done = good(*SWEEP, "--executor", "process", "--jobs", "2", "--tolerance", "0.01")
    assert done.json["rows"] == before["rows"]
    assert not mark.exists()


# What is one's own ----------------------------------------------------------------------------------------------


def chosen(*arguments: str) -> Any:
    return good("select", *arguments, "--tolerance", "1", "--format", "json").json


def test_a_folder_of_ones_own_is_taken_up_wherever_it_lies(work: Path) -> None:
    """As it is, copied, moved, and from elsewhere."""
    first = chosen("run")
    assert first["taken"]
    shutil.copytree("run", "deep/copy")
    assert chosen("deep/copy") == first
    Path("run").rename("moved")
    assert chosen("moved") == first
    with contextlib.chdir("deep"):
        assert chosen("copy") == first


def test_defaults_for_all_commands_name_nothing_of_a_run(work: Path) -> None:
    """Else they would be taken for what is named again, and for another model than the run's."""
    first = chosen("run")
    Path("ckptswap.toml").write_text('model = "smp:Unet"\nmodel-args = "classes=1"\nmetric = "dice"\n')
    assert chosen("run") == first


def test_a_place_that_is_gone_is_said(work: Path) -> None:
    plan = plan_of(work / "run")
    plan["source"]["cwd"] = str(work / "gone")
    write_plan_json(work / "run", plan)
    refused(run("select", "run"), "gone, which cannot be entered (No such file or directory)", "named again")


def test_what_is_named_again_is_selected_from_alike(work: Path) -> None:
    first = chosen("run")
    forge(work / "run", lambda plan: plan["source"].update(cwd="/nowhere", places=["/evil"]))
    again = chosen("run", *AGAIN)
    for found in (first, again):
        assert "donor.pt" in found.pop("commands")[0]
        found["rows"] = [{**row, "donor": None} for row in found["rows"]]
    assert again == first


@pytest.mark.parametrize("left", ["--from", "--recipient", "--model", "--data"])
def test_all_must_be_named_again(work: Path, left: str) -> None:
    forge(work / "run", lambda plan: None)
    at = AGAIN.index(left)
    refused(run("select", "run", *AGAIN[:at], *AGAIN[at + 2 :]), f"if you trust it, add {left} ")


def test_arguments_must_be_named_again_too(work: Path) -> None:
    forge(work / "run", lambda plan: spec(data_args={"samples": 10**9})(plan["source"]))
    refused(run("select", "run", *AGAIN), "add --data-args samples=1000000000")


def test_how_large_a_model_of_ours_is_a_folder_does_not_say(work: Path) -> None:
    """The recipient does, by what it says of itself, and no larger than itself; else the command line."""
    forge(work / "run", lambda plan: spec(model="lab:unet", model_args={"width": 1500})(plan["source"]))
    given = [each for each in AGAIN if each not in ("--model", "own.py:Net")]
    refused(run("select", "run", *given), "recipient.pt does not say what model it is")


def test_other_data_than_the_runs_is_refused(work: Path) -> None:
    (work / "own.py").write_text((work / "own.py").read_text().replace("manual_seed(0)", "manual_seed(1)"))
    forge(work / "run", lambda plan: None)
    refused(run("select", "run", *AGAIN, "--tolerance", "1"), "was made under other conditions: data changed")


ODD_SPECS: list[dict[str, object]] = [
    {"metrics": [3]}, {"model": 3}, {"data_args": []}, {"threads": "many"}, {"threads": 100_000}, {"limit": 1.5},
    {"device": "\x00"}, {"dtype": "f3"}, {"normalize": "1/0/1"}, {"ignore": "x"}, {"target": "x"}, {"extra": 1},
    {"output_key": {}}, {"batch_size": -1},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD_SPECS, ids=str)
def test_an_odd_task_is_a_sentence(work: Path, odd: dict[str, object]) -> None:
    forge(work / "run", lambda plan: spec(**odd)(plan["source"]))
    refused(run("select", "run", *AGAIN, "--tolerance", "1"))


RACE = {"metric": "iou", "direction": "max", "top": 3, "confidence": 5, "epsilon": 0, "bounds": [0, 1]}


@pytest.mark.parametrize("command", ["report", "select"])
def test_what_makes_no_sense_is_said_of_its_folder(work: Path, command: str) -> None:
    forge(work / "run", lambda plan: plan.update(race=RACE))
    refused(run(command, "run"), "run/plan.json is damaged", "confidence is 5")
    forge(work / "run", lambda plan: plan["source"]["spec"].update(donors=[]))
    refused(run(command, "run"), "run/plan.json is damaged", "no donor")


@pytest.mark.parametrize("mode", ["sideways", "prefix", "window:2"])
def test_a_mode_that_is_not_the_sweeps_is_damage(work: Path, mode: str) -> None:
    forge(work / "run", lambda plan: plan["plan"].update(mode=mode))
    for command in (["report", "run"], ["plot", "run", "-o", "x.svg"], ["report", "run", "--format", "html"]):
        refused(run(*command), "run holds a damaged plan", "mode")


def test_odd_renames_are_a_sentence(work: Path) -> None:
    forge(work / "run", lambda plan: plan["source"]["recipient"].update(renames={"nothing": "else"}))
    refused(run("select", "run", *AGAIN, "--tolerance", "1"))


# The secret -----------------------------------------------------------------------------------------------------


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a secret yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state/ckptswap/secret"


def test_the_secret_is_made_once_and_is_the_users_alone(work: Path, state: Path) -> None:
    refused(run("select", "run"), "does not show that a command of yours made it")
    assert not state.exists(), "reading makes none"
    good(*SWEEP)
    before = state.read_bytes()
    assert (len(before), state.stat().st_mode & 0o777) == (SIZE, 0o600)
    good(*SWEEP)
    assert state.read_bytes() == before
    assert os.listdir(state.parent) == ["secret"]
    assert chosen("run")["taken"], "the sweep has made it this user's"


def spoil_mode(secret: Path) -> None:
    secret.chmod(0o640)


def spoil_size(secret: Path) -> None:
    secret.write_bytes(b"")


def spoil_link(secret: Path) -> None:
    secret.rename(secret.with_name("other"))
    secret.symlink_to("other")


def spoil_pipe(secret: Path) -> None:
    secret.unlink()
    os.mkfifo(secret, 0o600)


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_size, spoil_link, spoil_pipe])
def test_a_secret_that_others_may_know_or_have_written_is_none(
    work: Path, state: Path, spoil: Callable[[Path], None]
) -> None:
    good(*SWEEP)
    spoil(state)
    refused(run("select", "run"), "does not show that a command of yours made it")
    good(*SWEEP)
    assert mark_of(work / "run") is None
    refused(run("select", "run"))


@pytest.mark.parametrize("place", ["file/state", "relative"])
def test_without_a_place_for_it_a_sweep_works_and_the_folder_is_a_strangers(
    work: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (work / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(work / place) if "/" in place else place)
    monkeypatch.setenv("HOME", str(work / "file"))
    good(*SWEEP)
    assert mark_of(work / "run") is None
    assert not Path("relative").exists()
    refused(run("select", "run"))
    assert chosen("run", *AGAIN)["taken"]


# What Slurm leaves in the folder --------------------------------------------------------------------------------


class Touch:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ('touch "$MARK"',)


def test_pickles_that_lie_where_slurms_would_are_not_opened(
    work: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    from ckptswap.executors import slurm

    evil = pickle.dumps(("success", Touch()))
    for number in ("7", "7_0"):
        for folder in ("slurm/7", "slurm/000000000000/7"):
            place = work / "run" / folder
            place.mkdir(parents=True, exist_ok=True)
            for name in (f"{number}_0_result.pkl", f"{number}_submitted.pkl"):
                (place / name).write_bytes(evil)
    (work / "run/orders").mkdir()
    (work / "run/orders/000000000000.json").write_text("{}")
    states = [{"7_0": ("RUNNING", "ckptswap 000000000000")}, *[{"7_0": ("COMPLETED", "")}] * 9]
    monkeypatch.setattr(slurm, "queue", lambda: states.pop(0) if len(states) > 1 else states[0])
    monkeypatch.setattr(slurm.SlurmHandle, "poll", 0.01)
    hands, workers = slurm.reattach(work / "run") or pytest.fail("no job was found")
    assert list(workers) == [0]
    endings: dict[int, Any] = {}
    for _ in range(5):
        endings |= hands.ended()
    assert "job 7_0 is COMPLETED" in str(endings[0].fault)
    assert not mark.exists()


# What the parts say of each other -------------------------------------------------------------------------------


def line(content: object) -> bytes:
    """A journal's line with a sound checksum, whatever it says."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


ZEROS = "A" * 64
"""Six float64 zeros in base64."""
ODD_LINES: dict[str, bytes] = {
    "a variant that is a list": line([["v"], 0, {}, None, "full"]),
    "a batch that is a text": line(["v", "0", {}, None, "full"]),
    "a batch below zero": line(["v", -1, {}, "x", "full"]),
    "a batch that is not there": line(["v", 999, {}, "x", "full"]),
    "no metric": line(["v", 0, {}, None, "full"]),
    "packed as a list": line(["v", 0, [], None, "full"]),
    "a width of zero": line(["v", 0, {"iou": [0, ZEROS], "mse": [1, ZEROS]}, None, "full"]),
    "a width of very many": line(["v", 0, {"iou": [10**30, ""], "mse": [1, ZEROS]}, None, "full"]),
    "a width that is a text": line(["v", 0, {"iou": ["1", ZEROS], "mse": [1, ZEROS]}, None, "full"]),
    "a width of its own": line(["v", 0, {"iou": [6, ZEROS], "mse": [1, ZEROS]}, None, "full"]),
    "of too few samples": line(["baseline", 0, {"iou": [1, ""], "mse": [1, ""]}, None, "full"]),
    "an odd range of outputs": line(
        ["baseline", 0, {"iou": [1, ZEROS], "mse": [1, ZEROS], "range of outputs": [2, ""]}, None, "full"]
    ),
    "a failure that is a number": line(["v", 0, {}, 3, "full"]),
    "an engine of its own": line(["v", 0, {"iou": [1, ZEROS], "mse": [1, ZEROS]}, None, "magic"]),
    "more than a block": line(["v", 0, {}, None, "full", 1, 2]),
    "a number": line(3),
    "null": line(None),
    "nested 100,000 deep": line(b"[" * 100_000 + b"]" * 100_000),
    "a number of 5,000 digits": line(b'["v", ' + b"9" * 5000 + b', {}, null, "full"]'),
    "no UTF-8": line(b'["\xff", 0, {}, null, "full"]'),
}


@pytest.mark.parametrize("command", [["report", "run"], SWEEP], ids=["report", "sweep"])
@pytest.mark.parametrize("name", ODD_LINES)
def test_an_odd_block_with_a_sound_checksum_is_a_sentence(work: Path, name: str, command: list[str]) -> None:
    with journal(work / "run").open("ab") as file:
        file.write(ODD_LINES[name])
    refused(run(*command, "--format", "json"), "run")


def test_a_sound_block_more_changes_nothing(work: Path) -> None:
    """So that the odd ones above are refused for what is odd in them."""
    before = good("report", "run", "--format", "json").json
    for added in (line(["v", 0, {"iou": [1, ZEROS], "mse": [1, ZEROS]}, None, "full"]), line(["v", 1, {}, "x"])):
        with journal(work / "run").open("ab") as file:
            file.write(added)
        assert good("report", "run", "--format", "json").json == before


ODD: list[object] = [
    None, "", "../../x", -1, 0, 2**70, 1e308, True, [], {}, [0], ["x"], [None], {"x": 1}, "9" * 5000, 10**4000,
    "\ud800", "iou:pooled",
]  # fmt: skip


def places(value: object, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every part of a JSON value, of lists the first two."""
    yield so_far
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*so_far, key))


def changed(place: tuple[Any, ...], value: object) -> Callable[[dict[str, Any]], None]:
    def change(plan: Any) -> None:
        for key in place[:-1]:
            plan = plan[key]
        plan[place[-1]] = value

    return change


@pytest.mark.parametrize(
    "part", ["metrics", "plan", "walk", "groups", "units", "source", "race", "screen", "rest"]
)
def test_any_part_of_a_plan_may_be_anything(work: Path, part: str, swept_plan: dict[str, Any]) -> None:
    """A table, or one sentence; never a fault of ours. Each part of the plan, and each odd value in turn."""
    rest = {"key", "layers", "tolerance", "error", "se", "warnings", "donor_misfits", "made"}
    wanted = [at for at in places(swept_plan) if at and (at[0] == part or (part == "rest" and at[0] in rest))]
    assert wanted
    codes = set()
    for number, place in enumerate(wanted):
        write_plan_json(work / "run", swept_plan)
        value = ODD[number % len(ODD)]
        try:
            forge(work / "run", changed(place, value))
        except UnicodeEncodeError:
            continue
        done = run("report", "run", "--format", "json")
        codes.add(done.code)
        assert done.code in (0, 2), (place, value, done.err)
        assert done.code == 0 or len([each for each in done.err.splitlines() if "note" not in each]) == 1
    assert 2 in codes


@pytest.fixture
def swept_plan(work: Path) -> dict[str, Any]:
    """A plan with everything in it: a race, and a guess."""
    plan = plan_of(work / "run")
    metric = plan["metrics"][0]
    rules = {"metric": metric["name"], "direction": metric["direction"], "bounds": metric["bounds"]}
    plan["race"] = {**rules, "top": 1, "confidence": 0.95, "epsilon": 0.01}
    plan["screen"] = {"by": "rmse", "values": {"v": 0.5, "w": 0.1}}
    return plan


def many(part: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda plan: plan["plan"]["cells"][0].update({part: value})


def kinds(plan: dict[str, Any]) -> None:
    cell = plan["plan"]["cells"][0]
    plan["plan"]["cells"] = [
        {**cell, "layer": f"l{at}", "kind": f"k{at}", "status": "identical"} for at in range(3000)
    ]


def points(plan: dict[str, Any]) -> None:
    plan["plan"]["alphas"] = [at / 100_000 for at in range(1, 50_000)]


LARGE = {
    "a layer of dots": many("layer", "a." * 50_000), "a layer of digits": many("layer", "9" * 100_000),
    "a tensor of dots": many("names", ["a." * 50_000]), "very many tensors": many("names", ["a"] * 50_000),
    "very many layers": lambda plan: plan.update(layers=["a"] * 100_000), "very many kinds": kinds,
    "very many points": points,
}  # fmt: skip
LIMITED = """
import re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from ckptswap.cli.main import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
sys.argv = ["ckptswap", "report", "run", *sys.argv[1:]]
try:
    main()
finally:
    # ru_maxrss would count what the process was forked from
    peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_utime - before, peak, file=sys.stderr)
"""


@pytest.mark.parametrize("name", LARGE)
def test_a_small_plan_takes_neither_time_nor_memory(work: Path, name: str) -> None:
    forge(work / "run", LARGE[name])
    for flags in ([], ["--format", "html", "-o", "page.html"]):
        done = subprocess.run([sys.executable, "-c", LIMITED, *flags], capture_output=True, text=True)
        assert done.returncode in (0, 2), done.stderr
        seconds, kilobytes = map(float, done.stderr.splitlines()[-1].split())
        assert seconds < 5
        assert kilobytes < 500_000


def test_a_lost_line_of_the_baseline_is_said_and_found_again(work: Path) -> None:
    whole = good("report", "run", "--format", "json").json
    lines = journal(work / "run").read_bytes().splitlines(True)
    at = next(at for at, each in enumerate(lines) if b'"baseline",1,' in each)
    journal(work / "run").write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    done = good("report", "run", "--format", "json")
    assert "the baseline is known on 12 of 18 samples" in done.err
    assert {row["samples"] for row in done.json["rows"] if row["status"] == "measured"} == {12}
    assert "the baseline is known on 12 of 18 samples" in good("report", "run").out
    assert good(*SWEEP, "--tolerance", "0.01").json["rows"] == whole["rows"]


def test_a_last_line_is_torn_only_where_it_was_broken_off(work: Path) -> None:
    """A flipped newline at the end would else lose a line in silence."""
    whole = journal(work / "run").read_bytes()
    journal(work / "run").write_bytes(whole + encode(Block("v", 0, {}, "x"))[:-3])
    good("report", "run")
    journal(work / "run").write_bytes(whole[:-1] + b"\x0b")
    refused(run("report", "run"), "is damaged (the checksum does not fit)")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_scores_that_are_infinite_are_no_fault_of_ours(work: Path) -> None:
    """By a perfect PSNR, or by a stranger: the sweep ends, and shows the samples whose scores are numbers."""
    blocks = [decode(each) for each in journal(work / "run").read_bytes().splitlines(True)[1:]]
    cell = next(each.variant for each in blocks if each.variant not in ("baseline", "donor"))
    with journal(work / "run").open("ab") as file:
        for block in blocks:
            if block.variant in (cell, "baseline") and block.batch == 0:
                iou = block.statistics["iou"].copy()
                iou[0], iou[1] = (np.inf, 1.0) if block.variant == cell else (1.0, np.inf)
                file.write(encode(block._replace(statistics={**block.statistics, "iou": iou})))
    done = good(*SWEEP, "--tolerance", "0.01")
    assert {row["status"] for row in done.json["rows"]} >= {"measured"}
    shown = RunFolder("run").load_samples()
    assert shown is not None
    assert all(np.isfinite(hit.drop) for hit in shown.hits)
