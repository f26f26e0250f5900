"""What has to hold of a damaged file: it is read, or refused in a sentence; nothing is run, opened or taken."""

from __future__ import annotations

import encodings
import faulthandler
import importlib
import json
import os
import pkgutil
import random
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from mmap import mmap
from pathlib import Path

from specimens import Specimen

from ckptswap import formats, registry
from ckptswap.errors import CkptswapError
from ckptswap.watching import unwatched

CPU_MOST = 5
"""Seconds of work after which it counts as hanging."""
WAIT_MOST = 60  # seconds of sleep after which it counts as waiting for ever
FLOOR = 64 << 20
"""Bytes that reading may take of any file, besides four times what the file has."""
ADDRESSES_MOST = 2 << 30  # bytes of addresses that a child may take besides
SENTENCE_MOST = 4100  # letters of a refusal
_EFFECTS = (
    "open",
    "import",
    "exec",
    "os.",
    "subprocess.",
    "socket.",
    "shutil.",
    "ctypes.",
    "pty.",
    "webbrowser.",
    "urllib.",
    "http.",
    "ftplib.",
    "smtplib.",
    "tempfile.",
    "glob.",
    "mmap.",
    "pickle.",
    "marshal.",
    "code.__new__",
    "builtins.input",
    "builtins.breakpoint",
    "sys.settrace",
    "sys.setprofile",
)
"""How the names of those of Python's audit events begin that nothing which a file says may bring about."""


class EffectError(BaseException):
    """A file had something done."""


_OWN = [
    ("os.fork",),
    ("os.kill",),
    ("open", "/proc/self/statm"),
    ("open", os.devnull),  # h5py's work is done apart
    ("open", 0),
    ("open", 1),
    ("open", 2),
]
"""What our readers do, whatever a file says."""
_state = {"watched": False}
_effects = mmap(-1, 4096)
"""What was done, also in processes that were begun; empty where nothing was."""


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _state["watched"] and event.startswith(_EFFECTS):
        if event == "os.truncate" and isinstance(arguments[0], int):  # a file in memory, lent to safetensors
            return
        if event == "socket.__new__" and arguments[1] == socket.AF_UNIX:  # a pair, of which a child has the other
            return
        if (event,) in _OWN or (event, *arguments[:1]) in _OWN:
            return
        told = f"{event} {arguments!r:.200}"
        _effects[:] = told.encode("utf-8", "replace")[:4096].ljust(4096, b"\0")
        raise EffectError(told)


def watch() -> None:
    """Watch what is done while a file is exercised; this cannot be undone in a process. What is imported when it
    is first needed is imported now: later, an import is an effect."""
    for room in (formats, encodings):
        for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            with suppress(ImportError):  # of another system's
                importlib.import_module(module.name)
    list(registry.every("formats"))  # other packages' too
    sys.addaudithook(_hook)


def exercise(specimen: Specimen, files: dict[str, bytes]) -> bool:
    """Read all of it; whether it is one that can be read. Only our errors are caught."""
    _effects[:1] = b"\0"
    _state["watched"] = True
    try:
        with specimen.open(files) as found:
            for entry in found.values():
                for _ in entry.chunks():
                    pass
            for damage in found.damage(unwatched):
                _check(damage.fault)
            specimen.read(found)
            _ = (
                *found.notes,
                found.unread_note,
                *map(str, found.unread.values()),
                found.nbytes,
                json.dumps(dict(found.metadata)),
            )
            return True
    except CkptswapError as error:
        _check(str(error))
        return False
    finally:
        _state["watched"] = False
        if _effects[:1] != b"\0":
            raise EffectError(_effects[:].rstrip(b"\0").decode("utf-8", "replace"))


def _check(sentence: str) -> None:
    """A refusal says something, of a length that a person reads; lines that a file's names break into are made
    visible where it is printed."""
    if not sentence.strip() or len(sentence) > SENTENCE_MOST:
        raise AssertionError(f"a refusal: {sentence!r:.2000}")


@dataclass
class Tally:
    """What came of some mutations of one specimen; times in seconds of work, memory in bytes."""

    mutations: int = 0
    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    slowest_at: int = -1
    memory: int = 0
    memory_at: int = -1
    faults: dict[str, list[int]] = field(default_factory=dict)
    """What went wrong, in a line, and the numbers of the mutations."""

    def add(self, other: Tally) -> None:
        self.mutations += other.mutations
        self.read += other.read
        self.refused += other.refused
        if other.slowest > self.slowest:
            self.slowest, self.slowest_at = other.slowest, other.slowest_at
        if other.memory > self.memory:
            self.memory, self.memory_at = other.memory, other.memory_at
        for fault, at in other.faults.items():
            self.faults.setdefault(fault, []).extend(at)


def files_of(specimen: Specimen, seed: int, at: int) -> dict[str, bytes]:
    """The mutation of that number; the same ever after."""
    return specimen.damaged(random.Random(seed << 40 | at))


def run(specimen: Specimen, seed: int, first: int, count: int, seconds: float = 1e9) -> Tally:
    """Mutations `first` … of a specimen, in a process of their own, begun anew behind each that kills it; as many
    as can be done in about so many seconds."""
    total, until = Tally(), time.monotonic() + seconds
    while total.mutations < count and (not total.mutations or time.monotonic() < until):
        total.add(_child(specimen, seed, first + total.mutations, count - total.mutations, until))
    return total


def _child(specimen: Specimen, seed: int, first: int, count: int, until: float) -> Tally:
    reached = mmap(-1, 8)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        code = 1
        try:
            _limit()
            tally = _mutations(specimen, seed, first, count, until, reached)
            os.write(writer, json.dumps(vars(tally)).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as pipe:
        waiting = _Waiting(pid, reached)
        raw = waiting.read(pipe)
    _, status = os.waitpid(pid, 0)
    if raw:
        return Tally(**json.loads(raw))
    at = int.from_bytes(reached[:], "little")
    words = {signal.SIGPROF: f"hangs: more than {CPU_MOST} s of work", signal.SIGKILL: "waits for ever"}
    how = signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else None
    fault = words.get(how, f"kills its process ({how.name})") if how else "ends its process"  # type: ignore[arg-type]
    return Tally(mutations=at - first + 1, refused=at - first, faults={fault: [at]})


@dataclass
class _Waiting:
    """Reads what a child says at its end, and ends one that gets no further."""

    pid: int
    reached: mmap

    def read(self, pipe: object) -> bytes:
        import select

        at, waited = b"", 0
        while not select.select([pipe], [], [], 1.0)[0]:
            is_asleep = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
            waited = waited + is_asleep if self.reached[:] == at else 0  # the machine may be busy
            at = self.reached[:]
            if waited > WAIT_MOST:
                os.kill(self.pid, signal.SIGKILL)
        return pipe.read()  # type: ignore[attr-defined, no-any-return]


def _limit() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES_MOST, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _mutations(specimen: Specimen, seed: int, first: int, count: int, until: float, reached: mmap) -> Tally:
    tally, clock = Tally(), time.process_time
    floor = _peak(reset=True)
    for at in range(first, first + count):
        reached[:] = at.to_bytes(8, "little")
        files = files_of(specimen, seed, at)
        signal.setitimer(signal.ITIMER_PROF, CPU_MOST)
        begin = clock()
        fault = _fault(lambda files=files: exercise(specimen, files), tally)  # type: ignore[misc]
        if (took := clock() - begin) > tally.slowest:
            tally.slowest, tally.slowest_at = took, at
        tally.mutations += 1
        if (grown := _peak() - floor) > tally.memory:
            tally.memory, tally.memory_at = grown, at
            if grown > FLOOR + 4 * sum(map(len, files.values())):
                fault = fault or f"takes much memory (more than {FLOOR >> 20} MB)"
                floor += grown
        if fault:
            tally.faults.setdefault(fault, []).append(at)
        if at % 64 == 0 and time.monotonic() > until:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    return tally


def _fault(act: Callable[[], bool], tally: Tally) -> str | None:
    try:
        is_read = act()
    except (Exception, EffectError) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ckptswap/" in frame.filename]
        last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
        return f"{type(error).__name__} at {last}: {error!s:.100}".replace("\n", " ")
    tally.read += is_read
    tally.refused += not is_read
    return None


def _peak(reset: bool = False) -> int:
    """The most bytes that this process ever had in memory."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(whose).ru_maxrss for whose in of) * 1024


def faults(tallies: dict[str, Tally]) -> list[str]:
    """All that went wrong, a line each."""
    return [
        f"{name}: {fault} ({len(at)} times; mutation {at[0]})"
        for name, tally in tallies.items()
        for fault, at in tally.faults.items()
    ]
