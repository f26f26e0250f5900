"""A replay against a full forward pass of a model with the tensors loaded: the same bits, and really replayed."""

from __future__ import annotations

import copy
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import BLOCKS, build, networks, other_state
from torch import Tensor, nn

from ckptswap.errors import ModelError
from ckptswap.scoring.graph import Graph, capture
from ckptswap.scoring.guards import Uncapturable
from ckptswap.scoring.interpreter import Replay
from ckptswap.scoring.schedule import cone_of, within
from ckptswap.scoring.swap import same_bits
from ckptswap.task.callables import faults_of

BATCH = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(7))


def the_tensor(found: object) -> Tensor:
    assert isinstance(found, Tensor)
    return found


def replay_of(net: nn.Module, memory: int = 1 << 30) -> Replay:
    graph = capture(net, BATCH, the_tensor)
    own = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return Replay(graph, {graph.state[name]: value for name, value in own.items()}, memory)


def loaded(net: nn.Module, donor: dict[str, Tensor], names: list[str]) -> Tensor:
    """The plain way: another model, its state dict with some tensors replaced, loaded, and run."""
    other = copy.deepcopy(net)
    state = {name: (donor if name in names else net.state_dict())[name] for name in net.state_dict()}
    other.load_state_dict(state)
    with torch.inference_mode():
        return other(BATCH.clone())


def swap_of(net: nn.Module, graph: Graph, donor: dict[str, Tensor], names: list[str]) -> dict[int, Tensor]:
    """By number, of tied tensors the last one, as loading a state dict in its order would leave it."""
    last = {graph.state[name]: name for name in net.state_dict()}
    return {number: donor[name] for number, name in last.items() if name in names}


@settings(max_examples=50)
@given(networks, st.data())
def test_a_replay_has_the_bits_of_a_full_pass(net: nn.Module, data: st.DataObject) -> None:
    names = list(net.state_dict())
    chosen = data.draw(st.lists(st.lists(st.sampled_from(names), min_size=1, max_size=4), min_size=1, max_size=6))
    memory = data.draw(st.sampled_from([1 << 30, 4000, 0]))
    replay, donor = replay_of(net, memory), other_state(net)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    swaps = [swap_of(net, replay.graph, donor, each) for each in chosen]
    live = [at for at, swap in enumerate(swaps) if replay.changes(swap)]
    found = dict(replay.outputs(BATCH, [swaps[at] for at in live], with_output=True))
    assert len(found) == len(live) + 1  # every one of them was replayed
    assert same_bits(found[None], loaded(net, donor, []))
    for index, at in enumerate(live):
        assert same_bits(found[index], loaded(net, donor, chosen[at]))
    for at in set(range(len(chosen))) - set(live):  # what cannot change the output does not
        assert same_bits(found[None], loaded(net, donor, chosen[at]))
    assert all(same_bits(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_tensor_of_every_block(name: str) -> None:
    """What the drawing of networks might miss."""
    net = build([name], skip=True)
    replay, donor = replay_of(net), other_state(net)
    swaps = {each: swap_of(net, replay.graph, donor, [each]) for each in net.state_dict()}
    live = [each for each, swap in swaps.items() if replay.changes(swap)]
    found = dict(replay.outputs(BATCH, [swaps[each] for each in live], with_output=True))
    for each in swaps:
        output = found[live.index(each) if each in live else None]
        assert same_bits(output, loaded(net, donor, [each])), each
    assert len(live) >= 3


@settings(max_examples=10)
@given(networks)
def test_every_step_is_run_in_one_base_pass_and_freed(net: nn.Module) -> None:
    graph = capture(net, BATCH, the_tensor)
    cones = [cone_of(graph, [number]) for number in sorted(graph.read & set(graph.state.values()))]
    ((chosen, schedule),) = within(graph, cones, 1 << 40, with_output=True)
    assert sorted(chosen) == list(range(len(cones)))
    assert sorted(number for numbers in schedule.due.values() for number in numbers) == sorted(chosen)
    given_values = [each.gives for each in schedule.base]
    assert given_values == [step.gives for step in graph.steps]
    freed = [value for each in schedule.base for value in each.frees]
    assert sorted([*freed, graph.output]) == sorted(given_values)
    for cone, program in zip(schedule.cones, schedule.programs, strict=True):
        assert sorted([*(value for each in program for value in each.frees), graph.output]) == sorted(
            each.gives for each in program
        )
        assert len(program) == len(cone.steps)


@settings(max_examples=10)
@given(networks)
def test_a_cone_is_what_depends_on_its_tensors(net: nn.Module) -> None:
    """Against torch's own knowledge: the steps whose results change when the tensor does."""
    replay = replay_of(net)
    graph = replay.graph
    for number in sorted(set(graph.state.values()))[:6]:
        cone = replay.cone(frozenset([number]))
        inside = {graph.steps[at].gives for at in cone.steps}
        for at, step in enumerate(graph.steps):
            reads_inside = bool((inside | {number}) & set(step.reads))
            assert (step.gives in inside) == reads_inside == (at in cone.steps)
        assert all(value not in inside for value in cone.outside)


def test_less_memory_means_more_base_passes_and_the_same_bits() -> None:
    net = build(["residual", "branches", "pyramid", "residual"])
    wide, narrow = replay_of(net), replay_of(net, memory=1)
    donor = other_state(net)
    swaps = [swap_of(net, wide.graph, donor, [name]) for name in net.state_dict()]
    swaps = [swap for swap in swaps if wide.changes(swap)]
    ours, theirs = (dict(each.outputs(BATCH, swaps, with_output=True)) for each in (wide, narrow))
    assert len(wide.latest) == 1
    assert len(narrow.latest) == len(swaps)
    assert max(each.peak for _, each in narrow.latest) <= max(each.peak for _, each in wide.latest)
    assert all(same_bits(ours[key], theirs[key]) for key in ours)


def test_a_pass_is_not_kept_whole() -> None:
    """Values are freed at their last use: twenty layers take no more memory than four."""
    few, many = (replay_of(build(["residual"] * depth)) for depth in (4, 20))
    peaks = []
    for replay in (few, many):
        swaps = [
            {number: torch.zeros(1)} for number in sorted(replay.graph.read & set(replay.graph.state.values()))
        ]
        ((_, schedule),) = replay.schedules([frozenset(swap) for swap in swaps], with_output=True)
        peaks.append(schedule.peak)
    assert peaks[1] == peaks[0]


class Sends(nn.Module):
    """Runs what it is given, with a layer, a counter and a constant at hand."""

    def __init__(self, body: object) -> None:
        super().__init__()
        self.layer, self.body = nn.Conv2d(1, 1, 1), body
        self.register_buffer("count", torch.zeros(()))
        weight = self.layer.weight
        self.also = lambda: weight

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            lambda self, x: self.layer(x) if self.layer(x).sum() > 0 else x,
            "depends on the values of layer.weight, ",
        ),
        (lambda self, x: x * float(self.layer.bias.max()), r"depends on the values of layer\.bias$"),
        (lambda self, x: self.layer(x) + x[x > self.layer.bias].sum(), r"depends on the values of layer\.bias$"),
        (lambda self, x: self.layer(x) + self.count.add_(1), "in place"),
        (lambda self, x: torch.from_numpy(self.layer(x).numpy()), "numpy"),
        (lambda self, x: nn.functional.conv2d(x, self.also()), "by another way"),
        (lambda self, x: 3, "output"),
    ],
)
def test_what_cannot_be_captured_says_why(body: object, reason: str) -> None:
    with pytest.raises(Uncapturable, match=reason):
        capture(Sends(body).eval().requires_grad_(False), BATCH, lambda found: found)  # type: ignore[arg-type, return-value]


def test_views_of_one_memory_are_not_captured() -> None:
    net = nn.Linear(2, 2).requires_grad_(False)
    whole = torch.zeros(6)
    net.weight.data, net.bias.data = whole[:4].view(2, 2), whole[4:]
    with pytest.raises(Uncapturable, match="views"):
        capture(net, torch.zeros(1, 2), the_tensor)


def test_random_numbers_in_eval_mode_are_refused() -> None:
    body = Sends(lambda self, x: nn.functional.dropout(self.layer(x), training=True))
    with pytest.raises(ModelError, match="random"):
        capture(body.eval().requires_grad_(False), BATCH, the_tensor)


def test_other_threads_go_on_while_a_model_is_traced() -> None:
    """Those that read data ahead use numpy, and put stdout aside for the user's code, at any moment."""
    found: list[object] = []
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with faults_of("data", ModelError):
            try:
                found.append(torch.ones(2).numpy().tolist())
            finally:
                inside.set()
            leave.wait(60)

    def body(self: Sends, x: Tensor) -> Tensor:
        if not threads:
            threads.append(threading.Thread(target=read))
            threads[0].start()
            assert inside.wait(60)
        print("said by the model")
        return self.layer(x)

    threads: list[threading.Thread] = []
    stdout = sys.stdout
    graph = capture(Sends(body).eval().requires_grad_(False), BATCH, the_tensor)
    leave.set()
    threads[0].join(60)
    assert found == [[1.0, 1.0]]
    assert len(graph.steps) == 1
    assert sys.stdout is stdout


def test_what_a_model_prints_while_it_is_traced_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    net = Sends(lambda self, x: print("said") or self.layer(x))
    capture(net.eval().requires_grad_(False), BATCH, the_tensor)
    assert capsys.readouterr() == ("", "said\n")


def test_unread_tensors_are_known() -> None:
    net = build(["unused"])
    graph = capture(net, BATCH, the_tensor)
    unread = {name for name in net.state_dict() if graph.state[name] not in graph.read}
    assert unread == {"blocks.0.idle.weight", "blocks.0.idle.bias"}
