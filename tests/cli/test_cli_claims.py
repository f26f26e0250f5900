"""The paper's claims are judged where somebody asks for them; a sweep of a transformer knows nothing of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_program import good, run

OWN = """
import torch
from torch import nn


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(self.embed(x)).mean(1))


def data():
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(4, 8, generator=draw), at % 2) for at in range(20)]


def spread(output, target):
    return (output[:, 0] - output[:, 1] - target).square()


spread.direction = "min"
"""
SWEEP = ["--from", "donor.pt", "--to", "recipient.pt", "--model", "own.py:Tokens", "--data", "own.py:data",
         "--metric", "own.py:spread", "--by", "kind", "--by", "layer,kind", "--threads", "1"]  # fmt: skip
OF_CONVOLUTIONS = (
    "batch norm",
    "batchnorm",
    "bn.",
    "running_mean",
    "running_var",
    "conv.",
    "convolution",
    "2008.03414",
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a transformer's pair and a sweep of it, and what the sweep printed, in `printed`."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "own.py").write_text(OWN)
    namespace: dict = {}
    exec(OWN, namespace)
    for seed, name in enumerate(("recipient", "donor")):
        torch.manual_seed(seed)
        torch.save(namespace["Tokens"]().state_dict(), folder / f"{name}.pt")
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        done = good("sweep", *SWEEP, "--run", "run")
    (folder / "printed").write_text(done.out + done.err)
    return folder


@pytest.fixture
def folder(swept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(swept)
    return swept


def test_a_sweep_of_a_transformer_says_nothing_of_batch_norm(folder: Path) -> None:
    said = {"sweep": (folder / "printed").read_text()}
    for form in ("table", "json", "csv", "md"):
        said[form] = good("report", "run", "--format", form).out
    for path in (folder / "run").glob("result.*"):
        said[path.name] = path.read_text("utf-8")
    said["plan"] = good("sweep", *SWEEP, "--run", "other", "--dry-run").out
    assert {"result.html", "result.json", "result.csv", "result.md"} < said.keys()
    assert {
        (word, where) for where, text in said.items() for word in OF_CONVOLUTIONS if word in text.lower()
    } == set()
    assert "linear.weight" in said["table"]


def test_claims_are_judged_when_asked_for(folder: Path) -> None:
    assert good("report", "run", "--format", "json").json["findings"] == []
    findings = good("report", "run", "--claims", "--format", "json").json["findings"]
    assert {finding["claim"] for finding in findings} == {
        "bn-statistics-matter-more",
        "bn-affine-reusable",
        "conv-weight-very-sensitive",
        "conv-bias-reusable",
    }
    assert {finding["verdict"] for finding in findings} == {"undecided"}
    again = good("sweep", *SWEEP, "--run", "run", "--claims", "--format", "json").json["findings"]
    assert again == findings


def test_claims_and_decide_are_refused_before_any_work(folder: Path) -> None:
    done = run("sweep", *SWEEP, "--run", "decided", "--claims", "--decide")
    assert done.code == 2
    assert "judged once" in done.err
    assert not (folder / "decided").exists()
