"""`import ckptswap as cs`: the answers that the rooms give, light to import, and results that show themselves."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import ckptswap as cs
from ckptswap.errors import CkptswapError, FileError, MismatchError, SelectionError
from ckptswap.report.text import safe

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def checkpoint(value: float, **more: np.ndarray) -> cs.Checkpoint:
    arrays = {
        "enc.conv.weight": np.full((2, 1, 3, 3), value, np.float32),
        "enc.conv.bias": np.full(2, value, np.float32),
        "enc.bn.running_mean": np.full(2, value, np.float32),
        "enc.bn.running_var": np.full(2, value, np.float32),
    }
    return cs.Checkpoint.from_arrays(arrays | more)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Zeros and ones, as files."""
    for name, value in (("zeros", 0), ("ones", 1)):
        cs.save(checkpoint(value), tmp_path / f"{name}.safetensors")
    return tmp_path / "zeros.safetensors", tmp_path / "ones.safetensors"


# Answers ---------------------------------------------------------------------------------------------------------


def test_open_reads_what_save_wrote(files: tuple[Path, Path]) -> None:
    with cs.open(files[1]) as found:
        assert found.read("enc.conv.bias").tolist() == [1, 1]
    with pytest.raises(FileError):
        cs.save(checkpoint(2), files[1])
    cs.save(checkpoint(2), files[1], force=True)
    with cs.open(files[1]) as found:
        assert found.read("enc.conv.bias").tolist() == [2, 2]


def test_a_saved_copy_keeps_the_metadata(files: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones(2)}, tmp_path / "said.safetensors", metadata={"who": "me"})
    with cs.open(tmp_path / "said.safetensors") as found:
        cs.save(found, tmp_path / "copy.safetensors")
    with cs.open(tmp_path / "copy.safetensors") as found:
        assert found.metadata["who"] == "me"


@pytest.mark.parametrize("as_paths", [True, False])
def test_diff_takes_paths_and_checkpoints(files: tuple[Path, Path], as_paths: bool) -> None:
    a, b = files if as_paths else map(cs.open, files)
    found = cs.diff(a, b, kind="bn.stats")
    assert {row.name for row in found.rows} == {"enc.bn.running_mean", "enc.bn.running_var"}
    assert found.summary["changed"] == 2
    assert cs.diff(a, b, only=["enc.conv.*"], stat=True).summary["unread"] == 2


def test_a_variant_is_a_checkpoint_and_nothing_is_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    variant = cs.transplant(files[1], files[0], kind="conv.bias")
    assert sorted(tmp_path.iterdir()) == before
    assert {name: float(variant.read(name).max()) for name in variant} == {
        "enc.bn.running_mean": 0, "enc.bn.running_var": 0, "enc.conv.bias": 1, "enc.conv.weight": 0,
    }  # fmt: skip
    assert [row.name for row in cs.diff(files[0], variant).rows if row.status == "changed"] == ["enc.conv.bias"]


def test_transplant_writes_where_it_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    written = cs.transplant(files[1], files[0], out, layers="enc.bn", alpha=0.5)
    assert written.path == str(out)
    assert written.read("enc.bn.running_var").tolist() == [0.5, 0.5]
    assert "ckptswap.transplant" in written.metadata
    with pytest.raises(FileError):
        cs.transplant(files[1], files[0], out)


def test_errors_are_those_of_the_tree(files: tuple[Path, Path]) -> None:
    with pytest.raises(SelectionError):
        cs.diff(*files, kind="conv.bais")
    with pytest.raises(MismatchError):
        cs.transplant(checkpoint(1), checkpoint(0, other=np.ones(3)))
    with pytest.raises(CkptswapError):
        cs.open("nowhere.safetensors")


TASK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))

    def forward(self, x):
        return self.body(x)

def data():
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(1, 12, 12, generator=draw) for _ in range(16)]
    return [(image, (image > 0.5).long()[0]) for image in images]
"""


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    """A task of the user's, and two networks for it."""
    import torch

    (tmp_path / "own.py").write_text(TASK)
    namespace: dict = {}
    exec(TASK, namespace)
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(namespace["Net"]().state_dict(), tmp_path / f"{seed}.pt")
    own = tmp_path / "own.py"
    return {"model": f"{own}:Net", "data": f"{own}:data", "metric": "iou"}


def test_sweep_report_and_evaluate_agree_with_each_other(pair: dict[str, str], tmp_path: Path) -> None:
    a, b = tmp_path / "1.pt", tmp_path / "0.pt"
    result = cs.sweep(a, b, run=tmp_path / "run", by=["kind", "layer,kind"], **pair)
    assert [finding.claim for finding in result.findings] != []
    assert cs.report(tmp_path / "run") == result
    row = next(row for row in result.rows if row.kind == "conv.weight" and row.layer == "body.0")
    variant = cs.transplant(a, b, tmp_path / "variant.safetensors", only=[f"={name}" for name in row.tensors])
    scored = cs.evaluate([variant, b], **pair)
    assert scored.scores[0]["iou"].estimate == pytest.approx(row.score, abs=1e-12)
    assert scored.scores[1]["iou"].estimate == pytest.approx(result.baseline, abs=1e-12)
    assert cs.sweep(a, b, run=tmp_path / "run", by=["kind", "layer,kind"], **pair) == result
    cs.report(tmp_path / "run", page=tmp_path / "page.html")
    assert "<!doctype html>" in (tmp_path / "page.html").read_text("utf-8")
    assert "Net" in (tmp_path / "run/plan.json").read_text("utf-8")


def test_a_word_makes_a_donor(pair: dict[str, str], tmp_path: Path) -> None:
    result = cs.sweep("zeros", tmp_path / "0.pt", run=tmp_path / "run", by="kind", **pair)
    assert {row.layer for row in result.rows} == {None}
    assert [donor.path for donor in result.donors] == ["zeros"]


# How it is imported ----------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_loads_nothing_heavy() -> None:
    assert not {"torch", "numpy", "rich", "plotly"} & loaded_by("import ckptswap as cs")
    code = (
        "import ckptswap as cs; import numpy; a = cs.Checkpoint.from_arrays({'w': numpy.ones(2)}); cs.diff(a, a)"
    )
    assert not {"torch", "segmentation_models_pytorch", "plotly", "matplotlib", "IPython"} & loaded_by(code)


def test_functions_can_be_called_whatever_was_imported() -> None:
    code = (
        "import ckptswap.diff, ckptswap.transplant, ckptswap.report.text, ckptswap.sweep.plan, ckptswap as cs\n"
        "from ckptswap.diff import READ\nfrom ckptswap import sweep\n"
        "assert all(map(callable, (cs.diff, cs.transplant, cs.report, cs.sweep, sweep)))"
    )
    loaded_by(code)
    assert set(cs.__all__) <= set(dir(cs))
    with pytest.raises(AttributeError, match="difff"):
        cs.difff  # noqa: B018


def test_a_room_is_a_module_still() -> None:
    import ckptswap.diff

    assert ckptswap.diff.diff(checkpoint(0), checkpoint(1)).differs  # type: ignore[attr-defined]
    assert list(inspect.signature(cs.diff).parameters)[:2] == ["a", "b"]


# How it looks ----------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags that are open, and all that were seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(text: str) -> set[str]:
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    return parser.seen


def on_terminal(shown: object, width: int = 80) -> str:
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(shown)
    return out.getvalue()


@pytest.mark.parametrize("what", ["checkpoint", "diff", "sweep", "evaluation"])
def test_results_show_themselves(what: str, pair: dict[str, str], tmp_path: Path) -> None:
    shown: object = {
        "checkpoint": lambda: cs.open(tmp_path / "0.pt"),
        "diff": lambda: cs.diff(tmp_path / "0.pt", tmp_path / "1.pt"),
        "sweep": lambda: cs.sweep(tmp_path / "1.pt", tmp_path / "0.pt", run=tmp_path / "run", **pair),
        "evaluation": lambda: cs.evaluate(tmp_path / "0.pt", **pair),
    }[what]()
    text, page = on_terminal(shown), shown._repr_html_()  # type: ignore[attr-defined]
    word = "0.pt" if what == "evaluation" else "body.0"
    assert word in text
    assert word in page
    assert max(map(len, text.splitlines())) <= 80
    assert {"table", "td"} <= tags(page) <= {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p",
                                             "details", "summary"}  # fmt: skip


def test_names_from_a_file_stay_text() -> None:
    a, b = (checkpoint(1, **{HOSTILE: np.full(3, value)}) for value in (0, 1))
    for shown in (a, cs.diff(a, b)):
        page = shown._repr_html_()  # type: ignore[attr-defined]
        assert "script" not in tags(page)
        assert "\x1b" not in page
        assert safe(HOSTILE)[:8].replace("<", "&lt;")[:6] in page
        assert "\x1b" not in on_terminal(shown)


def test_what_is_long_is_cut_and_counted() -> None:
    long = cs.Checkpoint.from_arrays({f"w{at}": np.ones(1) for at in range(100)})
    assert "and 60 more" in long._repr_html_()  # type: ignore[attr-defined]
