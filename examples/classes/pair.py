"""Draw images of two classes, a folder each, and train two small ResNets of timm: a.safetensors, b.safetensors.

B is A, trained further on images of the same classes with inverted brightness.
"""

from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

SIDE = 24


def images(count, seed, inverted):
    draw = np.random.default_rng(seed)
    for at in range(count):
        lines = np.zeros((SIDE, SIDE)) + 0.2
        lines[draw.integers(0, 4) :: 4] = 0.8
        pixels = lines if at % 2 else lines.T
        pixels = (1 - pixels if inverted else pixels) + draw.normal(0, 0.1, (SIDE, SIDE))
        yield np.repeat((pixels.clip(0, 1) * 255).astype(np.uint8)[:, :, None], 3, 2), at % 2


def train(model, inverted, steps):
    pixels, classes = zip(*images(64, 0, inverted), strict=True)
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model((x - 0.5) / 0.25), torch.tensor(classes)).backward()
        optimizer.step()


torch.manual_seed(0)
model = timm.create_model("test_resnet", num_classes=2)
for name, inverted in (("a", False), ("b", True)):
    train(model.train(), inverted, 12)
    save_file({key: value.clone() for key, value in model.state_dict().items()}, f"{name}.safetensors")
for at, (pixels, number) in enumerate(images(24, 1, True)):
    path = Path("lines", ("columns", "rows")[number], f"{at}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
