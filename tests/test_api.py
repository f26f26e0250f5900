"""`import ckptswap as cs`: the answers that the rooms give, light to import, and results that show themselves."""

from __future__ import annotations

import inspect
import json
import pydoc
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rich.console import Console

import ckptswap as cs
from ckptswap.errors import CkptswapError, FileError, FormatError, MismatchError, SelectionError, UsageError
from ckptswap.report.text import safe

if TYPE_CHECKING:
    import torch

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


def test_a_variant_has_a_name_of_its_own(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The one that the command would write, where the recipient lies; halfway is not all the way."""
    whole = cs.transplant(files[1], files[0], kind="conv.bias")
    half = cs.transplant(files[1], files[0], kind="conv.bias", alpha=np.float32(0.5))
    other = cs.transplant(files[1], whole, layers="enc.bn")
    assert [each.path for each in (whole, half, other)] == [
        str(tmp_path / f"zeros+{name}@ones{end}.safetensors")
        for name, end in [("conv.bias", ""), ("conv.bias", "*0.5"), ("conv.bias@ones+enc.bn", "")]
    ]
    assert whole.path in cs.diff(files[0], whole)._repr_html_()  # type: ignore[attr-defined]
    assert files[0].read_bytes() != cs.save(whole, tmp_path / "saved.safetensors").read_bytes()


# What is in memory -----------------------------------------------------------------------------------------------


def module(dtype: str = "float32") -> torch.nn.Sequential:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn", "complex64"])
def test_modules_and_state_dicts_are_checkpoints(dtype: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {name: value.to(getattr(torch, dtype)) for name, value in module().state_dict().items()}
    state["turned"] = torch.rand(3, 2).to(getattr(torch, dtype)).T
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "a.safetensors")
    found = cs.diff(state, tmp_path / "a.safetensors")
    assert found.summary["identical"] == len(state)
    cs.save(state, tmp_path / "b.safetensors")
    assert not cs.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").differs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_module_stands_wherever_a_checkpoint_may(dtype: str, tmp_path: Path) -> None:
    net, zeros = module(dtype), {name: 0 * value for name, value in module(dtype).state_dict().items()}
    assert cs.open(net).path == "<Sequential>"
    assert not cs.diff(net, net.state_dict()).differs
    variant = cs.transplant(zeros, net, kind="conv.bias")
    assert [row.name for row in cs.diff(net, variant).rows if row.status == "changed"] == ["0.bias"]
    with cs.open(cs.save(net, tmp_path / "net.pt")) as saved:
        assert not cs.diff(saved, net).differs


def test_what_is_in_memory_is_not_copied() -> None:
    import torch

    net = module()
    found = cs.open(net)
    with torch.no_grad():
        net[0].bias.fill_(7)
    assert found.read("0.bias").tolist() == [7, 7]


def test_networks_in_memory_are_scored_and_swept(pair: dict[str, str], tmp_path: Path) -> None:
    import torch

    paths = [tmp_path / "1.pt", tmp_path / "0.pt"]
    states = [torch.load(path) for path in paths]
    assert cs.evaluate(states[0], **pair).scores == cs.evaluate(paths[0], **pair).scores
    results = [
        cs.sweep(donor, recipient, run=tmp_path / f"run{at}", by=by, **pair)
        for at, ((donor, recipient), by) in enumerate([(paths, "kind"), (states, ["kind"])])
    ]
    assert results[0].rows == results[1].rows


def unfit(kind: str) -> object:
    import torch

    return {
        "sparse": lambda: torch.zeros(2, 2).to_sparse(),
        "without values": lambda: torch.zeros(2, device="meta"),
        "text": lambda: np.array(["a"]),
        "number": lambda: 3,
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "error"),
    [("text", FormatError), ("number", UsageError)],
)
def test_what_is_no_tensor_is_named(kind: str, error: type[CkptswapError]) -> None:
    with pytest.raises(error, match="'w'"):
        cs.diff({"w": unfit(kind)}, {"w": np.ones(2)})


def test_what_lies_in_maps_is_named_by_the_way_to_it() -> None:
    assert not cs.diff({"w": {"a": np.ones(2), "more": [np.ones(3), "text"]}},
                       {"w.a": np.ones(2), "w.more.0": np.ones(3)}).differs  # fmt: skip


@pytest.mark.parametrize("kind", ["sparse", "without values"])
def test_a_tensor_without_numbers_is_not_compared(kind: str) -> None:
    assert cs.diff({"w": unfit(kind)}, {"w": np.ones(2)}).summary["unread"] == 1


@pytest.mark.parametrize("given", [3, None, dict, b"a.pt"])
def test_what_is_no_checkpoint_is_told_what_is(given: object, files: tuple[Path, Path]) -> None:
    for use in (cs.open, lambda it: cs.diff(it, files[0]), lambda it: cs.save(it, "out.npz"), cs.evaluate):
        with pytest.raises(UsageError, match=r"a state_dict, or an nn\.Module"):
            use(given)


def test_save_takes_a_path(files: tuple[Path, Path], tmp_path: Path) -> None:
    cs.save(files[1], tmp_path / "copy.npz")
    assert not cs.diff(files[1], tmp_path / "copy.npz").differs


# What is given wrongly -------------------------------------------------------------------------------------------


def test_none_is_not_given(files: tuple[Path, Path]) -> None:
    assert cs.diff(*files, only=None, exclude=None, layers=None, kind=None) == cs.diff(*files)
    with pytest.raises(UsageError, match="3 selects nothing"):
        cs.diff(*files, kind=3)


def test_nothing_to_score_is_said(files: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="there is no donor"):
        cs.sweep([], files[0])
    with pytest.raises(UsageError, match="there is no checkpoint"):
        cs.evaluate([])


def test_numpy_numbers_are_numbers(pair: dict[str, str], tmp_path: Path) -> None:
    paths, pair = (tmp_path / "1.pt", tmp_path / "0.pt"), pair | {"limit": 8}
    given = pair | {"limit": np.int64(8), "model_args": {}, "data_args": {}}
    assert cs.evaluate(paths, **given) == cs.evaluate(paths, **pair)
    found = cs.sweep(*paths, run=tmp_path / "a", by="kind", tolerance=np.float32(0.5), top=np.int8(1), **given)
    assert found.tolerance == 0.5
    assert cs.transplant(*paths, tmp_path / "half.pt", alpha=np.float32(0.5)).metadata


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf"), "0.1"])
def test_a_tolerance_is_a_number_and_not_negative(tolerance: float, pair: dict[str, str], tmp_path: Path) -> None:
    paths, run = (tmp_path / "1.pt", tmp_path / "0.pt"), tmp_path / "run"
    with pytest.raises(UsageError, match="it must be a number, 0 or more"):
        cs.sweep(*paths, run=run, by="kind", tolerance=tolerance, **pair)
    assert not run.exists()
    cs.sweep(*paths, run=run, by="kind", tolerance=0, **pair)
    with pytest.raises(UsageError, match="it must be a number, 0 or more"):
        cs.report(run, tolerance=tolerance)


def test_a_page_replaces_no_checkpoint_and_no_memory(pair: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    cs.sweep(tmp_path / "1.pt", tmp_path / "0.pt", run=run, by="kind", **pair)
    for path in (tmp_path / "0.pt", run / "plan.json", run / "journal" / "main.jsonl"):
        before = path.read_bytes()
        with pytest.raises(FileError, match="write the result elsewhere"):
            cs.report(run, page=path)
        assert path.read_bytes() == before
    for _ in range(2):
        cs.report(run, page=run / "result.html")


# A task of the user's --------------------------------------------------------------------------------------------

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
    assert result.findings == ()
    assert len(cs.report(tmp_path / "run", claims=True).findings) == 4
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
    assert not {"torch", "numpy", "rich"} & loaded_by("import ckptswap as cs")
    code = (
        "import ckptswap as cs; import numpy; a = cs.Checkpoint.from_arrays({'w': numpy.ones(2)}); cs.diff(a, a)"
    )
    assert not {"torch", "segmentation_models_pytorch", "jinja2", "matplotlib", "IPython"} & loaded_by(code)


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


@pytest.mark.parametrize("name", ["diff", "report", "sweep", "transplant"])
def test_a_room_is_documented_as_its_function(name: str) -> None:
    from ckptswap import api

    said = inspect.getdoc(getattr(api, name))
    assert said
    assert (inspect.getdoc(getattr(cs, name)) or "").startswith(said)
    assert said.splitlines()[0] in pydoc.render_doc(getattr(cs, name), renderer=pydoc.plaintext)


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


def test_an_evaluation_shows_differences_and_warnings(pair: dict[str, str], tmp_path: Path) -> None:
    both = cs.evaluate([tmp_path / "0.pt", tmp_path / "1.pt"], limit="first:4", **pair)
    page = both._repr_html_()  # type: ignore[attr-defined]
    for shown in (page, " ".join(on_terminal(both, 200).split())):
        assert f"{both.differences[0].interval.estimate:+.4f}" in shown
        assert "too few for intervals" in shown
    assert page.count("<table>") == 2
    tags(page)
    alone = cs.evaluate(tmp_path / "0.pt", **pair)
    assert alone._repr_html_().count("<table>") == 1  # type: ignore[attr-defined]


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
