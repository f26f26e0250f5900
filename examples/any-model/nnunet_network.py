"""nnU-Net's own network. Running this file trains it: early.pth and late.pth, and pictures in shapes/.

nnU-Net builds it from a plan; what that says is written out here, for `--model nnunet_network.py:network`.
"""

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn


def network():
    return PlainConvUNet(
        input_channels=3, n_stages=3, features_per_stage=[8, 16, 32], conv_op=nn.Conv2d, kernel_sizes=3,
        strides=[1, 2, 2], n_conv_per_stage=2, num_classes=2, n_conv_per_stage_decoder=1, conv_bias=True,
        norm_op=nn.InstanceNorm2d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip


if __name__ == "__main__":
    import torch
    from made import shapes, train, unseen, write_image

    torch.manual_seed(0)
    unet, error = network(), nn.CrossEntropyLoss()

    def loss(step):
        pictures, masks, _ = shapes(step, samples=8)
        return error(unet(pictures), masks)

    for number, picture, mask, _ in unseen():
        write_image(picture, f"shapes/images/{number}.png")
        write_image(mask, f"shapes/masks/{number}.png")
    for stage in train(unet, loss, steps=24):
        torch.save({"network_weights": unet.state_dict(), "trainer_name": "nnUNetTrainer"}, f"{stage}.pth")
