"""Cases 01, 02, 03 and 10 in other shapes, by networks of real packages: every command means whole tensors.

01, a module registered twice: attention under two names, timm's stages in a list, smp's encoder under another
name, a layer with spectral norm and a parametrisation that holds another layer, layers that run twice.
02, a shared tensor is one cell: T5, BERT's decoder and its bias, ALBERT, BART, a tied word model, a transposed
view. 03, a transplant takes all names: the same, by files of torch and of safetensors without ties. 10, one name
in the file: the same, by `save_model`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cli_program_of_cases import run
from every_command import hold_every_command
from plain import run_file
from real_tied_networks import NEEDS, Write, apart, as_pickle, built, first_name, one_name, pair_of
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from ckptswap.errors import MismatchError
from ckptswap.formats import open_checkpoint
from ckptswap.task.weights import load_into

TORCH, APART, ONE_NAME = (as_pickle, ".pt"), (apart, ".safetensors"), (one_name, ".safetensors")
FIRST_NAME = (first_name, ".safetensors")
FORMS: dict[str, tuple[tuple[Write, str], ...]] = {
    "t5": (ONE_NAME,),
    "bert": (TORCH,),
    "albert": (ONE_NAME,),
    "bart": (APART,),
    "attention": (ONE_NAME,),
    "word_model": (APART, ONE_NAME),
    "transposed": (TORCH, FIRST_NAME),
    "parametrised": (TORCH,),
    "staged": (ONE_NAME,),
    "segmenter": (APART,),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("model", "form"), [(model, form) for model, forms in FORMS.items() for form in forms],
                         ids=lambda part: part if isinstance(part, str) else part[0].__name__)  # fmt: skip
def test_every_command_takes_whole_tensors(model: str, form: tuple[Write, str]) -> None:
    if model in NEEDS:
        pytest.importorskip(NEEDS[model])
    rows = hold_every_command(pair_of(model, *form))
    assert sum(row["status"] == "measured" for row in rows) >= 3


def test_views_of_a_tensor_that_is_there_are_there_too() -> None:
    """`save_model` keeps the fused weight of which others are parts."""
    views = Path("views.py")
    views.write_text(
        "import torch\nfrom torch import nn\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fused = nn.Parameter(torch.rand(12, 8))\n"
        "        self.q, self.k = (nn.Parameter(self.fused.detach()[at : at + 4]) for at in (0, 4))\n\n"
        "    def forward(self, x):\n"
        "        return (x @ self.q.T) * (x @ self.k.T) + x @ self.fused[8:].T\n"
    )
    network: nn.Module = run_file(views)["Net"]()
    save_model(network, "b.safetensors")
    assert [*load_file("b.safetensors")] == ["fused"]
    again: nn.Module = run_file(views)["Net"]()
    load_into(again, open_checkpoint("b.safetensors"))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in again.state_dict().items())
    state = {name: value.clone() for name, value in network.state_dict().items()}
    save_file({name: value for name, value in state.items() if name != "fused"}, "parts.safetensors")
    with pytest.raises(MismatchError, match=r"1 missing \(fused\)"):
        load_into(again, open_checkpoint("parts.safetensors"))


def test_parts_of_one_tensor_that_contradict_each_other_are_refused() -> None:
    """torch would write one over the other and say nothing."""
    states = pair_of("transposed", *APART)
    network = built("transposed")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    odd = {**states.ours, "encoder.weight": states.theirs["encoder.weight"]}
    save_file({name: value.contiguous() for name, value in odd.items()}, "odd.safetensors")
    with pytest.raises(MismatchError, match=r"\(encoder\.weight ≠ decoder\.weight\)"):
        load_into(network, open_checkpoint("odd.safetensors"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    for command in (
        ["evaluate", "odd.safetensors"],
        ["sweep", "--from", "a.safetensors", "--to", "odd.safetensors"],
    ):
        refused = run(*command, *states.task)
        assert (refused.code, refused.out) == (2, "")
        assert len(refused.err.strip().splitlines()) == 1
    assert not Path("runs").exists()


class Normed(nn.Module):
    """Two layers with weight norm, one under two names."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.one, self.two = norm(nn.Linear(4, 4)), norm(nn.Conv1d(4, 2, 3))
        self.again = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.again(self.one(x)))


@pytest.mark.parametrize("prefix", ["", "module.", "model.module."])
def test_names_of_the_older_weight_norm_are_taken_as_torch_takes_them(prefix: str) -> None:
    """Vocoders and wav2vec 2.0 were saved by it."""
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        old = Normed(nn.utils.weight_norm).eval()
    torch.save({prefix + name: value for name, value in old.state_dict().items()}, "old.pt")
    torch.manual_seed(1)
    new = Normed(nn.utils.parametrizations.weight_norm).eval()
    fit = load_into(new, open_checkpoint("old.pt"))
    assert "as the model's hooks name them" in str(fit.said)
    x = torch.rand(2, 4, 4)
    assert torch.equal(new(x), old(x))


def test_counters_that_the_model_does_not_have_are_left() -> None:
    """A frozen batch norm counts nothing; a file of a plain one has its counter."""
    misc = pytest.importorskip("torchvision.ops.misc")
    plain, frozen = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)), nn.Sequential(nn.Conv2d(1, 2, 1))
    frozen.append(misc.FrozenBatchNorm2d(2, eps=1e-5))
    torch.save(plain.state_dict(), "plain.pt")
    fit = load_into(frozen.eval(), open_checkpoint("plain.pt"))
    assert not fit.left
    assert [*fit.taken] == [*frozen.state_dict()]
    x = torch.rand(2, 1, 3, 3)
    torch.testing.assert_close(frozen(x), plain.eval()(x))
