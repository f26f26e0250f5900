"""Kinds of what Keras and TensorFlow name: by names, by Keras 3's numbers, and never in a file of torch."""

from __future__ import annotations

import pytest

from ckptswap.naming import classify

KINDS = {
    "c/kernel": ((3, 3, 2, 8), "conv.weight"), "c/bias": ((8,), "conv.bias"),
    "b/gamma": ((8,), "bn.weight"), "b/beta": ((8,), "bn.bias"), "b/moving_mean": ((8,), "bn.running_mean"),
    "b/moving_variance": ((8,), "bn.running_var"), "l/gamma": ((8,), "norm.weight"), "l/beta": ((8,), "norm.bias"),
    "scale/gamma": ((8,), "other.gamma"), "d/kernel": ((8, 4), "linear.weight"), "d/bias": ((4,), "linear.bias"),
    "x/embeddings": ((9, 4), "embedding.weight"), "r/kernel": ((4, 12), "rnn.weight_ih"),
    "r/recurrent_kernel": ((3, 12), "rnn.weight_hh"), "r/bias": ((12,), "rnn.bias_ih"),
    "s/depthwise_kernel": ((3, 3, 2, 1), "conv.weight"), "s/pointwise_kernel": ((1, 1, 2, 4), "conv.weight"),
    "attention/query/kernel": ((8, 8), "attn.q.weight"), "attention/key/kernel": ((8, 8), "attn.k.weight"),
    "attention/value/kernel": ((8, 8), "attn.v.weight"), "o/name": ((2,), "other.name"),
    "layers/conv2d_1/vars/0": ((3, 3, 2, 8), "conv.weight"), "layers/conv2d_1/vars/1": ((8,), "conv.bias"),
    "layers/batch_normalization/vars/0": ((8,), "bn.running_mean"),
    "layers/batch_normalization/vars/1": ((8,), "bn.running_var"),
    "layers/batch_normalization_1/vars/0": ((8,), "other.0"),
    "layers/batch_normalization_1/vars/1": ((8,), "other.1"),
    "layers/batch_normalization_1/vars/2": ((8,), "other.2"), "layers/p_re_lu/vars/0": ((1, 8), "prelu.weight"),
    "layers/lstm/cell/vars/0": ((4, 12), "rnn.weight_ih"), "layers/lstm/cell/vars/1": ((3, 12), "rnn.weight_hh"),
    "layers/unknown/vars/0": ((4, 4), "other.0"),
}  # fmt: skip


def test_kinds_of_keras() -> None:
    found = classify({name.replace("/", "."): shape for name, (shape, _) in KINDS.items()})
    assert {name: found[name.replace("/", ".")][1] for name in KINDS} == {
        name: kind for name, (_, kind) in KINDS.items()
    }


@pytest.mark.parametrize(
    "shapes",
    [
        {"blur.kernel": (4, 4), "block.gamma": (8,), "block.beta": (1,)},
        {"vars.0": (3,), "kernel": (3, 3), "up.kernel": (1, 1, 4, 4)},
    ],
)
def test_files_of_torch_with_such_names_stay(shapes: dict[str, tuple[int, ...]]) -> None:
    """A blur's kernel, a block's scale: nothing tells of Keras."""
    assert all(kind.startswith("other.") for _, kind in classify(shapes).values())
