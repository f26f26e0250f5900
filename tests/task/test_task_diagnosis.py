from __future__ import annotations

import torch
from torch import nn

from ckptswap.task.diagnosis import diagnosed


class OfText(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 2)

    def get_input_embeddings(self) -> nn.Module:
        return self.words


def test_images_for_a_model_of_text_are_named() -> None:
    fault = diagnosed(OfText(), torch.zeros(2, 3, 8, 8), "too many values to unpack (expected 2)")
    assert fault is not None
    assert "takes tokens" in fault.message
    assert "--data text:FILE" in fault.remedy
    assert diagnosed(OfText(), torch.zeros(2, 3, dtype=torch.long), "something else") is None
    assert diagnosed(nn.Conv2d(3, 1, 1), torch.zeros(2, 3, 8, 8), "something else") is None
