"""Work on a stranger's file by a library in C, which such a file may bring down or keep busy for ever.

It is done in a process of its own, with bounds, which asks this one for the file's bytes and answers in JSON.
"""

import contextlib
import faulthandler
import json
import os
import resource
import signal
import socket
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ckptswap.errors import CkptswapError, FormatError
from ckptswap.storage import ByteSource

MEMORY_FREE = 256 << 20
"""Bytes that the work may take, besides what this process has, and as many as the file has."""
SECONDS_FREE = 4
SECONDS_A_MEGABYTE, SECONDS_MOST = 2, 900
"""Seconds of a processor, in all: a file of many small parts takes a second for some megabytes."""
_ASK, _DONE, _REFUSED = 0, 1, 2
_HEAD = struct.Struct("<BQQ")
_FAULTS = (OSError, ValueError, RuntimeError, LookupError, TypeError, OverflowError, MemoryError, AttributeError)


def apart(work: Callable[[ByteSource], Any], file: ByteSource) -> Any:
    """What `work` gives of a file: plain data, as JSON carries them.

    Raises `ValueError` that ends a sentence where the work fails, takes too long or ends its process; what reading
    the file raises; and the `FormatError` that `work` itself raises.
    """
    ours, theirs = socket.socketpair()
    with ours, warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        # Python 3.12 warns of forks beside threads: the child runs this work alone, and waits for none of theirs.
        if not (pid := os.fork()):
            ours.close()
            _work(work, file, theirs)
        theirs.close()
        try:
            kind, said = _answered(ours, file)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # whose owner may have told the system to forget children
                os.waitpid(pid, 0)
    if kind == _DONE:
        return said
    if isinstance(said, list):
        raise FormatError(said[0], remedy=said[1])
    raise ValueError(said)


def _answered(ours: socket.socket, file: ByteSource) -> tuple[int, Any]:
    """What the child says at its end, after all that it asks for."""
    while head := _received(ours, _HEAD.size):
        kind, size, offset = _HEAD.unpack(head)
        if kind == _ASK:
            raw = file.pread(min(size, max(0, file.size - offset)), offset)
            ours.sendall(struct.pack("<Q", len(raw)) + raw)
        elif len(raw := _received(ours, size)) == size:
            return kind, json.loads(raw)
    return _REFUSED, "what it says of itself cannot be followed to an end"


def _received(source: socket.socket, size: int) -> bytes:
    """So many bytes; none where the other side is gone."""
    raw = bytearray(size)
    at = 0
    with contextlib.suppress(ConnectionError):
        while at < size and (count := source.recv_into(memoryview(raw)[at:])):
            at += count
    return bytes(raw) if at == size else b""


class _Asked(ByteSource):
    """A file in the other process."""

    def __init__(self, file: ByteSource, other: socket.socket) -> None:
        self.name, self.size, self._other = file.name, file.size, other

    def pread_into(self, buffer: memoryview, offset: int) -> None:
        self._other.sendall(_HEAD.pack(_ASK, len(buffer), offset))
        there = int.from_bytes(_received(self._other, 8), "little")
        if there != len(buffer):
            raise FormatError(f"{self.name} ended at byte {offset + there}", remedy="it is cut short")
        buffer[:] = _received(self._other, there)


def _work(work: Callable[[ByteSource], Any], file: ByteSource, theirs: socket.socket) -> NoReturn:
    """What the child does, and no more: nothing that waits for its parent's end is run."""
    code = 1
    try:
        _confine(file.size)
        kind, said = _DONE, None
        try:
            said = work(_Asked(file, theirs))
        except CkptswapError as error:
            kind, said = _REFUSED, [error.message, error.remedy]
        except _FAULTS as error:
            kind, said = _REFUSED, (str(error).splitlines() or [type(error).__name__])[0][:200]
        raw = json.dumps(said).encode()
        theirs.sendall(_HEAD.pack(kind, len(raw), 0) + raw)
        code = 0
    finally:
        os._exit(code)


def _confine(size: int) -> None:
    """Bounds for this process, which is silent from here on: a library that breaks down has words of its own."""
    faulthandler.disable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 0
    seconds = min(SECONDS_MOST, SECONDS_FREE + SECONDS_A_MEGABYTE * (size >> 20))
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_CPU, seconds)
    if pages:
        _bound(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_FREE + size)


def _bound(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
