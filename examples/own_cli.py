"""A command line of your own: a plain LightningCLI, and a loss that is defined in this file.

python examples/own_cli.py fit --config configs/demo.yaml --model.loss=LogitHinge --model.loss.margin=0.5
python examples/own_cli.py fit --model.loss.help=LogitHinge
"""

import torch
from lightning.pytorch.cli import ArgsType, LightningCLI
from torch import Tensor

from lit_dense import CocoDataModule, DenseLoss, DenseSamples, LitRetinaNet


class LogitHinge(DenseLoss):
    """Squared hinge loss of the logits.

    Args:
        margin: Distance from 0 from which on a logit has no loss.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute one value per anchor [A]."""
        sign = torch.full_like(logits, -1.0)
        sign[samples.positives, samples.pos_labels] = 1.0
        return (self.margin - sign * logits.float()).clamp(min=0).square().sum(1)


def main(args: ArgsType = None) -> LightningCLI:
    """Run the command line."""
    return LightningCLI(LitRetinaNet, CocoDataModule, args=args, save_config_kwargs={"overwrite": True})


if __name__ == "__main__":
    main()
