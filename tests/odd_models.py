"""Models that a replay may not get wrong, each with one trait; loaded by path, as a user's file would be."""

from __future__ import annotations

import random
from collections import namedtuple

import torch
from torch import Tensor, nn

Pair = namedtuple("Pair", "mask aux")


class Plain(nn.Module):
    """A stem, batch norm, a head, and a layer that some of the models below never read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Conv2d(3, 1, 1)
        self.extra = nn.Conv2d(1, 1, 1)

    def body(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.stem(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class WritesInput(Plain):
    """In-place operations on the very batch that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.body(x.mul_(2))


class Shared(Plain):
    """One parameter in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(1, 3, 3, padding=1)
        self.again.weight = self.stem.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.head(self.again(x))


class Twice(Plain):
    """One module, called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.tanh(self.body(x)))


class Counts(Plain):
    """A buffer that forward changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.body(x)


class Gives(Plain):
    """`kind` of output: dict, tuple, named, or None."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> object:
        y = self.body(x)
        aux = self.extra(y)
        return {"dict": {"mask": y, "aux": aux}, "tuple": (aux, y), "named": Pair(y, aux), "none": None}[self.kind]


class NaNs(Plain):
    """NaN and infinite activations in between, and none in the output."""

    def forward(self, x: Tensor) -> Tensor:
        found = torch.log(self.norm(self.stem(x)) - 0.5) / 0
        return self.head(found.nan_to_num(nan=0.25, posinf=0.5, neginf=-0.5))


class Drops(Plain):
    """Dropout that eval mode does not reach."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(nn.functional.dropout(x, 0.5, training=True))


class Rolls(Plain):
    """Random numbers that torch does not know of."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * random.random()


class Dice(Plain):
    """Random numbers and control flow that depends on values, so that nothing can be captured."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x) * torch.rand(())
        return y if y.mean() > 0 else y + self.extra(x)


class Looks(Plain):
    """Control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y if y.mean() > 0 else y + self.extra(x)


class Raises(Plain):
    """Will not have a weight that is not finite."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.isfinite(self.head.weight).all():
            raise RuntimeError("this weight is no number")
        return self.body(x)


class Views(Plain):
    """Weight and bias of the head share one memory without being one tensor."""

    def __init__(self) -> None:
        super().__init__()
        whole = torch.rand(4, generator=torch.Generator().manual_seed(3))
        self.head.weight = nn.Parameter(whole[:3].view(1, 3, 1, 1))
        self.head.bias = nn.Parameter(whole[3:])


class Reaches(Plain):
    """Uses a parameter behind its module's back."""

    def __init__(self) -> None:
        super().__init__()
        weight = self.extra.weight
        self.also = lambda: weight

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + nn.functional.conv2d(x, self.also())


class Listed(Plain):
    """Holds its parameters in a list of its own too, as an LSTM does."""

    def __init__(self) -> None:
        super().__init__()
        self.also = [self.extra.weight, "weight"]
        self.one = self.extra.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + nn.functional.conv2d(x, self.also[0], self.one)


class Grows(Plain):
    """Makes what it needs for a shape when it first meets it, and keeps it: an attribute, or a buffer."""

    def __init__(self, buffer: bool = False) -> None:
        super().__init__()
        if buffer:
            self.register_buffer("grid", None, persistent=False)
        else:
            self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None or self.grid.shape != x.shape[-1:]:
            self.grid = torch.linspace(0, 1, x.shape[-1])
        return self.body(x) + self.grid * self.extra(x)


class Wide(Plain):
    """Reads one of its layers for wide images only."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + self.extra(x) if x.shape[-1] > 12 else y


class Few(Plain):
    """Reads one of its layers for small batches only."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + self.extra(x) if len(x) < 4 else y


class Renamed(Plain):
    """Saves its tensors under names that its modules do not have."""

    def __init__(self) -> None:
        super().__init__()
        self.register_state_dict_post_hook(_rename)
        self.register_load_state_dict_pre_hook(_rename_back)


def _rename(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: object) -> None:
    for name in list(state):
        state[f"net.{name}"] = state.pop(name)


def _rename_back(module: nn.Module, state: dict[str, Tensor], *rest: object) -> None:
    for name in list(state):
        state[name.removeprefix("net.")] = state.pop(name)


class Asks(Plain):
    """Looks at the first pixel of a batch, and goes another way where it is dark."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y if x[0, 0, 0, 0] > 0.5 else y + self.extra(x)


class Scales(Plain):
    """Reads a number from the batch, which no two batches share."""

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) * float(x.max())


class Chooses(Plain):
    """`how` its shapes come from the batch's values."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("level", torch.tensor(0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        bright = x[0, 0, 0, :3] > 0.5 if self.how != "buffer" else x[0, 0, 0, :3] > self.level
        if self.how == "nonzero":
            return y + y[0, 0, 0, :3][bright.nonzero()[:, 0]].sum()
        if self.how == "select":
            return y + torch.masked_select(y[:1, 0, 0, :3], bright).sum()
        if self.how == "repeat":
            return y + y[0, 0, 0, :3].repeat_interleave(bright.long() + 1).mean()
        if self.how == "unique":
            return y + y[0, 0, 0].repeat_interleave(len(bright.long().unique())).mean()
        if self.how == "list":
            return y + sum(y[0, 0, 0, at] for at, one in enumerate(bright.tolist()) if one)
        if self.how == "mean":
            return y + y[0, 0][:, :3][:, bright].mean().nan_to_num(0)
        return y + y[0, 0, 0, :3][bright].sum()


class Numpy(Plain):
    """Leaves torch and comes back."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.body(x).numpy() + 1)


class Learns(Plain):
    """Shapes that come from its own values."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + y[y > 0].sum()


class Keeps(Plain):
    """Computes something of its head once, when it first runs, and keeps it."""

    def __init__(self, where: str = "attribute") -> None:
        super().__init__()
        self.where, self.fused, self.store = where, None, []
        self.register_buffer("table", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "buffer":
            if self.table is None:
                self.table = self.head.weight * 2
            return nn.functional.conv2d(torch.relu(self.norm(self.stem(x))), self.table)
        if self.where == "list":
            if not self.store:
                self.store.append(self.head.weight * 2)
            return nn.functional.conv2d(torch.relu(self.norm(self.stem(x))), self.store[0])
        if self.fused is None:
            self.fused = self.head.weight * 2
        return nn.functional.conv2d(torch.relu(self.norm(self.stem(x))), self.fused)


class Deaf(Plain):
    """Loads its head from nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.head._load_from_state_dict = lambda *given: None  # type: ignore[method-assign]


class Doubles(Plain):
    """Doubles its head's bias when it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_doubled)


def _doubled(module: nn.Module, state: dict[str, Tensor], *rest: object) -> None:
    state["head.bias"] = state["head.bias"] * 2


class Normed(Plain):
    """`how` the weights of its convolutions are made of others."""

    def __init__(self, how: str) -> None:
        super().__init__()
        changes = {
            "old weight norm": nn.utils.weight_norm,
            "weight norm": nn.utils.parametrizations.weight_norm,
            "old spectral norm": nn.utils.spectral_norm,
            "spectral norm": nn.utils.parametrizations.spectral_norm,
            "orthogonal": nn.utils.parametrizations.orthogonal,
            "own": lambda module: nn.utils.parametrize.register_parametrization(module, "weight", Halves()),
        }
        self.stem = changes[how](self.stem)


class Halves(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Lazy(Plain):
    """A layer that learns its size when it first runs."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.LazyConv2d(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.extra(x)
