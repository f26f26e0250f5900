"""The shorter way: what it leaves out and puts together, how near it comes, and that it says so."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from random_networks import networks, other_state
from torch import Tensor, nn

from ckptswap.scoring.graph import Graph, capture
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.shortening import shortened

IMAGE = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Upward(nn.Module):
    """A decoder's block: twice as large, beside what was kept, and convolved; in the order that `parts` names."""

    def __init__(
        self, parts: Sequence[str] = ("small", "kept"), mode: str = "nearest", bias: bool = False
    ) -> None:
        super().__init__()
        self.parts, self.mode = parts, mode
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(
            sum({"small": 6, "kept": 4, "more": 4}[part] for part in parts), 5, 3, 1, 1, bias=bias
        )
        self.norm, self.head = nn.BatchNorm2d(5), nn.Conv2d(5, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.interpolate(self.down(x), scale_factor=2, mode=self.mode)
        values = {"small": small, "kept": x, "more": x * 2}
        parts = [values[part] for part in self.parts]
        joined = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        return self.head(self.norm(self.conv(joined)).relu())


class Read(nn.Module):
    """A convolution whose result is read before its norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


def seeded(net: nn.Module) -> nn.Module:
    """In eval mode, with values of its own in every tensor."""
    draw = torch.Generator().manual_seed(3)
    for value in net.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=draw) - 0.3)
            value.abs_() if value.dim() == 1 else None
    return net.eval().requires_grad_(False)


def both(net: nn.Module, image: Tensor = IMAGE) -> tuple[Replay, Graph]:
    """A network's replay by the shorter way, and its graph."""
    graph = capture(net, image, lambda output: output)
    own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    state = {graph.state[name]: value for name, value in own.items()}
    return Replay(shortened(graph, state | graph.given(image)), state, 1 << 30), graph


def plain(net: nn.Module, values: dict[str, Tensor], image: Tensor) -> Tensor:
    """What everybody would write: the tensors copied into a state dict, which is loaded; a full forward pass."""
    kept = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict({**kept, **values})
    with torch.no_grad():
        output = net(image.clone())
    net.load_state_dict(kept)
    return output


def all_near(net: nn.Module, image: Tensor = IMAGE) -> Replay:
    """Every tensor swapped by itself: as near to plain passes as rounding lets it."""
    replay, graph = both(net, image)
    donor = other_state(net)
    names = [name for name in net.state_dict() if graph.state[name] in graph.read]
    swaps = [{graph.state[name]: donor[name]} for name in names]
    for index, output in replay.outputs(image.clone(), swaps, with_output=True):
        expected = plain(net, {} if index is None else {names[index]: donor[names[index]]}, image)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    return replay


def operations(graph: Graph) -> list[str]:
    """What is run for every batch, in words."""
    return [getattr(step.op, "__name__", str(step.op)).split(".")[0] for step in graph.steps[graph.settled :]]


@settings(max_examples=12, deadline=None)
@given(networks)
def test_the_shorter_way_is_near_for_every_tensor(net: nn.Module) -> None:
    all_near(net.double(), IMAGE[:, :1].double())


@pytest.mark.parametrize(
    ("parts", "bias"), [(["small"], True), (["small", "kept"], False), (["kept", "small", "more"], True)]
)
def test_what_is_made_twice_as_large_to_be_convolved_is_not_made(parts: list[str], bias: bool) -> None:
    replay = all_near(seeded(Upward(parts, bias=bias)))
    words = operations(replay.graph)
    assert not {"upsample_nearest2d", "native_batch_norm"} & set(words)
    assert words.count("cat") == (len(parts) == 3), "only what else is read is put together"
    graph = both(seeded(Upward(parts, bias=bias)))[1]
    assert replay.graph.flops < graph.flops


def test_a_swap_before_the_small_map_leaves_the_rest_alone() -> None:
    replay, graph = both(seeded(Upward()))
    cone = replay.cone(frozenset([graph.state["down.weight"]]))
    left = [step for at, step in enumerate(replay.graph.steps) if at not in cone.steps]
    assert sum(step.flops > 0 for step in left) == 1, "the other half of the convolution is the recipient's"


@pytest.mark.parametrize("net", [Read(), Upward(mode="bilinear")], ids=["read twice", "bilinear"])
def test_what_is_not_the_same_is_left_as_it_is(net: nn.Module) -> None:
    words = operations(all_near(seeded(net)).graph)
    assert "native_batch_norm" in words if isinstance(net, Read) else "upsample_bilinear2d" in words


def test_what_depends_on_no_batch_is_run_once() -> None:
    net = seeded(Upward())
    replay, graph = both(net)
    first = replay.graph.steps[: replay.graph.settled]
    assert first
    assert set(replay.graph.inputs).isdisjoint(value for step in first for value in step.reads)
    assert len(replay.seconds(IMAGE)) == len(replay.graph.steps)
    assert graph.settled == 0


def test_a_value_of_half_precision_keeps_its_dtype() -> None:
    net = seeded(Upward()).bfloat16()
    replay, _ = both(net, IMAGE.bfloat16())
    (_, output), *_ = replay.outputs(IMAGE.bfloat16(), [], with_output=True)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, plain(net, {}, IMAGE.bfloat16()), rtol=0.1, atol=0.1)


def test_a_convolution_and_its_relu_are_one_on_the_processor() -> None:
    net = seeded(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    assert "relu" not in operations(all_near(net).graph)
    assert "relu" in operations(both(net.double(), IMAGE.double())[0].graph)
