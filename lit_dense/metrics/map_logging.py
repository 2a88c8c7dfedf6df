"""Logging of the mAP of one or several data loaders to Lightning."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule

from .mean_ap import DetectionMAP


def log_maps(module: LightningModule, stage: str, metrics: Sequence[DetectionMAP]) -> None:
    """Compute, log and reset the metric of each loader of a stage.

    With several loaders the names end in ``/dataloader_idx_N``, the suffix that Lightning gives to losses.

    Args:
        module: The module that logs.
        stage: Prefix of the names, ``val`` or ``test``.
        metrics: One metric per loader; the same number on every process.
    """
    for index, metric in enumerate(metrics):
        suffix = f"/dataloader_idx_{index}" if len(metrics) > 1 else ""
        values = {f"{stage}_{name}{suffix}": value for name, value in metric.compute().items()}
        metric.reset()
        prominent = {name: values.pop(name) for name in (f"{stage}_map{suffix}", f"{stage}_map_50{suffix}")}
        # No sync_dist: every process has the same numbers, and it would reduce each of them, thousands with LVIS.
        # add_dataloader_idx=False: Lightning adds the suffix only within a step, and this runs outside.
        module.log_dict(prominent, prog_bar=True, add_dataloader_idx=False)
        module.log_dict(values, add_dataloader_idx=False)
