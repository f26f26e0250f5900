"""Networks some of whose tensors have several names, and the plain loop by which their sweeps are judged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from plain import run_file
from torch import Tensor, nn

from ckptswap.checkpoint import Checkpoint
from ckptswap.formats import open_checkpoint
from ckptswap.sweep.result import Row
from ckptswap.task import TaskSpec

SOURCE = '''
import torch
from torch import nn


class Block(nn.Module):
    """Keeps its layers by name and once more in the Sequential that it runs, as nnU-Net does."""

    def __init__(self, inner, outer):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer)
        self.all_modules = nn.Sequential(self.conv, self.norm, nn.LeakyReLU())

    def forward(self, x):
        return self.all_modules(x)


class Registered(nn.Module):
    """An encoder that the decoder holds too: most tensors have four names."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(Block(1, 3), Block(3, 3))
        self.decoder = nn.ModuleDict({"encoder": self.encoder, "head": nn.Conv2d(3, 2, 1)})

    def forward(self, x):
        return self.decoder["head"](self.encoder(x))


class BaseModel(nn.Module):
    """`base_model` beside `layer0`, `layer1`, which are its parts, as many hand-written U-Nets keep it."""

    def __init__(self):
        super().__init__()
        self.base_model = nn.Sequential(Block(1, 3), Block(3, 3))
        self.layer0, self.layer1 = self.base_model[0].all_modules, self.base_model[1]
        self.conv_last = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        first = self.layer0(x)
        return self.conv_last(torch.cat([first, self.layer1(first)], 1))


class Siamese(nn.Module):
    """One tower under two names, run twice."""

    def __init__(self):
        super().__init__()
        self.left = Block(1, 2)
        self.right = self.left

    def forward(self, x):
        return self.left(x) - self.right(x.flip(-1))


class Listed(nn.Module):
    """Layers by name, which is what saves and what is called, and in a list that is gone through."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1)])
        self.first, self.norm = self.layers[0], self.layers[1]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Recurrent(nn.Module):
    """An LSTM under two names, which keeps its weights in a list of its own as well."""

    def __init__(self):
        super().__init__()
        self.one = nn.LSTM(8, 8, batch_first=True)
        self.two, self.head = self.one, nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.two(self.one(x[:, 0])[0])[0])


class Normed(nn.Module):
    """Weight norm, whose layer has two names."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.two = self.one

    def forward(self, x):
        return self.two(torch.tanh(self.one(x)))


class Decides(Registered):
    """Control flow that depends on values, so that nothing can be captured."""

    def forward(self, x):
        y = super().forward(x)
        return y if y.mean() > 0 else y.flip(-1)


class Head(nn.Module):
    """One Parameter in two modules: an output layer that is tied to the input's."""

    def __init__(self):
        super().__init__()
        self.embed, self.mid = nn.Linear(8, 4, bias=False), nn.Linear(4, 4)
        self.head = nn.Linear(8, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return torch.tanh(self.mid(self.embed(x))) @ self.head.weight


class Alias(Head):
    """The same memory by two Parameters."""

    def __init__(self):
        super().__init__()
        self.head.weight = nn.Parameter(self.embed.weight.detach())


class Buffers(nn.Module):
    """One buffer in two modules, beside batch norms that share their affine parameters."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.norm, self.again = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.again.weight, self.again.bias = self.norm.weight, self.norm.bias
        self.one.register_buffer("scale", torch.ones(1, 3, 1, 1))
        self.two.register_buffer("scale", self.one.scale)

    def forward(self, x):
        return self.again(self.two(self.norm(self.one(x) * self.one.scale)) * self.two.scale)


class Biases(nn.Module):
    """One bias in three layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(1 if not at else 3, 3, 3, padding=1) for at in range(3)))
        self.layers[1].bias = self.layers[2].bias = self.layers[0].bias

    def forward(self, x):
        return self.layers(x)


class Views(nn.Module):
    """A fused weight, and views of it that are saved beside it."""

    def __init__(self):
        super().__init__()
        self.fused = nn.Parameter(torch.rand(12, 8))
        self.q, self.k = (nn.Parameter(self.fused.detach()[at : at + 4]) for at in (0, 4))
        self.mid = nn.Linear(4, 4)

    def forward(self, x):
        return self.mid(torch.tanh(x @ self.q.T) * (x @ self.k.T)) + x @ self.fused[8:].T


class Copies(Head):
    """Saves copies of its tensors: what is written to them does not reach it."""

    def state_dict(self, *args, **how):
        return {name: value.clone() for name, value in super().state_dict(*args, **how).items()}


def pictures():
    return [(x, x.expand(2, 8, 8)) for x in torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(4))]


def others():
    return images(10, seed=9)


def images(samples=12, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return [(torch.rand(1, 8, 8, generator=draw), torch.rand(1, generator=draw)) for _ in range(samples)]


def error(output, target):
    return (torch.sigmoid(output.flatten(1)).mean(1) - target.flatten()).square() + output.flatten(1).std(1)


error.direction = "min"
'''


def task(model: str, **changed: Any) -> TaskSpec:
    """Of `net.py` in the current folder."""
    given = {"data": "net.py:images", "metrics": ("net.py:error",), "batch_size": 5, "threads": 1}
    return TaskSpec(model=f"net.py:{model}", **{**given, **changed})  # type: ignore[arg-type]


def built(model: str) -> nn.Module:
    """A network of its own."""
    return run_file("net.py")[model]().eval()


def save_pair(
    model: str, write: Callable[[dict[str, Tensor], str], object] = torch.save, suffix: str = ".pth"
) -> None:
    """`a` and `b`, two networks that differ in every tensor."""
    Path("net.py").write_text(SOURCE, "utf-8")
    for name, seed in (("a", 5), ("b", 6)):
        torch.manual_seed(seed)
        net = built(model)
        with torch.no_grad():
            for each in (*net.parameters(), *net.buffers()):
                each.add_(torch.rand(each.shape) if each.is_floating_point() else seed)
        write(net.state_dict(), name + suffix)


def opened(*paths: str) -> list[Checkpoint]:
    return [open_checkpoint(path) for path in paths]


def variant(names: Collection[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a person would load: our tensors, with the named ones of theirs."""
    return {name: (theirs if name in names else ours)[name].clone() for name in ours}


def plain_score(
    model: str, state: Mapping[str, Tensor], prepare: Callable[[nn.Module], object] | None = None
) -> float:
    """Loaded with `load_state_dict`, the whole model run on every batch, the mean over samples."""
    net = built(model)
    net.load_state_dict(dict(state))
    if prepare:
        prepare(net)
    names = run_file("net.py")
    pairs, scores = names["images"](), []
    with torch.no_grad():
        for at in range(0, len(pairs), 5):
            inputs, targets = (torch.stack(each) for each in zip(*pairs[at : at + 5], strict=True))
            scores += names["error"](net(inputs), targets).double().tolist()
    return sum(scores) / len(scores)


def groups(model: str) -> dict[str, set[str]]:
    """Every name with all names of its tensor, from a network of its own."""
    state = built(model).state_dict()
    return {a: {b for b in state if state[b].data_ptr() == state[a].data_ptr()} for a in state}


def hold_rows(rows: Collection[Row], model: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Each row takes whole tensors, and has the plain loop's score."""
    assert rows
    names = groups(model)
    for row in rows:
        assert all(names[name] <= set(row.tensors) for name in row.tensors), row.tensors
        expected = plain_score(model, variant(row.tensors, ours, theirs))
        assert row.score is not None, row.reason
        assert abs(row.score - expected) < 1e-6 * max(1, abs(expected)), (row.tensors, row.score, expected)
