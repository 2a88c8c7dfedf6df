"""Modules and public names of version 0.1.0: they still work, with a DeprecationWarning that says the new one.

Add to the tables when a module moves or a name changes, and take an entry out two minor versions later.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

MODULES = {
    "backbones": "detectors.backbones",
    "batch": "training.batch",
    "callbacks.detection_pictures": "callbacks.detection_plots",
    "callbacks.evaluation_pictures": "callbacks.evaluation_plots",
    "callbacks.loss_pictures": "callbacks.loss_plots",
    "callbacks.shown_steps": "callbacks.every_n_steps",
    "callbacks.weight_pictures": "callbacks.weight_plots",
    "charts": "visualization.figures",
    "class_counts": "core.class_counts",
    "compare.local": "compare.local_processes",
    "data.coco": "data.coco_data",
    "data.coco_json": "data.formats.coco",
    "data.coco_schema": "data.formats.coco_schema",
    "data.images": "data.image_files",
    "data.lvis_json": "data.formats.lvis",
    "data.samplers": "data.ordering",
    "data.summary": "data.check_report",
    "errors": "core.errors",
    "finite": "core.nan_guard",
    "flat_levels": "detectors.retinanet.fused_towers",
    "functional.effective_number": "functional.class_balanced",
    "functional.elements": "functional.fused.sigmoid_terms",
    "functional.hard_negatives": "functional.ohem",
    "functional.loss_spread": "functional.loss_distribution",
    "functional.one_pass": "functional.fused.anchor_loss",
    "functional.piecewise": "functional.fused.anchor_loss",
    "functional.prime_samples": "functional.pisa",
    "functional.sample_weighting": "functional.swn",
    "lightning_cli": "cli.lightning_cli",
    "losses.gradient_balance": "losses.class_gradients",
    "losses.names": "losses.registry",
    "metrics.detection_rows": "metrics.detection_table",
    "metrics.inputs": "metrics.update_inputs",
    "module": "training",
    "named_type": "core.cli_types",
    "optim": "training.optimization",
    "part": "core.component",
    "pictures": "visualization.draw",
    "reduce": "core.distributed",
    "registry": "core.registry",
    "retinanet": "detectors.retinanet.network",
    "samples": "core.samples",
    "stand_ins": "detectors.retinanet.fast_methods",
    "testing.compare": "testing.tensor_differences",
    "testing.report": "testing.check_runner",
    "tiny": "detectors.tiny_backbone",
}
"""New paths of modules, below ``lit_dense``."""
ELSEWHERE = {
    "class_counts.ClassTable": "core.per_class_table",
    "data.samplers.ResumableLoader": "data.resumable_loader",
    "pictures.keep_scores": "core.score_threshold",
    "samples.collect_samples": "detectors.torchvision_batch",
}
"""New modules of names that did not move with the rest of their module."""
NAMES = {
    "ClassTable": "PerClassTable",
    "DetectionPictures": "DetectionPlots",
    "DetectionRows": "DetectionTable",
    "Elements": "SigmoidTerms",
    "EvaluationPictures": "EvaluationPlots",
    "FiniteCheck": "NaNGuard",
    "LossPictures": "LossPlots",
    "Part": "Component",
    "WeightPictures": "WeightPlots",
    "named_type": "cli_type",
}
"""New names of what was renamed."""

_PACKAGE = __name__.rpartition(".")[0]


class _MovedModules(MetaPathFinder, Loader):
    """Finds modules at their former paths; comes after all other finders, so it is asked of absent modules only."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        return spec_from_loader(fullname, self) if package == _PACKAGE and name in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.partition(".")[2]
        new = MODULES[old]
        warnings.warn(f"{module.__name__} is now {_PACKAGE}.{new}.", DeprecationWarning, stacklevel=2)

        def attribute(name: str) -> Any:
            where = ELSEWHERE.get(f"{old}.{name}", new)
            return getattr(import_module(f"{_PACKAGE}.{where}"), NAMES.get(name, name))

        module.__getattr__ = attribute  # type: ignore[method-assign]


def former(module: str, name: str) -> Any:
    """The object behind a former name, for the ``__getattr__`` of a module.

    Args:
        module: Name of the module.
        name: The name that it does not have.

    Raises:
        AttributeError: If it had none of this name either.
    """
    new = NAMES.get(name)
    if new is None or not hasattr(import_module(module), new):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now called {new}.", DeprecationWarning, stacklevel=3)
    return getattr(import_module(module), new)


def install() -> None:
    """Let imports find the modules that have moved."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
