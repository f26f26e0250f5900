"""Train a classifier of timm's to tell shapes apart: early.pt and late.pt, and pictures in shapes/CLASS/."""

import timm
import torch
from made import SHAPES, shapes, train, unseen, write_image

torch.manual_seed(0)
network = timm.create_model("test_resnet", num_classes=3)
error = torch.nn.CrossEntropyLoss()


def loss(step):
    pictures, _, kinds = shapes(step)
    return error(network(pictures), kinds)


for number, picture, _, kind in unseen():
    write_image(picture, f"shapes/{SHAPES[kind]}/{number}.png")
for stage in train(network, loss, steps=40):
    torch.save(network.state_dict(), f"{stage}.pt")
