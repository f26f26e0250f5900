"""Programs for tests, without a start-up of seconds: forked from a server that has torch loaded.

`Popen` and `run` are `subprocess`'s, for a command that begins with `sys.executable`. In a shell script, the PATH
of `path()` does the same for `ckptswap` and `python`. Tests of the start-up itself, of memory and of limits use
`subprocess`, and so does what changes a variable that Python or a library reads when it starts. The server of a
sweep's workers, which would import torch once more, is such a program too, but for tests of that server.

Whoever collects the tests owns the server, for all workers of pytest's.
"""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ckptswap import cli, lazy
from ckptswap.executors import forkserver
from ckptswap.executors.forkserver import Forked, ForkServer

DOOR = "PROGRAMS_FOR_TESTS"
"""The variable that names the server's socket, for pytest's workers and for scripts."""
AT_START = "PROGRAMS_FOR_TESTS_STARTED_WITH"
"""The variable that holds what the server began with of what is read at a start."""
READ_AT_START = ("OMP_", "GOMP_", "MKL_", "OPENBLAS_", "PYTHON", "LD_", "CUDA_", "LC_", "LANG")
BY_ALL = "PYTHONPATH"
"""The variable of these that a forked program reads too."""
MODULES = (
    *("torch", "segmentation_models_pytorch", "transformers.modeling_utils", "jinja2", "ml_dtypes"),
    *(f"ckptswap.cli.{module.name}" for module in pkgutil.iter_modules(cli.__path__)),
    *(f"{package}.{room}" for room, package in lazy.ROOMS.items() if room != "figures"),
    "within",
)
"""What most programs would import, each for itself; the last is beside this file."""
NETWORKS = ("bart", "bert", "gpt2", "llama", "mixtral", "t5")
TESTED = (
    *("hypothesis.extra.numpy", "jsonschema", "scipy.optimize", "scipy.stats", "ckptswap.report.figures"),
    *("torch._dynamo", "torch._inductor", "torch.fx.experimental.proxy_tensor", "torch.utils.flop_counter"),
    *("lightning", "peft", "timm", "torchmetrics", "torchvision", "transformers"),
    *(f"transformers.models.{name}.modeling_{name}" for name in NETWORKS),
)
"""What tests import beside that, as far as it starts no thread."""
SHIM = """#!{python} -S
import importlib.util
import json
import os
import signal
import socket
import sys

spec = importlib.util.spec_from_file_location("forkserver", {forkserver!r})
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
connection = socket.socket(socket.AF_UNIX)
connection.connect({door!r})
words = {words!r} + sys.argv[1 + (sys.argv[1:2] == ["-u"]) :]
program = module.Forked(connection, words, range(3), env=os.environ, cwd=os.getcwd())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(program.pid, number))
code = program.wait()
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""
"""A program that asks the server for another, and ends as that does."""


_ours: dict[str, ForkServer] = {}
"""This process's servers, by the path of the socket where each is asked."""


def serve() -> None:
    """Begin the server, for as long as this process lives; it imports nothing before a program is asked for."""
    folder = tempfile.TemporaryDirectory(prefix="ckptswap-door-", dir="/tmp")  # a socket's path is short
    os.environ[DOOR] = f"{folder.name}/socket"
    os.environ[AT_START] = read_at_start(os.environ)
    _listen(os.environ[DOOR], _fresh, folder)
    for name, words in (("python", []), ("ckptswap", ["-m", "ckptswap"])):
        _write_shim(name, os.environ[DOOR], words)


def serve_tests(modules: Sequence[str]) -> str:
    """Begin another server, of these modules too, and return a `python` of that: for pytest's workers."""
    door = str(Path(os.environ[DOOR]).with_name("tests"))
    _listen(door, partial(ForkServer, modules))
    return _write_shim("python-of-tests", door, [])


def _write_shim(name: str, door: str, words: Sequence[str]) -> str:
    shim = Path(os.environ[DOOR]).with_name(name)
    text = {"python": sys.executable, "forkserver": forkserver.__file__, "door": door, "words": words}
    shim.write_text(SHIM.format(**text))
    shim.chmod(0o755)
    return str(shim)


def _fresh() -> ForkServer:
    paths = [os.environ.get(BY_ALL), str(Path(__file__).parent)]
    with patch.object(forkserver, "subprocess", subprocess):
        return ForkServer(MODULES, {**os.environ, BY_ALL: os.pathsep.join(filter(None, paths))})


def fork_servers_too() -> None:
    """Let other servers, such as that of a sweep's workers, begin like other programs."""
    forkserver.subprocess = SimpleNamespace(Popen=Popen, DEVNULL=subprocess.DEVNULL)  # type: ignore[assignment]


def end() -> None:
    """End the servers, where they are this process's."""
    while _ours:
        _ours.popitem()[1].close()


def _listen(door: str, begin: Callable[[], ForkServer], *kept: object) -> None:
    """Begin a server and hand on whoever comes to its door; what is `kept` is there meanwhile."""

    def let_in() -> None:
        while kept is not None:
            with listening.accept()[0] as connection:
                try:
                    _ours[door].hand_in(connection)
                except OSError:  # someone has ended it
                    _ours[door] = begin()
                    _ours[door].hand_in(connection)

    _ours[door] = begin()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(door)
    listening.listen(64)
    threading.Thread(target=let_in, daemon=True).start()


def read_at_start(env: Mapping[str, str]) -> str:
    """What of an environment is read when Python or a library starts."""
    names = (name for name in sorted(env) if name.startswith(READ_AT_START) and name != BY_ALL)
    return json.dumps({name: env[name] for name in names})


class _Program(subprocess.Popen[Any]):
    """`subprocess.Popen`, but for how a process is begun and awaited."""

    def _execute_child(self, *given: Any) -> None:
        how = inspect.signature(super()._execute_child).bind(*given).arguments  # type: ignore[misc]
        pipes = [how[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [number if pipe < 0 else pipe for number, pipe in enumerate((pipes[0], pipes[3], pipes[5]))]
        words, env = [os.fspath(word) for word in how["args"][1:]], how["env"] or os.environ
        try:
            self._forked = forked(words, streams, env=env, cwd=os.path.abspath(how["cwd"] or "."))
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]
        self.pid, self._child_created = self._forked.pid, True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self.returncode = self._forked.wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            self.returncode = self._forked.wait(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode


def forked(words: Sequence[str], streams: Sequence[int], *, env: Mapping[str, str], cwd: str) -> Forked:
    """Ask the server for `python WORDS`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ[DOOR])
    return Forked(connection, words, streams, env=env, cwd=cwd)


def Popen(command: Sequence[Any], **how: Any) -> subprocess.Popen[Any]:
    """Begin a program, by the server where that makes no difference."""
    env = how.get("env") or os.environ
    is_python = str(command[0]) == sys.executable and DOOR in os.environ
    is_alike = is_python and os.environ[AT_START] == read_at_start(env)
    return (_Program if is_alike else subprocess.Popen)(command, **how)


def run(command: Sequence[Any], **how: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end, as `subprocess.run` does."""
    began = subprocess.Popen

    def begin(*given: Any, **more: Any) -> subprocess.Popen[Any]:
        with patch.object(subprocess, "Popen", began):
            return Popen(*given, **more)

    with patch.object(subprocess, "Popen", begin):
        return subprocess.run(command, **how)


def python() -> str:
    """Return a `python` that is the server's; beside it lies such a `ckptswap`."""
    return str(Path(os.environ[DOOR]).with_name("python"))


def path() -> str:
    """Return a PATH on which `ckptswap` and `python` are the server's."""
    places = [str(Path(program).parent) for program in (python(), sys.executable)]
    return os.pathsep.join([*places, os.environ["PATH"]])
