"""Small LightningModules: LitRetinaNet around a small network, somebody else's, and one that notes what it sees."""

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_dense import LitRetinaNet
from tests.builders.detectors import small_retinanet
from tests.builders.trainers import trainer_in


class SmallRetinaNet(LitRetinaNet):
    """LitRetinaNet around the small network."""

    def build_model(self, num_classes):
        return small_retinanet(num_classes)


class TrainedBias:
    """Gives LitRetinaNet a network that comes with a trained bias, as torchvision's detectors may."""

    def build_model(self, num_classes):
        model = super().build_model(num_classes)
        torch.nn.init.normal_(model.head.classification_head.cls_logits.bias)
        return model


class Foreign(LightningModule):
    """Knows a detector of torchvision alone, and validates in train mode under no_grad, as some projects do."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or small_retinanet()

    def forward(self, images, targets):
        return self.net(images, targets)

    def training_step(self, batch, batch_idx):
        return torch.stack(list(self.net(*batch).values())).sum()

    def validation_step(self, batch, batch_idx):
        self.net.train()
        self.log("val", torch.stack(list(self.net(*batch).values())).sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Recorder(LightningModule):
    """Notes which images it sees in which epoch, the sums of their pixels and their boxes."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_after = stop_after
        self.seen, self.validated = [], []

    def training_step(self, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            raise KeyboardInterrupt
        images, targets = batch
        sums = [int(image.sum()) for image in images]
        boxes = [target["boxes"].tolist() for target in targets]
        self.seen.append((self.current_epoch, batch_idx, [target["image_id"] for target in targets], sums, boxes))
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        pass

    def predict_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        self.validated.append(len(self.seen))

    def configure_optimizers(self):
        self.steps = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), 0.1)


def record(data, checkpoints, stop_after=None, ckpt_path=None, every=1, **options):
    """A Recorder that was trained for three epochs, or interrupted, and leaves a checkpoint of every so many steps."""
    module = Recorder(stop_after)
    saver = ModelCheckpoint(checkpoints, every_n_train_steps=every, save_top_k=-1, filename="{step}")
    trainer = trainer_in(checkpoints, saver, **{"max_epochs": 3, "num_sanity_val_steps": 0} | options)
    try:
        trainer.fit(module, data, ckpt_path=ckpt_path)
    except (KeyboardInterrupt, SystemExit):
        assert len(module.seen) == stop_after
    return module
