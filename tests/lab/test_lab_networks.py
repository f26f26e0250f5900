"""The lab's networks: shapes, names, kinds, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from ckptswap.errors import ModelError
from ckptswap.lab.networks import NETWORKS, build
from ckptswap.naming import classify


@pytest.mark.parametrize("name", NETWORKS)
def test_output_has_the_size_of_the_input(name: str) -> None:
    network = build(name, in_channels=2, classes=3, width=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 2, 24, 32)).shape == (2, 3, 24, 32)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_conv_has_a_bias_and_every_kind_is_known(name: str) -> None:
    state = build(name, width=2).state_dict()
    places = classify({key: tuple(value.shape) for key, value in state.items()})
    layers = {layer for layer, kind in places.values() if kind == "conv.weight"}
    assert layers == {layer for layer, kind in places.values() if kind == "conv.bias"}
    assert {kind for _, kind in places.values()} == {
        "conv.weight", "conv.bias", "bn.weight", "bn.bias",
        "bn.running_mean", "bn.running_var", "bn.num_batches_tracked",
    }  # fmt: skip
    assert {"encoder.3.conv1", "encoder.3.bn1", "decoder.0.conv1", "head"} <= {
        layer for layer, _ in places.values()
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, width=2)
    network(torch.randn(2, 1, 24, 24)).square().mean().backward()
    assert [key for key, each in network.named_parameters() if each.grad is None] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_exports_to_the_same_bits(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, width=2).eval()
    x = torch.randn(1, 1, 24, 24)
    with torch.inference_mode():
        expected = network(x)
    exported = torch.export.export(network, (x,)).module()
    assert torch.equal(exported(x), expected)


def test_depth_sets_the_number_of_stages() -> None:
    assert len(build("unet", width=2, depth=4).encoder) == 5


def test_an_unknown_name_is_met_with_a_near_one() -> None:
    with pytest.raises(ModelError, match=r"'unett'.*did you mean 'unet'"):
        build("unett")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"widht": 3}, "'widht': did you mean 'width'"),
        ({"width": 0}, "width=0"),
        ({"depth": "3"}, "depth='3'"),
        ({"classes": True}, "classes=True"),
    ],
)
def test_bad_arguments_are_named(args: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build("unet", **args)


def test_without_skips_all_goes_through_the_deepest_stage() -> None:
    """Where the deepest stage gives nothing, neither does the output depend on the input."""
    torch.manual_seed(0)
    network = build("unet", width=2, depth=2, skips=False).eval()
    with_skips = build("unet", width=2, depth=2).eval()
    for each in (network, with_skips):
        for parameter in each.encoder[-1].parameters():
            parameter.data.zero_()
    x, y = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(network(x), network(y))
        assert not torch.equal(with_skips(x), with_skips(y))
    with pytest.raises(ModelError, match="neither true nor false"):
        build("unet", skips=1)
