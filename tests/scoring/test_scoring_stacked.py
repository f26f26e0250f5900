"""Several variants in one call: near plain full passes, each in its place, and as many as fit into memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from random_networks import networks, other_state
from test_scoring_close import IMAGE, Upward, plain, seeded
from torch import nn

from ckptswap.scoring.graph import capture
from ckptswap.scoring.shortening import shortened
from ckptswap.scoring.stacked import Stacked


def stacked(net: nn.Module, image: torch.Tensor, memory: int = 1 << 30) -> tuple[Stacked, list[str]]:
    """A network's stacked replay, and the names that it reads."""
    graph = capture(net, image, lambda output: output)
    own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    state = {graph.state[name]: value for name, value in own.items()}
    short = shortened(graph, state | graph.given(image), laid_out=False)
    return Stacked(short, state, memory), [name for name in net.state_dict() if graph.state[name] in graph.read]


def all_near(net: nn.Module, image: torch.Tensor, memory: int = 1 << 30) -> None:
    """Every tensor swapped by itself, held against a plain loop."""
    replay, names = stacked(net, image, memory)
    donor = other_state(net)
    swaps = [{replay.graph.state[name]: donor[name]} for name in names]
    seen = []
    for index, output in replay.outputs(image.clone(), swaps, with_output=True):
        seen.append(index)
        expected = plain(net, {} if index is None else {names[index]: donor[names[index]]}, image)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert sorted(seen, key=str) == sorted([None, *range(len(names))], key=str)


@settings(max_examples=10, deadline=None)
@given(networks)
def test_stacked_variants_are_near_for_every_tensor(net: nn.Module) -> None:
    all_near(net.double(), IMAGE[:, :1].double())


@pytest.mark.parametrize("memory", [1, 20_000, 1 << 30])
def test_memory_decides_how_many_run_as_one(memory: int) -> None:
    net = seeded(Upward())
    all_near(net, IMAGE, memory)
    replay, names = stacked(net, IMAGE, memory)
    groups = list(replay._together([{replay.graph.state[name]: torch.zeros(1)} for name in names]))
    assert sorted(at for group in groups for at in group) == list(range(len(names)))
    assert (max(map(len, groups)) == 1) == (memory == 1)


def test_attention_is_one_call() -> None:
    """torch's own attention for the CPU cannot be mapped: it would warn, and run for each by itself."""
    net = seeded(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    all_near(net, torch.rand(2, 5, 8))
    replay, _ = stacked(net, torch.rand(2, 5, 8))
    assert not any("flash" in str(step.op) for step in replay.graph.steps)
