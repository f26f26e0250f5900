"""A forked program does what a fresh one does, whatever it is and however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest

from ckptswap.executors.forkserver import Forked, ForkServer

PROGRAMS = {
    "nothing": "",
    "output": "import sys; print('a'); print('b', file=sys.stderr); sys.stdout.write('no line')",
    "input": "import sys; print(sys.stdin.read())",
    "binary": "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())",
    "streams": "import sys; print([(s.encoding.lower(), s.errors) for s in (sys.stdin, sys.stdout, sys.stderr)])",
    "words": "import sys; print(sys.argv, repr(sys.path[0]), __name__)",
    "place": "import os; print(os.getcwd(), os.environ['MARK'], sorted(os.environ))",
    "main": "import sys; print(sys.modules['__main__'].__name__, sys.modules['__main__'].x) if [x := 3] else 0",
    "code": "import sys; sys.exit(3)",
    "sentence": "import sys; sys.exit('why')",
    "none": "import sys; sys.exit(None)",
    "error": "raise ValueError('why')",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "handlers": "import signal; print([signal.getsignal(number) for number in (1, 13, 15)])",
    "interrupt": "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)",
    "at exit": "import atexit; atexit.register(print, 'bye'); print('here')",
    "thread": "import threading, time; threading.Timer(0.1, print, ['late']).start(); print('early')",
    "handles": "import os; print([n for n in range(99) if os.path.exists(f'/proc/self/fd/{n}')])",
    "torch": "import torch; print(torch.get_num_threads(), torch.ones(9) @ torch.ones(9))",
    "closed": "import sys; sys.stdout.close()",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_forked_program_is_like_a_fresh_one(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAMS[name], "one", "two words"]
    how: dict[str, Any] = {"input": "given\n", "capture_output": True, "text": True, "cwd": tmp_path}
    fresh, forked = (
        each(command, env={**os.environ, "MARK": "m"}, **how) for each in (subprocess.run, programs.run)
    )
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_modules_and_scripts_are_found_where_python_finds_them(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    text = "import sys; print(sys.argv, sys.path[0], __name__, __file__)"
    for name in ("own.py", "below/script.py"):
        (tmp_path / name).write_text(text)
    for words in (["-m", "own", "a"], ["below/script.py", "b"], ["-P", "below/script.py"]):
        command = [sys.executable, *words]
        fresh, forked = (
            each(command, cwd=tmp_path, capture_output=True, text=True) for each in (subprocess.run, programs.run)
        )
        assert (forked.stdout, forked.stderr, forked.returncode) == (fresh.stdout, fresh.stderr, 0), words


def test_it_reads_where_else_its_own_modules_lie(tmp_path: Path) -> None:
    """PYTHONPATH, which the server was begun without."""
    (tmp_path / "elsewhere.py").write_text("print('found')")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = programs.run([sys.executable, "-m", "elsewhere"], env=env, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("found\n", "")


def test_each_draws_numbers_of_its_own() -> None:
    code = "import numpy, torch, random; print(numpy.random.rand(), torch.rand(1).item(), random.random())"
    command = [sys.executable, "-c", code]
    one, other = (programs.run(command, capture_output=True, text=True).stdout.split() for _ in range(2))
    assert len(one) == 3
    assert not set(one) & set(other)


@pytest.fixture
def server(fresh_servers: None) -> Iterator[ForkServer]:
    """A server of no modules."""
    server = ForkServer([])
    yield server
    server.close()


def begin(server: ForkServer, code: str, out: int = 1) -> Forked:
    with open(os.devnull) as nothing:
        return Forked(server.connect(), ["-c", code], [nothing.fileno(), out, 2], env=os.environ, cwd="/")


def test_several_run_beside_each_other_in_sessions_of_their_own(server: ForkServer) -> None:
    sleepers = [begin(server, "import time; time.sleep(60)") for _ in range(3)]
    assert [sleeper.wait(0) for sleeper in sleepers] == [None] * 3
    assert [os.getsid(sleeper.pid) for sleeper in sleepers] == [sleeper.pid for sleeper in sleepers]
    assert begin(server, "raise SystemExit(7)").wait() == 7
    for sleeper in sleepers:
        sleeper.send_signal(signal.SIGTERM)
        assert sleeper.wait() == -signal.SIGTERM
        sleeper.send_signal(signal.SIGTERM)  # which nobody hears


def test_who_calls_and_goes_away_disturbs_nobody(server: ForkServer) -> None:
    server.connect().close()
    with server.connect() as half:
        half.sendall(b"\0\0")
    assert begin(server, "raise SystemExit(7)").wait() == 7


def test_a_server_that_is_gone_is_told_from_a_program_that_goes_on(server: ForkServer) -> None:
    ours, theirs = os.pipe()
    program = begin(server, "import os, time; os.write(1, b'%d' % os.getppid()); time.sleep(60)", theirs)
    os.kill(int(os.read(ours, 9)), signal.SIGKILL)
    assert program.wait() == -signal.SIGKILL
    os.kill(program.pid, signal.SIGKILL)
    for end in (ours, theirs):
        os.close(end)
    with pytest.raises((EOFError, OSError)):
        begin(server, "")


@pytest.mark.usefixtures("fresh_servers")
def test_modules_that_print_or_fail_are_not_heard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, text in (("chatty", "print('hello')"), ("broken", "raise RuntimeError('why')"), ("ends", "exit(3)")):
        (tmp_path / f"{name}.py").write_text(text)
    server = ForkServer(["broken", "ends", "chatty"], {**os.environ, "PYTHONPATH": str(tmp_path)})
    code = begin(server, "import sys; sys.exit(7 if 'chatty' in sys.modules else 'not loaded')").wait()
    server.close()
    assert (code, *capfd.readouterr()) == (7, "", "")
