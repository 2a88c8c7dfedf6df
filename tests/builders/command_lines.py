"""Both command lines that tests run: ``lit-dense`` and a plain LightningCLI."""

import pytest
from lightning.pytorch.cli import LightningCLI

from lit_dense import CocoDataModule, LitRetinaNet
from lit_dense.cli.lightning_cli import run


def plain_cli(words):
    """What a user's train.py holds."""
    return LightningCLI(LitRetinaNet, CocoDataModule, args=words, save_config_kwargs={"overwrite": True})


DOORS = pytest.mark.parametrize("door", [run, plain_cli], ids=["lit-dense", "plain"])
