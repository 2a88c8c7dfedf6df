"""An adapter of Albumentations (https://albumentations.ai) for the transforms of training images."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..core.errors import UsageError, nearest


class Albumentations(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Transforms of Albumentations in the list of ``data.transforms``, between those of torchvision.

    Random numbers come from the seed of the sample, as those of torchvision's transforms do. Boxes are clipped to the
    image. Boxes that leave it are removed.

    Args:
        transforms: The transforms, applied in order: objects, or dicts with ``name``, the name of a class of
            Albumentations, and its arguments, which may have lists of such dicts.

    Raises:
        UsageError: If a name or an argument is unknown.
        ModuleNotFoundError: If Albumentations is not installed.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        super().__init__()
        self._library = import_module("albumentations")
        boxes = self._library.BboxParams(format="pascal_voc", label_fields=["rows"], clip=True)
        self._compose = self._library.Compose([self._built(one) for one in transforms], bbox_params=boxes)

    def __getstate__(self) -> dict[str, Any]:  # a module cannot be pickled
        return {**self.__dict__, "_library": None}

    def _built(self, given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [self._built(one) for one in given]
        if not isinstance(given, dict) or "name" not in given:
            return given
        name, arguments = given["name"], {key: value for key, value in given.items() if key != "name"}
        cls = getattr(self._library, name, None)
        if not isinstance(cls, type):
            raise UsageError(f"Albumentations has no transform {name!r}.{nearest(name, dir(self._library))}")
        inner = {
            key: self._built(value) if key == "transforms" else tuple(value) if isinstance(value, list) else value
            for key, value in arguments.items()
        }
        try:
            return cls(**inner)
        except (TypeError, ValueError) as error:
            raise UsageError(f"Albumentations: {name} cannot be built: {' '.join(str(error).split())}") from error

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Transform an image and its boxes.

        Args:
            image: The image, uint8 [3, H, W].
            target: ``boxes`` [N, 4] and ``row``, the number of each box.
        """
        self._compose.set_random_seed(int(torch.randint(2**31, ())))
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        boxes = target["boxes"].as_subclass(Tensor).numpy()
        found = self._compose(image=pixels, bboxes=boxes, rows=np.arange(len(boxes)))
        if isinstance(found["image"], Tensor):
            raise UsageError("Albumentations: leave ToTensorV2 out: the image becomes a tensor after all transforms.")
        changed = tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(found["image"])).permute(2, 0, 1))
        corners = torch.as_tensor(np.asarray(found["bboxes"], np.float32).reshape(-1, 4))
        moved = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=changed.shape[-2:])
        kept = torch.as_tensor(np.asarray(found["rows"], np.int64))
        return changed, {**target, "boxes": moved, "row": target["row"][kept]}
