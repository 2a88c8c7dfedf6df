"""The states of torch's random generators in a checkpoint: a resumed run draws what the uninterrupted run would."""

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor


def random_states(module: LightningModule) -> dict[str, Tensor]:
    """Return the states of the generators that a network draws from, by device type.

    Networks draw the image size (``min_size`` with several values), sampled proposals and dropout.

    Args:
        module: The module that is trained.

    Returns:
        The states; empty without a trainer, and with several processes: each has its own, but one writes the file.
    """
    if module._trainer is None or module._trainer.world_size > 1:
        return {}
    states = {"cpu": torch.get_rng_state()}
    if module.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(module.device)
    return states


def restore_random_states(module: LightningModule, states: Mapping[str, Tensor]) -> None:
    """Set the generators to the states of a checkpoint; with several processes they stay as they are.

    Args:
        module: The module that is trained.
        states: The result of :func:`random_states`; empty for a checkpoint without states.
    """
    if not states or module.trainer.world_size > 1:
        return
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and module.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), module.device)
