"""Train a network and export it, as it may go to others: net.pt2, early.pt, late.pt, and shapes.npz."""

import numpy as np
import torch
from made import shapes, train, unseen
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1),
)  # fmt: skip
error = nn.CrossEntropyLoss()


def loss(step):
    pictures, masks, _ = shapes(step)
    return error(network(pictures), masks)


_, pictures, masks, _ = zip(*unseen(), strict=True)
np.savez("shapes.npz", images=np.stack(pictures), masks=np.stack(masks))
for stage in train(network, loss, steps=24, rate=1e-2):
    torch.save(network.state_dict(), f"{stage}.pt")
any_number = {0: torch.export.Dim("samples")}
torch.export.save(torch.export.export(network.eval(), (shapes(0)[0],), dynamic_shapes=(any_number,)), "net.pt2")
