"""The user's own defaults: variables, `ckptswap.toml`, `pyproject.toml`; what wins, and what they may not say."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cli_program import Done, good, run

from ckptswap.cli import defaults
from ckptswap.cli.main import Commands

NEVER = frozenset((
    "from", "to", "data", "data-args", "calibration-data", "calibration-args",
    "init-from", "map-file", "config",
    "recipient", "run", "out", "save-init", "force", "drop-unread", "fresh", "repair", "partial",
    "explain", "title",
))  # fmt: skip

BY_FILE = frozenset((
    "format", "ascii", "width", "verdict", "sort", "stat", "stats", "all", "top", "by", "claims",
    "watch", "exit-code", "picture", "dry-run", "only", "cast", "match", "map-preset",
    "exclude", "layers", "kind", "map", "strip-prefix", "skip-missing", "shard-size", "alpha", "both", "mode",
    "model", "model-args", "metric", "back-metric", "target", "back-target", "output", "output-key", "ignore",
    "normalize", "resize", "direction", "batch-size", "limit", "threads",
    "device", "dtype", "engine", "close-within", "executor", "jobs",
    "memory", "budget", "screen", "tolerance", "error", "se", "confidence", "epsilon", "recalibrate-bn", "steps",
    "lr", "optimizer", "seed", "freeze",
    "zero-control", "holdout", "fail-on", "decide", "confidence-sequence",
))  # fmt: skip

EVALUATE = ["evaluate", "segment.safetensors", "--data", "scans", "--format", "json"]


def metrics(done: Done) -> list[str]:
    return list(done.json["checkpoints"][0]["scores"])


@pytest.fixture(autouse=True)
def _here(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the pair, with nothing said by the environment."""
    monkeypatch.delenv("CKPTSWAP_CONFIG", raising=False)


def test_a_variable_is_a_default_and_is_named_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_LIMIT", "9")
    done = good(*EVALUATE)
    assert done.json["samples"] == 9
    assert "note: --limit 9 by CKPTSWAP_LIMIT" in done.err
    done = good(*EVALUATE, "--limit", "5")
    assert done.json["samples"] == 5
    assert "CKPTSWAP_LIMIT" not in done.err


def test_a_command_s_own_wins_over_everybody_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_FORMAT", "csv")
    monkeypatch.setenv("CKPTSWAP_SHOW_FORMAT", "md")
    assert "| name | layer |" in good("show", "segment.safetensors").out
    assert good("diff", "segment.safetensors", "reconstruct.safetensors").out.startswith("name,")


@pytest.mark.parametrize("name", ["ckptswap.toml", "pyproject.toml"])
def test_a_file_is_found_from_a_folder_below(name: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "tool.ckptswap." if name == "pyproject.toml" else ""
    head = "[tool.ckptswap]\n" if table else ""
    Path(name).write_text(f'{head}limit = 7\n[{table}evaluate]\nmetric = ["iou", "dice"]\n')
    Path("below").mkdir()
    monkeypatch.chdir("below")
    Path("pyproject.toml").write_text('[project]\nname = "something else"\n')
    done = good("evaluate", "../segment.safetensors", "--data", "../scans", "--format", "json")
    assert done.json["samples"] == 7
    assert metrics(done) == ["iou", "dice"]
    assert str(work / name) in done.err


def test_flag_beats_task_file_beats_variable_beats_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ckptswap.toml").write_text('limit = 3\nmetric = "mse"\nbatch-size = 3\n')
    monkeypatch.setenv("CKPTSWAP_LIMIT", "4")
    monkeypatch.setenv("CKPTSWAP_METRIC", "iou")
    done = good(*EVALUATE)
    assert (done.json["samples"], metrics(done)) == (4, ["iou"])
    Path("task.toml").write_text("limit = 5\n")
    done = good(*EVALUATE, "-c", "task.toml")
    assert (done.json["samples"], metrics(done)) == (5, ["iou"])
    assert good(*EVALUATE, "-c", "task.toml", "--limit", "6").json["samples"] == 6


def test_a_variable_names_another_file_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ckptswap.toml").write_text("limit = 3\n")
    Path("other.toml").write_text("limit = 4\n")
    monkeypatch.setenv("CKPTSWAP_CONFIG", "other.toml")
    assert good(*EVALUATE).json["samples"] == 4
    monkeypatch.setenv("CKPTSWAP_CONFIG", "")
    assert good(*EVALUATE).json["samples"] == 18


def test_a_metric_for_all_is_no_choice_among_a_run_s(
    swept: tuple[Path, Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(swept[0] / "run", "run")
    monkeypatch.setenv("CKPTSWAP_METRIC", "dice")  # which this run has not
    assert good("report", "run", "--format", "json").json["metric"] == "iou"
    monkeypatch.setenv("CKPTSWAP_REPORT_METRIC", "mse")
    assert good("report", "run", "--format", "json").json["metric"] == "mse"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("limits = 3", "there is no flag --limits: did you mean 'limit' or"),
        ("[swep]\njobs = 2", "did you mean 'sweep'?"),
        ("[show]\njobs = 2", "there is no flag --jobs"),
        ('out = "x"', "out has no default"),
        ("force = true", "force has no default"),
        ('data = "scans"', "data has no default"),
        ('model = "evil.py:net"', "would run code"),
        ('[sweep]\nmetric = ["iou", "evil.py:fn"]', "would run code"),
        ('limit = "many"', "limit is 'many'"),
        ("limit = [1, 2]", "limit is [1, 2]"),
        ("limit = 3 3", "is not a TOML file"),
        ("limit = 8.9", "limit is 8.9: give a number of samples"),
        ("threads = true", "threads is True: it must be a number, whole"),
        ('data-args = "part=test"', "data-args has no default"),
        ('map-file = "/etc/passwd"', "map-file has no default"),
        ('[train]\nsave-init = "notes.safetensors"', "save-init has no default"),
        ('[sweep]\nrecalibrate-bn = 1\ncalibration-data = "evil.py:fn"', "calibration-data has no default"),
        ("[sweep]\nslurm = 'setup=[\"touch x\"]'", "slurm may name files, code or a cluster"),
        ('[sweep]\nray-address = "10.0.0.1:6379"', "or set CKPTSWAP_RAY_ADDRESS"),
        ('group = "groups.csv"', "group may name files"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(content: str, said: str) -> None:
    Path("ckptswap.toml").write_text(content)
    done = run(*EVALUATE)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert "ckptswap.toml" in done.err


def test_a_variable_that_is_no_flag_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_THREDS", "2")
    done = run(*EVALUATE)
    assert done.code == 2
    assert "CKPTSWAP_THREDS: there is no flag --threds: did you mean 'threads'?" in done.err


def test_help_does_not_mind_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_LIMIT", "2")
    assert good("--help").err == ""
    assert good("--version").err == ""


@pytest.mark.parametrize("content", ["[[tool.ckptswap]]\nlimit = 3", "[tool]\nckptswap = 3"])
def test_a_table_of_ours_that_is_none_is_a_sentence(content: str) -> None:
    Path("pyproject.toml").write_text(content)
    done = run(*EVALUATE)
    assert (done.code, done.out) == (2, "")
    assert "pyproject.toml: [tool.ckptswap] is not a table" in done.err


@pytest.mark.parametrize(
    "content", ["[tool]\nckptswap = {limit = 4}", "[ tool.ckptswap ]\nlimit = 4", '[tool."ckptswap"]\nlimit = 4']
)
def test_the_table_is_found_however_it_is_written(content: str) -> None:
    Path("pyproject.toml").write_text(content)
    assert good(*EVALUATE).json["samples"] == 4


def test_another_s_pyproject_is_passed_by() -> None:
    Path("pyproject.toml").write_text("tool = 1\n# ckptswap\n")
    assert good(*EVALUATE).json["samples"] == 18
    Path("pyproject.toml").write_text("no toml")
    assert good(*EVALUATE).json["samples"] == 18


def test_every_flag_is_either_for_files_or_not() -> None:
    """A new flag is refused in files until someone has thought about it; a name that is gone is no leftover."""
    every = [defaults.marks(command) for command in Commands().values()]
    known = {flag for marks in every for flag in marks}
    by_file = {flag for marks in every for flag, mark in marks.items() if mark is defaults.Settable.FILE}
    never = {flag for marks in every for flag, mark in marks.items() if mark is defaults.Settable.NEVER}
    assert not by_file & never
    assert by_file == BY_FILE
    assert never == NEVER
    assert not {"slurm", "ray-address", "group", "calibration-data", "map-file", "link"} & by_file
    assert known >= by_file | never


def test_arguments_of_a_model_may_be_a_table_and_go_with_their_model() -> None:
    Path("ckptswap.toml").write_text("[model-args]\nwidth = 99\n")
    done = run(*EVALUATE)
    assert done.code == 2, "the checkpoint's own model has another width"
    done = run("evaluate", "segment.safetensors", "--data", "scans", "--model", "lab:unet")
    assert "ckptswap: note: --" not in done.err
    assert run(*EVALUATE, "--model-args", "width=98").err.count("99") == 0


@pytest.mark.parametrize("given", [["--threads=1"], ["--threads", "1"]])
def test_what_is_given_is_not_said_to_be_a_default(given: list[str]) -> None:
    Path("ckptswap.toml").write_text("threads = 2\nlimit = 8\n[sweep]\njobs = 2\n")
    Path("task.toml").write_text("limit = 5\n")
    assert "ckptswap: note: --" not in good(*EVALUATE, *given, "-c", "task.toml").err
    flags = [
        "--to",
        "segment.safetensors",
        "--from",
        "reconstruct.safetensors",
        "--data",
        "scans",
        "--metric",
        "dice",
    ]
    done = good("sweep", *flags, *given, "--limit=5", "-j", "1", "--dry-run")
    assert "ckptswap: note: --" not in done.err


def test_help_version_and_doctor_do_not_mind_a_wrong_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTSWAP_FOO", "1")
    assert run("show", "segment.safetensors").err.endswith("take it out, or correct its name\n")
    for arguments in (["--help"], ["show", "--help"], ["--version"], ["doctor"]):
        assert "FOO" not in good(*arguments).err


@pytest.mark.parametrize(
    ("content", "said"), [("tolerance = true", "tolerance is True"), ("ascii = 3", "ascii is 3")]
)
def test_numbers_and_switches_are_what_they_are_in_toml(content: str, said: str) -> None:
    Path("ckptswap.toml").write_text(f"[report]\n{content}\n")
    done = run("report", "nowhere")
    assert done.code == 2
    assert said in done.err


# Whose file -----------------------------------------------------------------------------------------------------


def given_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file somebody else's."""
    if os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)


@pytest.mark.parametrize("name", ["ckptswap.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    "how", ["another's", "open folder", "open file", "link to another's", "link to an open folder"]
)
def test_a_file_that_another_can_have_written_is_not_honoured(
    name: str, how: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the search goes on above it."""
    content = "limit = 3\n" if name == "ckptswap.toml" else "[tool.ckptswap]\nlimit = 3\n"
    place = Path("below")
    (place / "elsewhere").mkdir(parents=True)
    real = place / "elsewhere" / "real" if "link" in how else place / name
    real.write_text(content)
    if "link" in how:
        (place / name).symlink_to(real.absolute())
    if "another's" in how:
        given_away(real, monkeypatch)
    elif how == "open file":
        real.chmod(0o666)
    else:
        real.parent.chmod(0o777)
    monkeypatch.chdir(place)
    done = good("evaluate", "../segment.safetensors", "--data", "../scans", "--format", "json")
    assert done.json["samples"] == 18
    said = "belongs to somebody else" if "another's" in how else "everybody may write there"
    assert f"{name} is not honoured, since" in done.err
    assert said in done.err
    monkeypatch.setenv("CKPTSWAP_CONFIG", name)  # named by the user, whoever wrote it
    assert (
        good("evaluate", "../segment.safetensors", "--data", "../scans", "--format", "json").json["samples"] == 3
    )


@pytest.mark.parametrize(
    "content",
    [
        "stat = true",
        'exclude = "*"',
        'only = "head.*"',
        'layers = "head"',
        '[diff]\nkind = "other.*"',
        'map = "a=b"',
        "[diff]\nstat = true\nexit-code = true",
    ],
)
def test_no_file_leaves_out_what_exit_code_promises(content: str) -> None:
    Path("ckptswap.toml").write_text(content)
    done = run("diff", "init.safetensors", "segment.safetensors", "--exit-code", "--format", "json")
    assert done.code == 1
    assert done.json["summary"]["changed"] > 10
    assert "is left out: --exit-code would promise less than it seems" in done.err


def test_without_a_promise_a_file_may_narrow() -> None:
    Path("ckptswap.toml").write_text("stat = true")
    done = good("diff", "init.safetensors", "segment.safetensors", "--format", "json")
    assert done.json["summary"]["unread"] > 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a = " + "[" * 10_000 + "]" * 10_000, "nested too deep"),
        ("a = " + "{b=" * 10_000 + "1" + "}" * 10_000, "nested too deep"),
        ("a = " + "[" * 30 + "]" * 30, "nested too deep"),
        ("limit = " + "9" * 5000, "too many digits"),
        ("limit = 0x" + "f" * 5000, "more than 64 bits"),
        ("a." * 10_000 + "a = 1", "more than 200 dots"),
        ("[" + "a." * 10_000 + "a]", "more than 200 dots"),
        ("# " + "x" * 300_000, "256,000 is the most"),
    ],
    ids=lambda value: value[:30],
)
@pytest.mark.parametrize("name", ["ckptswap.toml", "task.toml"])
def test_toml_that_takes_the_machine_is_a_sentence(name: str, content: str, said: str) -> None:
    Path(name).write_text(content)
    done = run(*EVALUATE, *(["-c", name] if name == "task.toml" else []))
    assert done.code == 2
    assert f"{name} is not a TOML file: " in done.err
    assert said in done.err


def test_a_pipe_as_a_task_file_is_a_sentence() -> None:
    os.mkfifo("task.toml")
    assert "neither a file nor a folder" in run(*EVALUATE, "-c", "task.toml").err


def test_what_a_shell_hands_over_is_read() -> None:
    """As for `-c <(...)`: through a pipe that is read once, though its keys and its values are asked for apart."""
    read, write = os.pipe()
    os.write(write, b"limit = 5\n")
    os.close(write)
    try:
        assert good(*EVALUATE, "-c", f"/dev/fd/{read}").json["samples"] == 5
    finally:
        os.close(read)
