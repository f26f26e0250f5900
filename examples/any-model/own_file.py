"""A network of one's own with two inputs, and its data. Running this file trains it: early.pt, late.pt."""

import torch
from torch import nn


class Forecast(nn.Module):
    """From readings (N, T, 2) and the day of the week (N,) to the next reading (N, 2)."""

    def __init__(self, width):
        super().__init__()
        self.day_embedding, self.filter = nn.Embedding(7, 4), nn.Conv1d(2, width, 12)
        self.norm, self.head = nn.LayerNorm(width + 4), nn.Linear(width + 4, 2)

    def forward(self, readings, day):
        filtered = self.filter(readings.transpose(1, 2))[..., 0].relu()
        return self.head(self.norm(torch.cat([filtered, self.day_embedding(day)], 1)))


def network(width=16):
    """A callable that gives the network: `--model own_file.py:network --model-args width=16`."""
    return Forecast(width)


def weeks(samples=32, seed=1):
    """A callable that gives samples, (inputs by name, target) each: `--data own_file.py:weeks`."""
    draw = torch.Generator().manual_seed(seed)
    days, noise = torch.arange(samples) % 7, 0.1 * torch.randn(samples, 13, 2, generator=draw)
    angles = torch.rand(samples, 1, generator=draw) * 6.3 + torch.arange(13) * 0.5
    paths = torch.stack([angles.sin(), angles.cos()], 2) * (1 + days[:, None, None] / 7) + noise
    return [({"readings": path[:12], "day": day}, path[12]) for path, day in zip(paths, days, strict=True)]


if __name__ == "__main__":
    from made import train

    torch.manual_seed(0)
    model, batches = network(), torch.utils.data.DataLoader(weeks(640, seed=0), batch_size=16)
    samples = iter([batch for _ in range(2) for batch in batches])

    def loss(_):
        inputs, target = next(samples)
        return nn.functional.mse_loss(model(**inputs), target)

    for stage in train(model, loss, steps=80):
        torch.save(model.state_dict(), f"{stage}.pt")
