"""A module that is registered under two names: `functional_call` left such a model changed, and the sweep crashed.

Relatives: a base model beside its own layers, a Siamese tower, layers by name and in a list, an LSTM and a layer
with weight norm under two names; control flow that depends on values; the gradients of `--screen`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sweeping import prepare, ran, sweep
from tied_networks import built, groups, hold_rows, opened, save_pair, task

from ckptswap.scoring.graph import capture
from ckptswap.scoring.guards import Uncapturable
from ckptswap.sweep.screen import screen

NETWORKS = ["Registered", "BaseModel", "Siamese", "Listed", "Recurrent", "Normed"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("engine", ["replay", "full"])
@pytest.mark.parametrize("model", NETWORKS)
def test_every_row_is_the_plain_loops(model: str, engine: str) -> None:
    save_pair(model)
    theirs, ours = (torch.load(path, weights_only=True) for path in ("a.pth", "b.pth"))
    result = sweep(*opened("a.pth", "b.pth"), task(model), run_dir="run", engine=engine)
    hold_rows(result.rows, model, ours, theirs)
    distinct = {frozenset(each) for each in groups(model).values()}
    assert {frozenset(row.tensors) for row in result.rows} == distinct, "one row a tensor, naming all its names"
    assert sum(row.numel for row in result.rows) == sum(ours[min(each)].numel() for each in distinct)


@pytest.mark.parametrize("model", [*NETWORKS, "Decides", "Head", "Alias", "Buffers"])
def test_a_model_is_left_as_it_was(model: str) -> None:
    save_pair(model)
    net, batch = built(model), torch.rand(2, 1, 8, 8)
    tables = [table for module in net.modules() for table in (module._parameters, module._buffers)]
    before = [{name: id(value) for name, value in table.items()} for table in tables]
    bits = {name: value.clone() for name, value in net.state_dict().items()}
    try:
        capture(net, batch, lambda found: found)
    except Uncapturable:
        assert model == "Decides"
    assert [{name: id(value) for name, value in table.items()} for table in tables] == before
    assert all(torch.equal(value, bits[name]) for name, value in net.state_dict().items())


def test_what_cannot_be_captured_is_run_in_full_and_is_right() -> None:
    save_pair("Decides")
    theirs, ours = (torch.load(path, weights_only=True) for path in ("a.pth", "b.pth"))
    proposal = prepare(*opened("a.pth", "b.pth"), task("Decides"), run_dir="run")
    hold_rows([row for row in ran(proposal).rows if row.status == "measured"], "Decides", ours, theirs)
    assert any("every variant is run in full" in note for note in proposal.scorer.notes)


@pytest.mark.parametrize(
    ("model", "engine"), [("Registered", "full"), *((each, "auto") for each in ("BaseModel", "Siamese", "Listed"))]
)
def test_gradients_have_one_value_a_tensor(model: str, engine: str) -> None:
    """|Σ gradient × difference|, as one backward pass of the plain model gives it."""
    save_pair(model)
    theirs, ours = (torch.load(path, weights_only=True) for path in ("a.pth", "b.pth"))
    spec = task(model, data="net.py:pictures", metrics=("mse",), batch_size=4)
    proposal = prepare(*opened("a.pth", "b.pth"), spec, run_dir="run", engine=engine, screen="gradient")
    ran(proposal, tolerance=0.1)
    net = built(model)
    net.load_state_dict(ours)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    (net(x) - x.expand(-1, 2, -1, -1)).square().mean().backward()
    slopes = {name: each.grad for name, each in net.named_parameters() if each.grad is not None}
    guessed = screen("gradient", proposal.runs_model, proposal.variants)
    cells = [cell for cell in proposal.plan.cells if any(name in slopes for name in cell.names)]
    assert cells
    for cell in cells:
        name = next(name for name in cell.names if name in slopes)
        expected = abs((slopes[name] * (theirs[name] - ours[name])).sum().item())
        assert guessed[cell.variant] == pytest.approx(expected, rel=1e-4, abs=1e-7), cell.names
