"""The entry point of the checks of a detector's adapter."""

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..detectors import DETECTORS
from ..detectors.base import Detections, DetectorAdapter
from . import detector_checks as attaching
from . import detector_parts as parts
from .check_runner import Check, run_checks
from .detector_processes import two_processes_agree
from .detector_subject import Detect, DetectorSubject, Make, Step, Targets
from .processes import TwoProcesses


def losses_of(model: nn.Module, images: list[Tensor], targets: Targets) -> dict[str, Tensor]:
    """Return the loss terms of a model that is called like torchvision's detectors in training."""
    terms: dict[str, Tensor] = model(images, targets)
    return terms


def detections_of(model: nn.Module, images: list[Tensor]) -> Detections:
    """Return the detections of a model that is called like torchvision's detectors in evaluation."""
    detections: Detections = model(images)
    return detections


def check_detector(
    adapter: type[DetectorAdapter] | str,
    make: Make,
    step: Step = losses_of,
    detect: Detect = detections_of,
    *,
    image_size: int = 64,
    of_process: Collection[str] = (),
    skip: Collection[str] = (),
    two_processes: TwoProcesses | None = None,
) -> None:
    """Check that a detector's adapter meets all requirements of lit_dense.

    The detector should be small and have at least 4 classes, because the checks run several hundred training steps.

    Args:
        adapter: The adapter's class, or its name.
        make: ``make()`` returns a model that is the detector or contains it; ``torch.manual_seed`` is called before. A
            detector that samples anchors at random must sample all of them, otherwise two processes cannot agree with
            one.
        step: ``step(model, images, targets)`` returns the loss terms of a training step by name. Images are [3, H, W]
            in [0, 1]. Targets have ``boxes`` [G, 4] in pixels, ``labels`` [G] from the detector's first label on,
            ``image_id``, and ``weight`` [G], which must become a target field. By default ``model(images, targets)``.
        detect: ``detect(model, images)`` returns ``boxes``, ``scores`` and ``labels`` of each image, from a model in
            evaluation mode. By default ``model(images)``.
        image_size: Height and width of the images.
        of_process: Names of terms that the detector itself computes, independently of the criterion, and normalises
            within one process, such as DETR's box loss: ``two_processes`` compares only the other terms and their
            gradients.
        skip: Names of checks to skip, such as ``combinations``, which takes a minute.
        two_processes: A function with the signature ``two_processes(function, *args)`` that returns the results of
            ``function(rank, *args)`` on two processes of one gloo group; by default two processes are started, which
            takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists the expected and the seen result, and a remedy.
        UsageError: If the adapter's name, or the name of a check to skip, is unknown.

    Example:
        >>> from torchvision.models.detection import fcos_resnet50_fpn
        >>> make = partial(fcos_resnet50_fpn, weights=None, weights_backbone=None, num_classes=4, min_size=64)
        >>> check_detector("fcos", make)  # doctest: +SKIP
    """
    checks: dict[str, Check[DetectorSubject]] = {
        "found": attaching.found,
        "steps_repeat": attaching.steps_repeat,
        "own_loss": attaching.own_loss,
        "own_detections": attaching.own_detections,
        "random_stream": attaching.random_stream,
        "columns": parts.columns,
        "state_dict": attaching.state_dict,
        "copies": attaching.copies,
        "removal": attaching.removal,
        "steps_counted": attaching.steps_counted,
        "offers": parts.offers,
        "parts": parts.parts,
        "combinations": parts.combinations,
        "prior": parts.prior,
        "memory": attaching.memory,
        "autocast": attaching.autocast,
        "two_processes": partial(two_processes_agree, two_processes=two_processes),
    }
    cls: type[Any] = DETECTORS.load(adapter) if isinstance(adapter, str) else adapter
    subject = DetectorSubject(cls, make, step, detect, image_size, of_process)
    run_checks(f"The adapter {cls.__name__}", subject, checks, skip)
