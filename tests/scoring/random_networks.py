"""Small networks of every kind of connection, drawn by Hypothesis: what a replay must get right."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

CHANNELS = 4
torch.backends.mha.set_fastpath_enabled(False)  # as `build_model` does


class Residual(nn.Module):
    """A skip connection; the activation writes over its input where `inplace`."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS)
        self.act = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + x)


class Branches(nn.Module):
    """Two branches of unequal depth, put together again; the second is ready long after the first."""

    def __init__(self) -> None:
        super().__init__()
        self.short = nn.Conv2d(CHANNELS, 2, 1)
        self.long = nn.Sequential(nn.Conv2d(CHANNELS, 2, 3, padding=1), nn.BatchNorm2d(2), nn.SiLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.short(x), self.long(x)], dim=1)


class Pyramid(nn.Module):
    """Down, up again, and added to where it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x += self.up(nn.functional.max_pool2d(self.conv(x), 2))
        return x.relu_()


class Attention(nn.Module):
    """Pixels attend to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(CHANNELS)
        self.attend = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        found, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return x + found.transpose(1, 2).reshape(x.shape)


class Gate(nn.Module):
    """A parameter of its own, a view that is changed in place, and a constant beside the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(CHANNELS, 1, 1))
        self.half = torch.tensor(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.scale) + self.half
        x[:, 0] *= 2
        return x


class Twice(nn.Module):
    """One module, called twice."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x))


class Unused(nn.Module):
    """Half of it is never read."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh_(self.used(x))


class Net(nn.Module):
    """A stem, the drawn blocks, a head; the first block also reaches the head directly where `skip`."""

    def __init__(self, blocks: list[nn.Module], skip: bool, tied: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(blocks)
        self.head, self.skip = nn.Conv2d(CHANNELS, 2, 1), skip
        convs = [each for each in self.modules() if isinstance(each, nn.Conv2d) and each.kernel_size == (1, 1)]
        wide = [each for each in convs if isinstance(each._parameters.get("weight"), nn.Parameter)]
        wide = [each for each in wide if each.weight.shape == (CHANNELS, CHANNELS, 1, 1)]
        if tied and len(wide) > 1:
            wide[1].weight = wide[0].weight

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.stem(x)
        for at, block in enumerate(self.blocks):
            x = block(x if at else x.clone())
        return self.head(x + first) if self.skip else self.head(x)


BLOCKS = {
    "residual": lambda: Residual(False),
    "residual in place": lambda: Residual(True),
    "branches": Branches,
    "pyramid": Pyramid,
    "attention": Attention,
    "gate": Gate,
    "twice": lambda: Twice(Residual(True)),
    "unused": Unused,
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(CHANNELS, CHANNELS, 1)),
    "instance norm": lambda: nn.InstanceNorm2d(CHANNELS, affine=True),
    "dropout": lambda: nn.Dropout2d(0.5),
}

networks = st.builds(
    lambda names, skip, tied, seed: build(names, skip, tied, seed),
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    st.integers(0, 3),
)


def build(names: list[str], skip: bool = False, tied: bool = False, seed: int = 0) -> Net:
    """A network in eval mode, whose every tensor has values of its own."""
    torch.manual_seed(seed)
    net = Net([BLOCKS[name]() for name in names], skip, tied).eval().requires_grad_(False)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value += 0.2 * torch.rand(value.shape)
    return net


def other_state(net: nn.Module, seed: int = 1) -> dict[str, Tensor]:
    """A donor's tensors: near the network's own, in every value different."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.1 + torch.rand(value.shape, generator=draw) if value.is_floating_point() else value + 1
        for name, value in net.state_dict().items()
    }
