"""Commands on a stranger's files under limits, each in a process forked from one that has imported everything."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5
MEGABYTES = 500
COMMANDS = ("show", "diff", "convert", "verify", "complete")
CHILD = f"""
import json, os, resource, sys, tempfile
from types import SimpleNamespace
import numpy
import ckptswap.cli.main, ckptswap.cli.diff, ckptswap.cli.show, ckptswap.cli.convert, ckptswap.cli.verify
import ckptswap.diff, ckptswap.verify, ckptswap.report.diff, ckptswap.report.checkpoint
import ckptswap.formats.distributed, ckptswap.formats.torch_zip, ckptswap.formats.torch_legacy
from ckptswap.cli.completion import complete_layers, complete_names

def begin(command, path):
    if command == "complete":
        given = SimpleNamespace(params={{"checkpoint": path}})
        complete_layers(given, "")
        print(len(complete_names(given, "")))
        return
    words = {{"diff": [path, path], "convert": [path, os.environ["TARGET"], "--force"]}}.get(command, [path])
    sys.argv = ["ckptswap", command, *words]
    ckptswap.cli.main.main()

def forked(command, path):
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    pid = os.fork()
    if pid:
        _, status, used = os.wait4(pid, 0)
        sizes = [os.fstat(each.fileno()).st_size for each in (out, err)]
        err.seek(0)
        return {{"path": path, "command": command, "status": status, "megabytes": used.ru_maxrss // 1024,
                "seconds": used.ru_utime + used.ru_stime,
                "out": sizes[0], "err": err.read(100_000).decode()}}
    os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    code = 70
    try:
        begin(command, path)
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)

for path in json.loads(sys.argv[1]):
    for command in json.loads(sys.argv[2]):
        print(json.dumps(forked(command, path)), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended on a file, and at what cost."""

    path: str
    command: str
    status: int
    megabytes: int
    seconds: float
    out: int
    err: str

    @property
    def said(self) -> str:
        """Its last line on stderr."""
        return (self.err.splitlines() or [""])[-1]

    @property
    def fault(self) -> str:
        """What it did that no command may do on any file; empty where it did nothing of the kind."""
        if self.status not in (0, 2 << 8) and not (self.status == 1 << 8 and self.command == "diff"):
            return f"ended with {self.status >> 8 or -self.status}: {self.err[-500:]}"
        if self.megabytes > MEGABYTES:
            return f"took {self.megabytes} MB"
        if len(self.err) > 4000 or self.out > 200_000 or "Traceback" in self.err:
            return f"said too much: {self.out} B and {self.err[:300]}"
        return ""


def tried(paths: Iterable[Path], folder: Path, commands: Iterable[str] = COMMANDS) -> list[Ended]:
    """Every command on every file, all in one child."""
    words = [json.dumps(list(map(str, paths))), json.dumps(list(commands))]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words], capture_output=True, text=True, cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TARGET": str(folder / "out.safetensors"), "HOME": str(folder)}, check=True,
    )  # fmt: skip
    return [Ended(**json.loads(line)) for line in done.stdout.splitlines()]
