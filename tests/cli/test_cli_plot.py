"""`plot`, as a shell sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cli_program import good, run

STARTS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", ["heatmap", "bars", "depth", "scatter"])
@pytest.mark.parametrize("form", STARTS)
def test_every_kind_in_every_form(work_swept: Path, kind: str, form: str) -> None:
    assert good("plot", "run", "--picture", kind, "-o", f"x.{form}").out == f"x.{form}\n"
    assert Path(f"x.{form}").read_bytes().startswith(STARTS[form])


def test_a_heatmap_has_its_layers_in_execution_order(work_swept: Path) -> None:
    good("plot", "run", "-o", "x.svg")
    text = Path("x.svg").read_text()
    assert text.index(">encoder.0.conv1<") < text.index(">decoder.0.conv1<") < text.index(">head<")
    table = good("report", "run", "--all", "--width", 100).out.split("drop by layer and kind")[1]
    assert table.index("encoder.0.conv1") < table.index("decoder.0.conv1") < table.index("head ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plot", "run"], "--out"),
        (["plot", "run", "-o", "x.gif"], ".png, .svg, .pdf"),
        (["plot", "run", "--picture", "pie", "-o", "x.png"], "--picture"),
        (["plot", "nowhere", "-o", "x.png"], "nowhere"),
        (["plot", "run", "-o", "nowhere/x.png"], "no folder nowhere"),
        (["plot", "run", "-o", "scans.png"], "is a folder"),
        (["plot", "run", "--metric", "iuo", "-o", "x.png"], "iou"),
        (["plot", "run", "--kind", "bars", "-o", "x.png"], "--picture bars"),
        (["plot", "run", "--kind", "conv.wieght", "-o", "x.png"], "conv.weight"),
        (["plot", "run", "--width", "wide", "-o", "x.png"], "use column (3.5 inches), page (7), or inches"),
        (["plot", "run", "--width", "0.5", "-o", "x.png"], "--width is '0.5'"),
        (["plot", "run", "nowhere", "-o", "x.png"], "nowhere"),
    ],
    ids=str,
)
def test_used_wrong_it_says_so_and_writes_nothing(work_swept: Path, words: list[str], said: str) -> None:
    Path("scans.png").mkdir()
    before = sorted(Path().rglob("*"))
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert sorted(Path().rglob("*")) == before


def test_without_matplotlib_it_says_what_to_install(work_swept: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None; sys.argv = ['ckptswap', 'plot', 'run', '-o', 'x.png'];"
        "from ckptswap.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'ckptswap[plot]'" in done.stderr
    assert not Path("x.png").exists()
