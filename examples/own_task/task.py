"""A model, data and a metric of one's own, in one file: ckptswap needs no more than three callables.

Run this file to train a pair of networks that find disks in noise, one of them on inverted images:

    python task.py
    ckptswap sweep --from inverted.pt --to plain.pt \
        --model task.py:network --data task.py:disks --metric task.py:missed --by kind
"""

import torch
from torch import nn


def network(width=8):
    """A model is a callable that returns an nn.Module; --model-args width=8 would be passed to it."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 1, 1),
    )  # fmt: skip


class Disks(torch.utils.data.Dataset):
    """Noisy images (1, 32, 32) with one disk each, their masks (32, 32), and the series each belongs to."""

    def __init__(self, count, seed, inverted):
        self.count, self.seed, self.sign = count, seed, -1 if inverted else 1

    def __len__(self):
        return self.count

    def __getitem__(self, at):
        random = torch.Generator().manual_seed(self.seed + at)
        y, x, radius = (torch.rand(3, generator=random) * torch.tensor([16, 16, 6]) + 8).tolist()
        grid = torch.arange(32)
        mask = ((grid[:, None] - y) ** 2 + (grid[None] - x) ** 2 < (radius - 5) ** 2).long()
        image = self.sign * mask[None] + 0.4 * torch.randn(1, 32, 32, generator=random)
        return image, mask, at // 4


def disks(count=48, seed=1000, inverted=False):
    """Data is a callable that returns a Dataset of (input, target) or (input, target, group)."""
    return Disks(count, seed, inverted)


def missed(output, target):
    """A metric returns one value a sample: here the share of the disk that was missed."""
    hit = (output[:, 0] > 0) & (target > 0)
    return 1 - hit.flatten(1).sum(1) / target.flatten(1).sum(1)


missed.direction = "min"
missed.bounds = 0, 1  # what a sample can score: without it, what is equal in all samples proves nothing


def train(path, inverted):
    torch.manual_seed(0)
    model, loss = network(), nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for batch in torch.utils.data.DataLoader(Disks(320, 0, inverted), batch_size=16):
        optimizer.zero_grad()
        loss(model(batch[0])[:, 0], batch[1].float()).backward()
        optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


if __name__ == "__main__":
    train("plain.pt", inverted=False)
    train("inverted.pt", inverted=True)
