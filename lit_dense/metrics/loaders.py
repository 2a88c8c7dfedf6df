"""mAP of several data loaders: what its numbers are called, and how they get into Lightning's log."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule

from .mean_ap import DetectionMAP


def log_maps(module: LightningModule, stage: str, metrics: Sequence[DetectionMAP]) -> None:
    """Compute, log and reset the metric of each loader of a stage.

    Of several loaders the names end in ``/dataloader_idx_N``, as Lightning names the losses of each.

    Args:
        module: Where to log.
        stage: What the names begin with, ``val`` or ``test``.
        metrics: One for each loader, as many on every process.
    """
    for index, metric in enumerate(metrics):
        end = f"/dataloader_idx_{index}" if len(metrics) > 1 else ""
        named = {f"{stage}_{name}{end}": value for name, value in metric.compute().items()}
        metric.reset()
        shown = {name: named.pop(name) for name in (f"{stage}_map{end}", f"{stage}_map_50{end}")}
        # no sync_dist: every process has these numbers already, thousands in LVIS, and it would reduce each of them;
        # add_dataloader_idx: Lightning adds the end in a step alone
        module.log_dict(shown, prog_bar=True, add_dataloader_idx=False)
        module.log_dict(named, add_dataloader_idx=False)
