"""Write what stands under the commands of README, CONTRIBUTING and docs anew, and the screenshot.

From a folder that `ckptswap demo` left:

python docs/refresh.py ckptswap-demo

A page's blocks run in their order in one copy of that folder. `sh` and `python` run; a block with a title is
written to the file of that name; `text` under either is what it printed. A comment above a block can say `not run
in the tests: why`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
ROOT = HERE.parent
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
GENERATED = ("cli.md", "schemas.md")


@dataclass(frozen=True)
class Block:
    """A fenced block: what a comment above it says, its language, the file it is meant for, and its text."""

    mark: str
    language: str
    title: str
    body: str
    start: int
    end: int

    @property
    def is_skipped(self) -> bool:
        return self.mark.startswith("not run")

    @property
    def runs(self) -> bool:
        return self.language in ("sh", "python") and not self.title and not self.is_skipped


def pages() -> list[Path]:
    """Every page whose blocks run: those that a program writes are held to the code by other tests."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(HERE.rglob("*.md"))]
    return [page for page in found if page.name not in GENERATED]


def blocks(text: str) -> list[Block]:
    """All fenced blocks in their order."""
    return [
        Block(
            *(found[name] or "" for name in ("mark", "language", "title", "body")),
            found.start("body"),
            found.end(),
        )
        for found in BLOCK.finditer(text)
    ]


def run(block: Block, folder: Path) -> str:
    """Run one block as a reader would, in a shell whose PATH begins with this environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "80"}
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    done = subprocess.run([*command, block.body], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 141):  # 141: `| head` closed the pipe before a command had printed all
        raise subprocess.CalledProcessError(done.returncode, block.body, done.stdout, done.stderr)
    return done.stdout


Runner = Callable[[Block, Path], str]


def outputs(text: str, folder: Path, run: Runner = run) -> Iterator[tuple[Block, str]]:
    """Each block that runs with what it printed, in this folder. Raises `CalledProcessError` where one fails."""
    for block in blocks(text):
        if block.title and not block.is_skipped:
            (folder / block.title).write_text(block.body, "utf-8")
        elif block.runs:
            yield block, run(block, folder)


def refreshed(text: str, folder: Path, run: Runner = run) -> str:
    """The text with what its blocks print below them."""
    found = {block.start: said for block, said in outputs(text, folder, run)}
    parts, last, said = [], 0, None
    for block in blocks(text):
        if block.language == "text" and said is not None:
            parts += [text[last : block.start], f"{said.rstrip()}\n"]
            last = block.start + len(block.body)
        said = found.get(block.start)
    return "".join([*parts, text[last:]])


def screenshot(folder: Path, target: Path) -> None:
    """The sweep's table and heatmap in colour, as SVG."""
    import ckptswap as cs
    from ckptswap.report.heatmap import heat_lines
    from ckptswap.report.layout import render
    from ckptswap.report.screen import sweep_table
    from ckptswap.report.text import Style

    result, look = cs.report(folder / "run"), Style(width=100, colour=True)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text("$ ckptswap report run --all --top 12\n", style="bold"))
    console.print(
        Text.from_ansi(sweep_table(result, look, top=12) + "\n" + render(heat_lines(result, look), look))
    )
    # rich's template fetches a font from the network; any monospaced one will do.
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="ckptswap"), flags=re.DOTALL))


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    for page in pages():
        with tempfile.TemporaryDirectory() as place:
            shutil.copytree(demo, Path(place) / "demo")
            page.write_text(refreshed(page.read_text("utf-8"), Path(place) / "demo"), "utf-8")
    screenshot(demo, HERE / "sweep.svg")
