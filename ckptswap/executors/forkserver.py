"""Programs of Python's that begin at once: forked from a process that has imported what takes seconds.

    python -P -m ckptswap.executors.forkserver MODULE… < DOOR

The door is a socket over which connections are handed in, one for each program. The server imports the
modules when the first comes, and forks for each: a child in a session of its own, which runs what
`python ARGUMENTS` would, with the caller's folder, environment and streams. The server ends when nobody holds
the other side of its door; its programs go on.
"""

import atexit
import gc
import importlib
import json
import operator
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are meant for programs, and must not end whom others wait for."""
Env = Mapping[str, str]
LENGTH, NUMBER = struct.Struct("!I"), struct.Struct("!i")


class ForkServer:
    """A server for programs that use `modules`; it ends with `close`, or when this process does."""

    def __init__(self, modules: Sequence[str], env: Env | None = None) -> None:
        self._door, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ckptswap.executors.forkserver", *modules],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # where a module that greets whoever imports it would be heard
                env=env,
                start_new_session=True,
            )

    def hand_in(self, connection: socket.socket) -> None:
        """Pass on a connection, to be asked over for a program; raises `OSError` where the server is gone."""
        socket.send_fds(self._door, [b"+"], [connection.fileno()])

    def connect(self) -> socket.socket:
        """Return a new connection to the server."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.hand_in(theirs)
        except OSError:
            ours.close()
            raise
        return ours

    def close(self) -> None:
        """End the server; what it has begun goes on."""
        self._door.close()
        self._process.wait()


class Forked:
    """A program that a server begins over `connection`: `arguments` as behind `python`, and its three streams.

    Raises `EOFError` or `OSError` where the server is gone.
    """

    def __init__(
        self, connection: socket.socket, arguments: Sequence[str], streams: Sequence[int], env: Env, cwd: str
    ) -> None:
        message = json.dumps({"arguments": list(arguments), "env": dict(env), "cwd": cwd}).encode()
        self._connection = connection
        self._code: int | None = None
        try:
            socket.send_fds(connection, [LENGTH.pack(len(message))], list(streams))
            connection.sendall(message)
            [self.pid] = NUMBER.unpack(_received(connection, NUMBER.size))
        except (EOFError, OSError):
            connection.close()
            raise

    def wait(self, timeout: float | None = None) -> int | None:
        """Return how it ended, as `subprocess` tells it; None where it goes on after `timeout` seconds."""
        if self._code is None:
            self._connection.settimeout(timeout)
            try:
                [status] = NUMBER.unpack(_received(self._connection, NUMBER.size))
            except (TimeoutError, BlockingIOError):
                return None
            except (EOFError, ConnectionError):  # the server is gone, and nobody knows more
                status = signal.SIGKILL
            self._code = os.waitstatus_to_exitcode(status)
            self._connection.close()
        return self._code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.wait(0) is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True)
class Request:
    """What a program is begun with."""

    arguments: list[str]
    env: dict[str, str]
    cwd: str
    streams: list[int]


class _Server:
    """Forks for whoever comes in by the door, and tells each how its program ended."""

    def __init__(self, door: socket.socket) -> None:
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in IGNORED}
        self._door, self._ready = door, selectors.DefaultSelector()
        self._ready.register(door, selectors.EVENT_READ)

    def serve(self, modules: Sequence[str]) -> Request | None:
        """Serve until the door is closed; in a child, return what it is to run."""
        while True:
            for key, _ in self._ready.select():
                if key.data:
                    self._report(key)
                    continue
                _, handles, *_ = socket.recv_fds(self._door, 1, 1)
                if not handles:
                    return None
                _load(tuple(modules))
                caller = socket.socket(fileno=handles[0])
                if (request := _read(caller)) and self._fork(caller, request):
                    return request

    def _fork(self, caller: socket.socket, request: Request) -> bool:
        """Whether this is the child."""
        with warnings.catch_warnings():  # Python 3.12 sees the threads of numpy's BLAS, which bears a fork
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if not pid:
            self._let_go(caller)
            return True
        for stream in request.streams:
            os.close(stream)
        self._ready.register(os.pidfd_open(pid), selectors.EVENT_READ, (caller, pid))
        return False

    def _let_go(self, caller: socket.socket) -> None:
        """Let go, in a child, of what is the server's; from then on it hears signals, and its caller knows it."""
        others = [key for key in self._ready.get_map().values() if key.data]
        self._ready.close()
        self._door.close()
        for other in others:
            other.data[0].close()
            os.close(other.fd)
        os.setsid()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with caller, suppress(OSError):  # a caller may be gone
            caller.sendall(NUMBER.pack(os.getpid()))

    def _report(self, ended: selectors.SelectorKey) -> None:
        self._ready.unregister(ended.fd)
        os.close(ended.fd)
        caller, pid = ended.data
        _, status = os.waitpid(pid, 0)
        with caller, suppress(OSError):
            caller.sendall(NUMBER.pack(status))


@cache
def _load(modules: tuple[str, ...]) -> None:
    """Import what is there, once, and keep it from the children's garbage collection, which would copy it."""
    for module in modules:
        with suppress(Exception, SystemExit):  # a program that needs it says why it cannot be had
            importlib.import_module(module)
    for theirs in weakref.finalize._registry:  # type: ignore[attr-defined]
        theirs.atexit = False  # torch's would take its hundreds of operators apart at the end of each program
    gc.collect()
    gc.freeze()


def _read(caller: socket.socket) -> Request | None:
    """What a caller asks for; nothing where it has gone away, or only woke the server."""
    try:
        head, streams, *_ = socket.recv_fds(caller, LENGTH.size, 3)
        message = json.loads(_received(caller, *LENGTH.unpack(head)))
    except (struct.error, EOFError, OSError):
        caller.close()
        return None
    return Request(streams=streams, **message)


def _received(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        if not (part := connection.recv(size - len(parts))):
            raise EOFError
        parts += part
    return parts


def _outcome(request: Request) -> int:
    try:
        become(request)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _leave(code: int) -> NoReturn:
    """End as Python does, but for taking every module apart, which would take as long as many a program."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream and not stream.closed:
                stream.flush()
        except OSError:
            code = code or 120
    os._exit(code)


def become(request: Request) -> None:
    """Be the program, as if this process had been begun for it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(request.streams[number], number)
        os.close(request.streams[number])
        encoding, errors = (getattr(getattr(sys, name), part) for part in ("encoding", "errors"))
        way, buffering = "w" if number else "r", 1 if name == "stderr" else -1
        stream = open(number, way, buffering, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.cwd)
    for module, seed in (("numpy", "random.seed"), ("torch", "default_generator.seed")):
        if module in sys.modules:  # or all children would draw the same numbers
            operator.attrgetter(seed)(sys.modules[module])()
    _run(request.arguments)


def _run(arguments: list[str]) -> None:
    """As `python ARGUMENTS` does, for `[-P] -m MODULE`, `-c CODE` and a script."""
    is_safe = arguments[0] == "-P"
    way, *words = arguments[is_safe:]
    here = {"-m": os.getcwd(), "-c": ""}.get(way, os.path.dirname(os.path.abspath(way)))
    told = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place not in ("", *sys.path)]
    sys.path[:] = [*([] if is_safe else [here]), *told, *sys.path]
    if way == "-m":
        sys.argv[:] = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if way == "-c":
        code = compile(words.pop(0), "<string>", "exec")
    else:
        main.__file__ = os.path.abspath(way)
        code = compile(Path(way).read_bytes(), main.__file__, "exec")
    sys.argv[:] = [way, *words]
    exec(code, main.__dict__)


if __name__ == "__main__":
    if program := _Server(socket.socket(fileno=os.dup(0))).serve(sys.argv[1:]):
        _leave(_outcome(program))
