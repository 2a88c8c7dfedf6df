"""Base class for a data module that the Trainers of ``lightning.pytorch`` and ``pytorch_lightning`` both accept.

The two packages contain the same code, and each Trainer accepts only classes of its own package. Installing lightning
also installs pytorch_lightning.
"""

from typing import TYPE_CHECKING, Any

from lightning.pytorch import LightningDataModule

if TYPE_CHECKING:

    class OtherDataModule:
        """The data module base class of the other package."""
else:
    try:
        from pytorch_lightning import LightningDataModule as OtherDataModule
    except ImportError:  # lightning was installed without its dependencies

        class OtherDataModule:
            """A placeholder base class that no Trainer checks for."""


class DataModule(LightningDataModule, OtherDataModule):
    """A data module that Trainers of both packages accept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
