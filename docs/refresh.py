"""Write the outputs in README.md and the screenshot anew, from a folder that `ckptswap demo` left:

python docs/refresh.py ckptswap-demo
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
BLOCK = re.compile(r"```sh\n(?P<command>.*?)```\n```text\n.*?```", re.DOTALL)


def refreshed(text: str, folder: Path) -> str:
    """The text with the output of each command below it, stdout only, as a person would see it."""

    def run(found: re.Match[str]) -> str:
        done = subprocess.run(
            ["bash", "-c", found["command"]], cwd=folder, capture_output=True, text=True, check=True
        )
        return f"```sh\n{found['command']}```\n```text\n{done.stdout.rstrip()}\n```"

    return BLOCK.sub(run, text)


def screenshot(folder: Path, target: Path) -> None:
    """The sweep's table and heatmap in colour, as SVG."""
    from ckptswap.cli.sweep import judged
    from ckptswap.report.heatmap import heatmap
    from ckptswap.report.sweep import sweep_table
    from ckptswap.report.text import Style

    result, look = judged(str(folder / "run")), Style(width=100, colour=True)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(Text("$ ckptswap report run --top 12\n", style="bold"))
    console.print(Text.from_ansi(sweep_table(result, look, top=12) + "\n" + heatmap(result, look)))
    # rich's template fetches a font from the network; any monospaced one will do.
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="ckptswap"), flags=re.DOTALL))


if __name__ == "__main__":
    demo = Path(sys.argv[1])
    readme = HERE.parent / "README.md"
    readme.write_text(refreshed(readme.read_text("utf-8"), demo), "utf-8")
    screenshot(demo, HERE / "sweep.svg")
