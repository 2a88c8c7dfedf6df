"""A map-style data set of images with boxes, and the functions that collate its samples into batches."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from ..augmentations import Augmentation, Picture
from ..augmentations.picture import all_unknown
from ..core.array_types import Ints
from .coco_data import CocoData
from .image_cache import ImageCache
from .image_files import read_image
from .ordering import Draw
from .problems import DataError
from .transforms import mirrors, with_mirrored_classes

Sample = tuple[tv_tensors.Image, dict[str, Any]]


class CocoDataset(Dataset[Sample]):
    """The images of one split with their boxes.

    An item is an image, uint8 [3, H, W] in RGB, and a dict: ``boxes`` (x1, y1, x2, y2) float32 [N, 4], ``labels``
    int64 [N], ``area`` float32 [N], ``iscrowd`` int64 [N], ``weight`` float32 [N] if the data has weights,
    ``neg_labels`` and ``not_exhaustive_labels`` if the data is LVIS's, ``unknown_labels`` if data sets are joined (the
    classes that the image is not annotated for), ``image_id``, ``file_name`` and ``orig_size``
    (height and width before the transforms). An image without boxes has N = 0.

    With transforms, boxes are clipped to the image. A box is removed if one of its sides becomes shorter than one pixel
    and shorter than half of its former length. Boxes that were smaller than a pixel before stay, as in evaluation.
    Areas are scaled by the ratio of the box areas. This separates large from small objects in training, but it is not
    the mask area that COCO evaluates with, so do not transform evaluation data.

    The index of an item is an int or a :class:`~lit_dense.data.Draw`. With a ``Draw``, augmentation uses random numbers
    of its seed and its partners, and the states of the generators of torch (CPU), numpy and Python do not change.

    Args:
        data: The images and boxes.
        category_ids: The category ids of labels 0, 1, ..., ascending.
        transforms: Called with (image, dict with ``boxes`` and ``labels``), as torchvision.transforms.v2.
        augmentation: Augmentations that combine images; they are applied before the transforms.
        mirrored: Label that each label becomes in a mirrored image [C]. Default: labels do not change.
        cache: Keeps decoded images. Default: each image is decoded whenever it is read.
    """

    def __init__(
        self,
        data: CocoData,
        category_ids: Ints,
        transforms: Callable[..., Any] | None = None,
        augmentation: Sequence[Augmentation] = (),
        mirrored: Tensor | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        self.data, self.cache = data, cache
        self.labels = data.labels(category_ids)
        self.category_ids = category_ids
        self.mirrored = torch.arange(len(category_ids)) if mirrored is None else mirrored
        self.transforms = transforms if mirrored is None else with_mirrored_classes(transforms, mirrored)
        self.flips = mirrors(transforms)
        self.augmentation = augmentation
        self._groups, self._unknown = data.groups, self._unknown_labels()
        for one in augmentation:
            one.receive_objects(data, self.labels)

    @property
    def num_partners(self) -> int:
        """Number of other images that the augmentation of a sample needs."""
        return sum(one.num_partners for one in self.augmentation)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, item: int | Draw) -> Sample:
        if not isinstance(item, Draw):
            return self._sample(self._unseeded(item))
        with _seeded(item.seed):
            return self._sample(item)

    def _unseeded(self, index: int) -> Draw:
        """Return a draw with a seed and partners from the generator of torch, if the augmentation needs them."""
        if not self.augmentation:
            return Draw(index, 0)
        partners = torch.randint(len(self), (self.num_partners,)).tolist()
        if self._groups is not None:
            candidates = np.flatnonzero(self._groups.partners_of(self._groups.of_image[index]))
            partners = [int(candidates[partner * len(candidates) // len(self)]) for partner in partners]
        return Draw(index, int(torch.randint(2**62, ())), tuple(partners))

    def _sample(self, draw: Draw) -> Sample:
        index = draw.item
        picture = self.picture(index)
        orig_size = picture.size
        if self.augmentation:
            picture = self._augmented(picture, draw)
        image, fields = tv_tensors.Image(picture.image), dict(picture.fields)
        boxes = tv_tensors.BoundingBoxes(picture.boxes, format="XYXY", canvas_size=picture.size)
        if self.transforms is not None:
            image, boxes, fields = _transform(self.transforms, image, boxes, fields)
        target = {
            "boxes": boxes,
            **fields,
            "image_id": int(self.data.image_ids[index]),
            "file_name": self.data.file_names[index],
            "orig_size": orig_size,
        }
        if picture.absent is not None:
            target |= {"neg_labels": picture.absent, "not_exhaustive_labels": picture.partial}
        if picture.unknown is not None:
            target["unknown_labels"] = picture.unknown
        return image, target

    def _augmented(self, picture: Picture, draw: Draw) -> Picture:
        rng, partners = np.random.default_rng(draw.seed), list(draw.partners)
        for one in self.augmentation:
            own, partners = partners[: one.num_partners], partners[one.num_partners :]
            applied = rng.random() < one.p  # drawn always, so that closing it does not change the others
            if applied and one.is_open(draw.progress):
                changed = one(picture, own, self, rng)
                if self._groups is not None:  # an augmentation of somebody's own may drop the list
                    unknown = all_unknown([picture, changed])
                    changed = replace(changed, unknown=unknown, group=picture.group)
                picture = changed
        return picture

    def picture(self, index: int) -> Picture:
        """Read an image with its boxes, without augmentation.

        Args:
            index: Index of the image.
        """
        data = self.data
        rows = slice(data.offsets[index], data.offsets[index + 1])
        fields = {
            "labels": torch.tensor(self.labels[rows]),
            "area": torch.tensor(data.area[rows]),
            "iscrowd": torch.tensor(data.iscrowd[rows], dtype=torch.int64),
        }
        if data.weight is not None:
            fields["weight"] = torch.tensor(data.weight[rows])
        absent, partial = self._federated(index)
        picture = Picture(self._read(index), torch.tensor(data.boxes[rows]), fields, absent, partial)
        if data.origins is None or self._groups is None:
            return picture
        unknown = self._unknown[data.origins.source_idxs[index]]
        return replace(picture, unknown=unknown, group=int(self._groups.of_image[index]))

    def _unknown_labels(self) -> list[Tensor]:
        """Return the labels that the images of each source are not annotated for."""
        unknown = []
        for ids in self.data.origins.unknown if self.data.origins else ():
            labels = torch.from_numpy(np.searchsorted(self.category_ids, ids))
            if self.flips:  # an image may be mirrored after its lists were made
                labels = torch.cat([labels, self.mirrored[labels]]).unique()
            unknown.append(labels)
        return unknown

    def _federated(self, index: int) -> tuple[Tensor | None, Tensor | None]:
        if self.data.federated is None:
            return None, None
        absent, partial = (np.searchsorted(self.category_ids, ids.row(index)) for ids in self.data.federated)
        return torch.from_numpy(absent), torch.from_numpy(partial)

    def _read(self, index: int) -> Tensor:
        path = self.data.folder / self.data.file_names[index]
        decode = partial(read_image, path, upright=bool(self.data.upright[index]))
        image = decode() if self.cache is None else self.cache.read(index, decode)
        expected = self.data.sizes[index].tolist()
        if list(image.shape[-2:]) != expected:
            sizes = f"{image.shape[-1]} x {image.shape[-2]}, but was {expected[1]} x {expected[0]} at setup"
            raise DataError(f"{path}: the image is {sizes}. Was the file replaced?")
        return image


def _transform(
    transforms: Callable[..., Any],
    image: tv_tensors.Image,
    boxes: tv_tensors.BoundingBoxes,
    fields: dict[str, Tensor],
) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes, dict[str, Tensor]]:
    """Transform an image and its boxes, and select the rows of the other fields accordingly."""
    before = _sides(boxes)  # transforms may change the boxes in place
    image, target = transforms(image, {"boxes": boxes, "labels": fields["labels"], "row": torch.arange(len(boxes))})
    moved, labels, rows = target["boxes"], target["labels"], target["row"]
    if not isinstance(moved, tv_tensors.BoundingBoxes):
        raise DataError(
            f"A transform returned boxes as {type(moved).__name__}, without the size of the image: return "
            "torchvision.tv_tensors.BoundingBoxes, and leave ToPureTensor out."
        )
    moved = v2.functional.convert_bounding_box_format(moved, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    if len(moved) != len(rows):
        raise DataError(
            "A transform removed boxes without their labels. This is not needed: boxes smaller than a pixel are "
            "removed after the last transform. To remove other boxes, use labels_getter=lit_dense.data.box_rows."
        )
    if len(labels) == len(boxes):
        labels = labels[rows]
    moved = v2.functional.clamp_bounding_boxes(moved)
    large = (_sides(moved) >= (before[rows] / 2).clamp(max=1)).all(1)
    moved, rows = tv_tensors.wrap(moved[large], like=moved), rows[large]
    area = fields["area"][rows] * _sides(moved).prod(1) / before[rows].prod(1)
    others = {name: value[rows] for name, value in fields.items()}
    return image, moved, {**others, "labels": labels[large], "area": area}


def _sides(boxes: Tensor) -> Tensor:
    corners = boxes.as_subclass(Tensor)
    return corners[:, 2:] - corners[:, :2]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch (CPU), numpy and Python, and restore their states afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 (transforms may use it)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that also seeds CUDA, which is not restored
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def collate(samples: Sequence[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Collate samples into a list of images and a list of targets, as plain tensors."""
    images = [image.as_subclass(Tensor) for image, _ in samples]
    return images, [{name: _plain(value) for name, value in target.items()} for _, target in samples]


def collate_images(samples: Sequence[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Collate samples for prediction: targets have only ``image_id``, ``file_name`` and ``orig_size``."""
    images, targets = collate(samples)
    return images, [{name: target[name] for name in ("image_id", "file_name", "orig_size")} for target in targets]


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, Tensor) else value
