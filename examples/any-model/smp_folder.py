"""Train a U-Net of segmentation-models-pytorch to find shapes: early/ and late/, and pictures in shapes/."""

import segmentation_models_pytorch as smp
import torch
from made import shapes, train, unseen, write_image

torch.manual_seed(0)
network = smp.Unet("tu-resnet10t", encoder_weights=None, encoder_depth=2, decoder_channels=(16, 8))
error = torch.nn.BCEWithLogitsLoss()


def loss(step):
    pictures, masks, _ = shapes(step)
    return error(network(pictures)[:, 0], masks.float())


for number, picture, mask, _ in unseen():
    write_image(picture, f"shapes/images/{number}.png")
    write_image(mask * 255, f"shapes/masks/{number}.png")
for stage in train(network, loss, steps=24, rate=1e-2):
    network.save_pretrained(stage)
