"""Quiet trainers, loaders for them, and what stands for a trainer where hooks are called directly."""

from types import SimpleNamespace

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lit_dense.core.distributed import Reduce
from tests.builders.detectors import random_batch

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def loader(*seeds, counts=(2, 0, 3)):
    """A batch of random images for each seed, with so many objects in each image."""
    return DataLoader([random_batch(counts, seed=seed) for seed in seeds], batch_size=None)


def trainer_in(folder, *callbacks, **arguments):
    """A trainer that is quiet, on the CPU, of one epoch, and that saves where a callback is there to do so."""
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    settings = {"default_root_dir": folder, "max_epochs": 1, "enable_checkpointing": saves, **QUIET, **arguments}
    return Trainer(**{"callbacks": list(callbacks), **settings})


def fit(folder, module, *callbacks, batches=3, checkpoint=None, **arguments):
    """The trainer after training on some random batches, with its log in the folder ``run`` by default."""
    logger = CSVLogger(folder, name="", version="run")
    trainer = trainer_in(folder, *callbacks, **{"logger": logger, "log_every_n_steps": 1000, **arguments})
    trainer.fit(module, loader(*range(batches)), ckpt_path=checkpoint)
    return trainer


class FakeTrainer(SimpleNamespace):
    """What hooks of callbacks ask of a trainer."""

    default_root_dir, is_global_zero, sanity_checking, loggers, callbacks, global_step = ".", True, False, (), (), 0
    checkpoint_callbacks, ckpt_path, world_size = (), None, 1

    def __init__(self, log_dir, **values):
        super().__init__(folder=log_dir and str(log_dir), **values)

    @property
    def log_dir(self):
        return self.folder


class CollectiveTrainer(FakeTrainer):
    """That of one of several processes: asking for its folder is a collective, as in Lightning."""

    def __init__(self, log_dir, rank, **values):
        super().__init__(log_dir, is_global_zero=rank == 0, **values)

    @property
    def log_dir(self):
        return Reduce().gather_objects(self.folder)[0]


def observed_step(callback, trainer, module, batch=None):
    """A callback's hooks around a training step of the detector ``module[0]``; without a batch it computes no loss."""
    callback.on_train_start(trainer, module)
    callback.on_train_batch_start(trainer, module, None, 0)
    if batch is not None:
        module[0](*batch)
    callback.on_train_batch_end(trainer, module, None, None, 0)
