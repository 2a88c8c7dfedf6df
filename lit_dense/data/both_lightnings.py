"""The base of a data module that Trainers of ``lightning.pytorch`` and of ``pytorch_lightning`` take.

Both are the same code under two names, and each Trainer asks for the classes of its own name. The package lightning
installs pytorch_lightning too.
"""

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule

if TYPE_CHECKING:

    class OtherDataModule:
        """The base class of the other name."""
else:
    try:
        from pytorch_lightning import LightningDataModule as OtherDataModule
    except ImportError:  # in a lightning that was installed without its dependencies

        class OtherDataModule:
            """Stands for a base class that no Trainer asks for."""


class DataModule(LightningDataModule, OtherDataModule):
    """A data module for Trainers of either name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
