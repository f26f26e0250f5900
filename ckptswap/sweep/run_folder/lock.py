"""Who works on a run folder: one sweep at a time, also where the folder is on a network.

NFS has no honest flock, so the lock is a file that its holder touches every few seconds, by the file system's own
clock. A holder on this machine is looked for among the processes: a killed sweep can be continued at once.
"""

import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ckptswap.errors import RunError
from ckptswap.sweep.run_folder.plain import LOCK, faults, read_plain
from ckptswap.sweep.run_folder.sealed import sealed, unsealed

LOCK_MOST = 10_000  # bytes
PID_MOST = 1 << 31
BEAT = 5.0  # seconds between two touches
DEAD = 6 * BEAT  # seconds without one after which a holder on another machine counts as dead


class Lock:
    """The lock of a run folder, held within the `with` block. The folder is made where it is missing. Raises
    `RunError` where somebody else holds it, naming machine and process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._me = {"host": _host(), "pid": os.getpid(), "process": _process(os.getpid())}
        self._me["token"] = secrets.token_hex(8)
        self._ended = threading.Event()
        self.is_lost = False

    def __enter__(self) -> "Lock":
        with faults(f"cannot make {self.path.parent}"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with faults(f"cannot lock {self.path.parent}"):
            while not self._create():
                self._take_over()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if _read(self.path) == self._me:
            with suppress(OSError):
                self.path.unlink()

    def check(self) -> None:
        """Raises `RunError` when this process was held for dead, and another has taken over."""
        if self.is_lost:
            remedy = "what was finished until then is kept"
            raise RunError(f"another sweep has taken over {self.path.parent}", remedy=remedy)

    def _create(self) -> bool:
        """Link a finished file to the name: on NFS too, only one of several can."""
        beside = self.path.with_name(f".{LOCK}.{self._me['token']}")
        beside.write_text(sealed(self._me))
        try:
            os.link(beside, self.path)
            return True
        except FileExistsError:
            return False
        finally:
            beside.unlink()

    def _take_over(self) -> None:
        """Remove the lock of a dead holder; raises `RunError` when it is alive."""
        holder = _read(self.path)
        if holder is None:
            return  # released just now
        if _is_alive(self.path, holder):
            who = "somebody unknown"
            if {"host", "pid"} <= holder.keys():
                who = f"process {holder['pid']} on {str(holder['host']).split(' ')[0]}"
            remedy = f"wait for it, or use another --run (if it is gone for good, delete {self.path})"
            raise RunError(f"{self.path.parent} is worked on by {who}", remedy=remedy)
        aside = self.path.with_name(f".{LOCK}.{self._me['token']}.dead")
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if _read(aside) != holder:  # somebody was faster, and this is theirs
                with suppress(FileExistsError):
                    os.link(aside, self.path)
            aside.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            if _read(self.path) != self._me:
                self.is_lost = not self._ended.is_set()
                return
            with suppress(OSError):
                os.utime(self.path)


def is_held(folder: Path) -> bool:
    """Whether a living process works on a run folder."""
    holder = _read(folder / LOCK)
    return holder is not None and _is_alive(folder / LOCK, holder)


def _is_alive(path: Path, holder: dict[str, Any]) -> bool:
    if holder.get("host") == _host():
        pid, process = holder.get("pid"), holder.get("process")
        return type(pid) is int and process is not None and _process(pid) == process
    return _age(path) < DEAD


def _age(path: Path) -> float:
    """Seconds since the holder's last touch, by the file system's clock; by ours where it can only be read."""
    probe = path.with_name(f".{LOCK}.{secrets.token_hex(8)}.now")
    now = time.time()
    with suppress(OSError):
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    try:
        return now - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path) -> dict[str, Any] | None:
    """Who holds it; None without a file, {} where it is damaged. Raises `RunError` for a link or a pipe."""
    try:
        return unsealed(read_plain(path, LOCK_MOST))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}


def _host() -> str:
    """This machine, and which of its containers: a process has a number of its own in each."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino}"
    return socket.gethostname()


def _process(pid: int) -> str | None:
    """What tells this process from a later one with its number; None where there is none, or it has ended."""
    if not 0 < pid < PID_MOST:
        return None
    with suppress(OSError, ValueError):
        # The name, in brackets, may hold spaces; state is the first field after it, the starting time the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "" if not os.path.exists("/proc/self/stat") else None
