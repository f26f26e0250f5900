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
        self.also = [self.extra.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + nn.functional.conv2d(x, self.also[0])


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
