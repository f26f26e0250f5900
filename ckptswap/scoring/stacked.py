"""Several variants in one call, where a call costs more than its arithmetic: accelerators, small networks.

Variants whose cones are nearly the same run as one: what they swap is stacked, and the cone of all is mapped over
it (`torch.func.vmap`), so that the values behind it have one dimension more. Equal but for rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ckptswap.scoring.graph import Graph
from ckptswap.scoring.interpreter import Outputs, Replay, Values
from ckptswap.scoring.schedule import Instruction, make_schedule
from ckptswap.task.tree import Tree

WIDEST = 32
"""Variants in one call at most: ours."""
ALIKE = 0.8
"""Cones that are so much of the longest one run as one: ours."""
SMALL = 1e5
"""Operations of a step, on the mean over a graph, below which a call on the CPU costs more than they do: ours."""


def pays(graph: Graph, device: str) -> bool:
    """Whether stacking is expected to pay: by the work of a step, not by the clock.

    >>> from torch import nn, zeros
    >>> from ckptswap.scoring.graph import capture
    >>> [pays(capture(nn.Linear(side, side), zeros(side, side), lambda y: y), "cpu") for side in (4, 400)]
    [True, False]
    """
    return device != "cpu" or graph.flops < SMALL * len(graph.steps)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor]:
    """Attention by products, which can be mapped; torch's own for the CPU would be called for each variant."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return (((scores if attn_mask is None else scores + attn_mask).softmax(-1)) @ value,)


_WRITTEN_OUT: Mapping[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default: attention,
}


class Stacked(Replay):
    """A replay that runs variants together whose cones are nearly the same; `memory` bounds how many."""

    def __init__(self, graph: Graph, state: Mapping[int, Tensor], memory: int) -> None:
        # A value that all share cannot be written over by those of one.
        plain = tuple(replace(step, overwrite=None, op=_WRITTEN_OUT.get(step.op, step.op)) for step in graph.steps)
        super().__init__(replace(graph, steps=plain), state, memory)

    def outputs(self, batch: Tree, swaps: Sequence[Mapping[int, Tensor]], *, with_output: bool) -> Outputs:
        """See `Replay`."""
        groups = list(self._together(swaps))
        stacks = [self._stacked([swaps[at] for at in group]) for group in groups]
        for index, output in super().outputs(batch, stacks, with_output=with_output):
            if index is None:
                yield None, output
            else:
                yield from zip(groups[index], output, strict=True)

    def _together(self, swaps: Sequence[Mapping[int, Tensor]]) -> Iterator[list[int]]:
        """Swaps whose cones are nearly as long as the longest of them, as many as fit into memory at a time."""
        cones = [self.cone(frozenset(swap)) for swap in swaps]
        left = sorted(range(len(swaps)), key=lambda at: -len(cones[at].steps))
        while left:
            longest = cones[left[0]]
            peak = make_schedule(self.graph, [longest], with_output=False).peak
            width = max(1, min(WIDEST, self.memory // max(peak, 1)))
            near = [at for at in left[:width] if len(cones[at].steps) >= ALIKE * len(longest.steps)]
            yield near
            left = left[len(near) :]

    def _stacked(self, swaps: Sequence[Mapping[int, Tensor]]) -> dict[int, Tensor]:
        """What any of them swaps, (number of swaps, …): the recipient's own where one does not."""
        values = dict.fromkeys(value for swap in swaps for value in swap)
        return {value: torch.stack([swap.get(value, self.state[value]) for swap in swaps]) for value in values}

    def _swapped(self, program: Sequence[Instruction], values: Values, swap: Mapping[int, Tensor]) -> Tensor:
        def run(own: dict[int, Tensor]) -> Tensor:
            return self._replayed(program, {**values, **own})

        with torch.inference_mode():
            return torch.func.vmap(run)(dict(swap))
