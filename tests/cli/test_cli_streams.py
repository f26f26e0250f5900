"""What scripts rely on whatever the command: streams, colour, exit codes, wrong usage in one line."""

from __future__ import annotations

import inspect
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import programs
import pytest
from cli_program import SWAP, Done, good, listing, program, run, run_process

from ckptswap.cli.main import SUMMARIES, Commands
from ckptswap.cli.terminal import style

COMMANDS = (
    "show", "diff", "transplant", "evaluate", "sweep", "report", "plot", "select", "train", "demo", "reproduce",
    "convert", "verify", "doctor",
)  # fmt: skip
PAIR = ["init.safetensors", "segment.safetensors"]


def one_paragraph(done: Done, code: int) -> str:
    """The error, when it is one line on stderr and nothing on stdout."""
    assert done.code == code, done.err
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("ckptswap: ")
    assert done.err[:-1].isprintable()
    return done.err


# Help and version -----------------------------------------------------------------------------------------------


def test_version_is_one_line() -> None:
    from ckptswap.version import __version__

    assert good("--version").out == f"ckptswap {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_short_and_long_help_are_the_same_and_have_examples(command: str) -> None:
    long, short = good(command, "--help"), good(command, "-h")
    assert long == short
    assert long.err == ""
    assert f"Usage: ckptswap {command}" in long.out
    assert "Examples:\n" in long.out
    assert "╭" not in long.out


def test_all_commands_are_tested_here() -> None:
    assert set(SUMMARIES) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_summary_is_the_first_sentence_of_its_command(command: str) -> None:
    """The list of commands is printed without loading them."""
    loaded = Commands()[command]
    assert inspect.cleandoc(loaded.help).split("\n\n")[0] == SUMMARIES[command]


def test_help_says_the_exit_codes() -> None:
    text = good("--help").out
    assert all(re.search(rf"\b{code}\b", text) for code in (0, 1, 2, 3, 70, 130, 141, 143))


@pytest.mark.parametrize(("words", "found"), [("ckptswap trans", "transplant"), ("ckptswap show --ki", "--kind")])
def test_shells_complete_commands_and_flags(words: str, found: str) -> None:
    asked = {"_CKPTSWAP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert run_process(env=asked) == Done(0, f"{found}\n", "")


def test_no_command_shows_the_help() -> None:
    done = run()
    assert "Usage: ckptswap" in done.out + done.err
    assert done.code in (0, 2)


# Wrong usage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("shw", "show"),
        ("show a.safetensors --formt json", "--format"),
        ("sweep --form a --to b", "--from"),
        ("show a.safetensors --format jsn", "json"),
        ("train segmnt -o x", "segment"),
        ("diff a b --sort rsme", "rmse"),
    ],
)
def test_misspelt_words_get_the_near_one(words: str, near: str) -> None:
    assert near in one_paragraph(run(*words.split()), 2)


@pytest.mark.parametrize(
    "words",
    [
        "show",
        "diff one",
        "transplant --to b",
        "report run --top 0",
        "report run --top many",
        "evaluate",
        "evaluate a --batch-size 0",
        "show a --nothing-like-it",
        "show a b c",
        "train segment -o x --steps 0",
    ],
)
def test_wrong_usage_is_one_line(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_paragraph(run(*words.split()), 2)
    assert listing(tmp_path) == {}


# Streams --------------------------------------------------------------------------------------------------------


def test_the_real_program_does_what_its_entry_point_does(work: Path) -> None:
    words = ["diff", *PAIR, "--format", "json", "--kind", "conv.*"]
    assert run_process(*words) == run(*words)


def test_result_on_stdout_only(work: Path) -> None:
    for words in (["show", PAIR[0]], ["diff", *PAIR], ["doctor"], ["verify", PAIR[0]]):
        done = good(*words)
        assert done.out.endswith("\n")
        assert done.err == ""


def test_what_user_code_prints_stays_out_of_the_result(work: Path) -> None:
    Path("mine.py").write_text(
        "import sys\ndef loud(output, target):\n    print('hello')\n    return output.mean((1, 2, 3))\n"
        "loud.direction = 'max'\n"
    )
    done = good("evaluate", PAIR[1], "--data", "scans", "--metric", "mine.py:loud", "--format", "json")
    assert done.json["samples"] == 18
    assert "hello" in done.err


def test_warnings_go_to_stderr(work: Path) -> None:
    """The donor was trained to reconstruct: it is scored against masks all the same, and that is said."""
    done = good("evaluate", "reconstruct.safetensors", "--data", "scans", "--format", "json")
    assert done.json["samples"] == 18
    assert "ckptswap: warning: reconstruct.safetensors was trained to give input" in done.err


# Colour ---------------------------------------------------------------------------------------------------------


def test_a_pipe_or_a_file_is_whole_unless_a_width_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert style().whole
    assert style("table.txt").whole
    assert (style(width=50).whole, style(width=50).width) == (False, 50)
    monkeypatch.setenv("COLUMNS", "120")
    assert (style().whole, style().width, style(width=50).width) == (False, 120, 50)


def on_a_terminal(*arguments: str, **env: str) -> bytes:
    """What the program writes when its stdout is a terminal."""
    leader, follower = pty.openpty()
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
    started = programs.Popen(
        program(*arguments), stdout=follower, stderr=subprocess.DEVNULL, env={**plain, "TERM": "xterm", **env}
    )
    os.close(follower)
    parts = []
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(leader)
    assert started.wait() == 0
    return b"".join(parts)


def test_colour_on_a_terminal_only(work: Path) -> None:
    assert b"\x1b[" in on_a_terminal("diff", *PAIR)
    assert "\x1b" not in good("diff", *PAIR).out


def test_no_color_is_honoured_on_a_terminal(work: Path) -> None:
    assert b"\x1b" not in on_a_terminal("diff", *PAIR, NO_COLOR="1")
    assert b"\x1b" not in on_a_terminal("diff", *PAIR, TERM="dumb")


def test_help_has_no_colour(work: Path) -> None:
    assert b"\x1b" not in on_a_terminal("diff", "--help", NO_COLOR="1")
    assert "\x1b" not in good("diff", "--help").out


# Exit codes -----------------------------------------------------------------------------------------------------


def test_1_only_when_asked_and_different(work: Path) -> None:
    assert run("diff", *PAIR).code == 0
    assert run("diff", *PAIR, "--exit-code").code == 1
    assert run("diff", PAIR[0], PAIR[0], "--exit-code").code == 0
    assert run("diff", *PAIR, "--exit-code", "--stat").code == 1, "nothing was compared"
    assert run("diff", PAIR[0], PAIR[0], PAIR[1], "--exit-code").code == 1
    assert run("diff", *PAIR, "--exit-code").out == run("diff", *PAIR).out


def test_70_is_a_fault_of_ours(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all\nthings")

    monkeypatch.setattr("ckptswap.report.checkpoint.show_json", broken)
    error = one_paragraph(run("show", PAIR[0]), 70)
    assert "ZeroDivisionError: of all" in error
    assert "--traceback" in error
    traced = run("show", PAIR[0], "--traceback")
    assert traced.code == 70
    assert traced.out == ""
    assert "Traceback (most recent call last)" in traced.err
    assert "in broken" in traced.err


def test_traceback_changes_no_exit_code(tmp_path: Path) -> None:
    done = run("show", tmp_path / "nowhere", "--traceback")
    assert done.code == 2
    assert "Traceback (most recent call last)" in done.err
    assert done.err.splitlines()[-1].startswith("ckptswap: ")
    assert run("--traceback", "--version").code == 0


@pytest.mark.parametrize("size", [1, 3000])
def test_141_when_the_reader_is_gone(tmp_path: Path, size: int) -> None:
    """With little to say and with more than a pipe holds."""
    import numpy as np

    from ckptswap.checkpoint import Checkpoint
    from ckptswap.formats import write_checkpoint

    arrays = {f"layer{number}.weight": np.zeros(1) for number in range(size)}
    write_checkpoint(Checkpoint.from_arrays(arrays), tmp_path / "many.safetensors")
    with programs.Popen(
        program("show", tmp_path / "many.safetensors"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as started:
        assert started.stdout
        assert started.stderr
        started.stdout.close()
        said = started.stderr.read()
    assert said == b""
    assert started.returncode == 141


@pytest.mark.parametrize("words", [["show", PAIR[0]], ["transplant", *SWAP, "-o", "out"], ["--help"]], ids=str)
def test_2_when_stdout_is_closed(work: Path, words: list[str]) -> None:
    """Before anything is written: a file that was opened then would get stdout's number."""
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *program(*words)], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("ckptswap: stdout is closed")
    assert not Path("out").exists()


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full"])
def test_stderr_that_is_closed_or_full_changes_nothing_else(work: Path, how: str) -> None:
    """Not even that a warning would go to stdout instead."""
    warned = program("diff", *PAIR, "--kind", "conv.bias,conv.bais")
    done = subprocess.run(["sh", "-c", f'"$@" {how}', "sh", *warned], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, good("diff", *PAIR, "--kind", "conv.bias").out)
    failed = subprocess.run(["sh", "-c", f'"$@" {how}', "sh", *program("show", "no")], stdout=subprocess.PIPE)
    assert (failed.returncode, failed.stdout) == (2, b"")


@pytest.mark.parametrize("how", [">/dev/full", "1</dev/null"])
def test_2_when_stdout_takes_nothing(work: Path, how: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$@" {how}', "sh", *program("show", PAIR[0])], stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 2
    assert re.fullmatch(r"ckptswap: the output could not be written \(.*\)\n", done.stderr)


IGNORED = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""How a script starts `… &`: with SIGINT ignored."""


def test_130_and_143(work: Path) -> None:
    """All while the user's own data is being read; in the background as in the foreground."""
    Path("slow.py").write_text(
        "import time\nfrom pathlib import Path\ndef build():\n    Path('started').touch()\n    time.sleep(60)\n"
    )
    sent = [([], signal.SIGINT, 130), (IGNORED, signal.SIGINT, 130), ([], signal.SIGTERM, 143)]
    for how, number, code in sent:
        words = program("evaluate", PAIR[1], "--data", "slow.py:build")
        with programs.Popen([*how, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
            wait_for(Path("started"), started)
            started.send_signal(number)
            out, err = started.communicate(timeout=60)
        assert started.returncode == code, err
        assert out == ""
        assert err.startswith("ckptswap: ")
        assert err.count("\n") == 1
        Path("started").unlink()


def wait_for(path: Path, started: subprocess.Popen[str]) -> None:
    """Until a file is there; fails when the program ends before."""
    import time

    while not path.exists():
        assert started.poll() is None, started.communicate()
        time.sleep(0.05)


def test_module_and_script_are_the_same_program(work: Path) -> None:
    script = Path(sys.executable).with_name("ckptswap")
    if not script.exists():
        pytest.skip("the package is not installed")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == good("--version").out == run_process("--version").out
