"""The user's own defaults: variables, `ckptswap.toml`, `pyproject.toml`; what wins, and what they may not say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cli_program import Done, good, run

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
        ("limits = 3", "there is no flag --limits: did you mean 'limit'?"),
        ("[swep]\njobs = 2", "did you mean 'sweep'?"),
        ("[show]\njobs = 2", "there is no flag --jobs"),
        ('out = "x"', "out has no default"),
        ("force = true", "force has no default"),
        ('data = "scans"', "data has no default"),
        ('model = "evil.py:net"', "would run code"),
        ('[sweep]\nmetric = ["iou", "evil.py:fn"]', "would run code"),
        ('limit = "many"', "limit is 'many'"),
        ("limit = [1, 2]", "limit is [1, 2]"),
        ("limit = 3 3", "is no TOML file"),
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
