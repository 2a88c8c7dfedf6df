"""The states of torch's random generators in a checkpoint: a resumed run draws what the uninterrupted run would."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from ..core.distributed import Reduce

RandomStates = dict[str, Tensor]  # by device type


def random_states(module: LightningModule) -> list[RandomStates]:
    """Return the states of the generators that a network draws from, of each process.

    Networks draw the image size (``min_size`` with several values), sampled proposals and dropout. All processes call
    this, as they do when a trainer saves a checkpoint: one collective.

    Args:
        module: The module that is trained.

    Returns:
        The states by device type, in the order of processes.
    """
    states = {"cpu": torch.get_rng_state()}
    if module.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(module.device)
    return Reduce().gather_objects(states)


def restore_random_states(module: LightningModule, states: Sequence[RandomStates] | RandomStates) -> None:
    """Set the generators to the states of a checkpoint; with another number of processes they stay as they are.

    Args:
        module: The module that is trained.
        states: The result of :func:`random_states`; empty for a checkpoint without states. A dictionary, which older
            checkpoints hold, is the state of one process.
    """
    if isinstance(states, dict):
        states = [states] if states else []
    if not states or len(states) != module.trainer.world_size:
        return
    own = states[module.trainer.global_rank]
    torch.set_rng_state(own["cpu"].cpu())
    if "cuda" in own and module.device.type == "cuda":
        torch.cuda.set_rng_state(own["cuda"].cpu(), module.device)
