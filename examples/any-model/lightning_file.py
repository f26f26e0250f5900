"""A classifier of Lightning's. Running this file trains it: step10.ckpt … step40.ckpt, and pictures in shapes/."""

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn


class Classifier(lightning.LightningModule):
    def __init__(self, width=4, classes=2, rate=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes),
        )  # fmt: skip

    def forward(self, pictures):
        return self.network(pictures)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[2])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)


if __name__ == "__main__":
    import logging
    import warnings

    from made import SHAPES, shapes, unseen, write_image

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it has much to say
    warnings.simplefilter("ignore")
    for number, picture, _, kind in unseen():
        write_image(picture, f"shapes/{SHAPES[kind]}/{number}.png")
    lightning.seed_everything(0, verbose=False)
    keep = ModelCheckpoint(".", "step{step}", every_n_train_steps=10, save_top_k=-1, auto_insert_metric_name=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    batches = torch.utils.data.DataLoader([shapes(step) for step in range(40)], batch_size=None)
    trainer = lightning.Trainer(max_epochs=1, callbacks=[keep], **quiet)
    trainer.fit(Classifier(width=12, classes=3, rate=1e-2), batches)
