"""The data module for training, evaluation and prediction."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from ..augmentations import AUGMENTATIONS, AugmentationsLike
from ..core.array_types import Ints
from ..core.class_counts import ClassCounts
from ..core.errors import UsageError, check_choice, check_range
from ..samplers import SAMPLERS, SamplerLike
from .background import located, order_with_share, with_background
from .checks.split_overlap import picture_groups
from .checks.splits import check_splits
from .coco_data import Category, CocoData
from .data_files import DataFiles
from .dataset import CocoDataset, collate, collate_images
from .flip_pairs import FlipPairs, check_flip_pairs, mirrored_labels
from .formats import FORMATS, FormatLike
from .image_cache import CacheMode, ImageCache, open_caches
from .joined import JoinedFiles, check_join_alone, joined_sources
from .lightning_base import DataModule
from .ordering import EpochSampler
from .problems import Problems
from .resumable_loader import ResumableLoader, run_epochs
from .sources import Given, Source, check_known, label_categories, read_images
from .split import check_val_split, stratified_split
from .tiling import collate_tiled
from .transforms import compose, default_train_transforms

Labels = Literal["contiguous", "category_id"]

_STAGES = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
_NEEDS = {
    "fit": "train_annotations",
    "validate": "val_annotations, or train_annotations and val_split,",
    "test": "test_annotations",
    "predict": "predict, test_annotations or val_annotations",
}


class CocoDataModule(DataModule):
    """A data module for images with boxes, in COCO's and other formats. It checks all data before use.

    ``setup`` checks the files that a stage needs and reports all problems together. Repairable problems are repaired
    (boxes are clipped, annotations dropped). Doubtful data is left unchanged. Both are reported in one warning. Data
    that cannot be used raises ``DataError``. A batch is a list of images, uint8 [3, H, W], and a list of targets as
    described in :class:`CocoDataset`. It may contain images without boxes.

    Args:
        root: Folder that paths of images and annotations are relative to.
        train_images: Folder of the training images. Only COCO's files need it; other formats find their images.
        train_annotations: Annotations of the training images: a COCO file, YOLO's ``data.yaml``, a folder of Pascal VOC
            files, a CSV file, or the folder of a Roboflow export. ``data.yaml`` and an export also define the other
            splits.
        val_images: Folder of the validation images. Default: that of the training images.
        val_annotations: Annotations of the validation images. Default: none; ``val_split`` is used.
        test_images: Folder of the test images. Default: that of the training images.
        test_annotations: Annotations of the test images.
        val_split: Share of the training file's images to validate on, if there is no validation file. Classes keep
            their proportions, and copies of one image stay in one split. 0: train without validation.
        predict: Images to predict on: an image file, a folder (searched recursively), a glob or a list of them; paths
            are relative to the current folder. Default: the test images, or else the validation images.
        tile: Side in pixels of the overlapping tiles in which images are predicted. Default: whole images.
        tile_overlap: Smallest share of a tile's side that its neighbour also covers, in [0, 0.9].
        cache: Where decoded training and validation images are kept: ``ram`` or ``disk``. Default: nowhere.
        cache_gib: Largest size of the cache on this machine in GiB; images that do not fit are decoded each time.
            Default: half of the available memory or disk space.
        join: Several data sets that are used as one, instead of the files above. Each is a mapping with ``root`` and
            the arguments of files, and optionally ``format``, ``name``, ``rename`` (new names of classes) and
            ``not_annotated`` (classes that its files list but nobody annotated). Classes are united by name. Classes
            that a data set does not list are unknown in its images, and not background.
        demo: Create a small data set of handwritten digits in ``root/digits`` and use it.
        batch_size: Images per process and training step.
        eval_batch_size: Images per process and step of validation, test and prediction. Default: ``batch_size``.
        num_workers: Processes that load images, per loader.
        pin_memory: Load into pinned memory if there is a CUDA device.
        transforms: Augmentation of training images, from ``torchvision.transforms.v2``. Default: flips, moderate scale
            jitter and colour jitter; an empty list for none.
        augmentation: Augmentations that combine several training images, such as ``mosaic``, before ``transforms``: a
            list of names, or of class paths with arguments. Default: none.
        flip_pairs: Pairs of names of classes that a horizontal flip exchanges, such as ``[[left, right]]``.
        sampler: Sets the order and frequency of training images: a sampler, its name, or its class path with
            arguments. Default: each image once per epoch, shuffled.
        empty_share: Share of images without objects in each training epoch, in [0, 0.99]. The sampler orders the
            others. Default: images without objects are used as other images.
        background_images: Additional training images without objects and without annotations: an image file, a folder
            (searched recursively), a glob or a list of them, relative to ``root``.
        labels: Numbering of labels: ``contiguous`` numbers the categories 0 to C - 1 by ascending id; ``category_id``
            uses the category ids, as the 91 columns of torchvision's COCO weights do; unused labels have the name "".
        weight_key: The key of annotations with the weight of a box, a number of at least 0. It becomes the target field
            ``weight``, 1 for annotations without the key. The weighter ``target_weights`` uses it. Default: no weights
            are read, and targets have no such field.
        ignore_key: The key of annotations that marks regions to ignore, in addition to ``iscrowd``: 1 or true for a
            region, 0, false or no key for an object. Default: only ``iscrowd`` marks them.
        strict: Raise an error for all problems, including repaired and doubtful data.
        format: Format of the annotations: a name such as ``yolo``, or its class path with arguments. Default: each file
            is recognised.
        seed: Seed of the split, the order and the augmentation.

    Attributes:
        num_classes: Number of labels.
        categories: ``id`` and ``name`` of each label, of the training and validation files together.
        class_counts: Class frequencies of the training set, independent of the sampler; None before ``setup("fit")``.
        data: The splits that were set up, as :class:`CocoData`.
    """

    def __init__(
        self,
        root: str | Path = ".",
        train_images: str | Path | None = None,
        train_annotations: str | Path | None = None,
        val_images: str | Path | None = None,
        val_annotations: str | Path | None = None,
        test_images: str | Path | None = None,
        test_annotations: str | Path | None = None,
        val_split: float = 0.0,
        predict: list[str | Path] | str | Path | None = None,
        demo: bool = False,
        batch_size: int = 4,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        pin_memory: bool = True,
        transforms: Sequence[v2.Transform] | None = None,
        augmentation: AugmentationsLike | None = None,
        flip_pairs: FlipPairs | None = None,
        sampler: SamplerLike | None = None,
        empty_share: float | None = None,
        background_images: list[str | Path] | str | Path | None = None,
        labels: Labels = "contiguous",
        weight_key: str | None = None,
        ignore_key: str | None = None,
        strict: bool = False,
        seed: int = 0,
        format: FormatLike | None = None,
        tile: int | None = None,
        tile_overlap: float = 0.2,
        cache: CacheMode | None = None,
        cache_gib: float | None = None,
        join: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.root = Path(root)
        self.demo = demo
        self.val_split = check_range(name, "val_split", val_split, 0, 0.99)
        self.batch_size = int(check_range(name, "batch_size", batch_size, 1))
        self.eval_batch_size = int(check_range(name, "eval_batch_size", eval_batch_size or batch_size, 1))
        self.num_workers = int(check_range(name, "num_workers", num_workers, 0))
        self.seed = int(check_range(name, "seed", seed, 0))
        self.pin_memory = pin_memory
        self.labels: Labels = check_choice(name, "labels", labels, get_args(Labels))
        self.weight_key, self.ignore_key = weight_key, ignore_key
        self.strict = strict
        self.transforms = compose(default_train_transforms() if transforms is None else transforms)
        self.augmentation = AUGMENTATIONS.build_list([] if augmentation is None else augmentation)
        self.flip_pairs = check_flip_pairs(flip_pairs)
        self.sampler = None if sampler is None else SAMPLERS.build(sampler)
        self.empty_share = None if empty_share is None else check_range(name, "empty_share", empty_share, 0, 0.99)
        background = [background_images] if isinstance(background_images, str | Path) else background_images or []
        self.background_images = located(self.root, background)
        self.predict = [predict] if isinstance(predict, str | Path) else predict
        self.tile = None if tile is None else int(check_range(name, "tile", tile, 32))
        self.tile_overlap = check_range(name, "tile_overlap", tile_overlap, 0, 0.9)
        self.cache = None if cache is None else check_choice(name, "cache", cache, get_args(CacheMode))
        self.cache_gib = None if cache_gib is None else check_range(name, "cache_gib", cache_gib, 0)
        self._caches: dict[str, ImageCache] | None = None
        self.format = None if format is None else FORMATS.build(format)
        given: Given = {
            "train": (train_annotations, train_images),
            "val": (val_annotations, val_images),
            "test": (test_annotations, test_images),
        }
        self._files = self._open_files(given, join)
        check_val_split(self._files.stated, self.val_split)
        self.data: dict[str, CocoData] = {}
        self.class_counts: ClassCounts | None = None
        self._categories: list[Category] | None = None
        self._train_loader: ResumableLoader | None = None
        self._resumed: dict[str, int] = {}

    @property
    def sources(self) -> dict[str, Source]:
        """The files of each split, with their formats; of joined data those of the first source that has the split.

        Raises:
            UsageError: A format is not recognised.
        """
        sources = self._files.sources
        check_val_split(sources, self.val_split)
        return sources

    @property
    def formats(self) -> dict[str, str]:
        """The name of the format of each split; of joined data those of all sources."""
        return self._files.formats

    @property
    def is_joined(self) -> bool:
        """Whether several data sets are joined."""
        return isinstance(self._files, JoinedFiles)

    def _open_files(self, given: Given, join: list[dict[str, Any]] | None) -> DataFiles | JoinedFiles:
        masks = ["train"] if any(one.reads_outlines for one in self.augmentation) else []
        if join is None:
            return DataFiles(self.root, given, self.format, self.weight_key, self.ignore_key, masks, self.demo)
        check_join_alone(self.demo, given, self.labels)
        sources = joined_sources(self.root, join, self.format, self.weight_key, self.ignore_key, masks)
        return JoinedFiles(self.root, sources)

    @property
    def categories(self) -> list[Category]:
        """``id`` and ``name`` of each label; before ``setup`` they are read from the files.

        Empty if there are no annotation files, or if only prediction was set up.

        Raises:
            DataError: A file cannot be read.
        """
        if self._categories is None:
            self.prepare_data()
            problems = Problems()
            categories = self._read_categories(problems)
            problems.settle(strict=False)
            self._categories = categories
        return self._categories

    @property
    def num_classes(self) -> int:
        """The number of labels; before ``setup`` they are read from the files."""
        return len(self.categories)

    def prepare_data(self) -> None:
        """Create the demo data set if ``demo`` is set and the data set does not exist."""
        if self.demo and not all(source.annotations.is_file() for source in self.sources.values()):
            from .digits import write_digits

            try:
                write_digits(self.root / "digits")
            except FileExistsError:
                if not all(source.annotations.is_file() for source in self.sources.values()):
                    raise  # otherwise another process has written it

    def setup(self, stage: str) -> None:
        """Read and check the splits that a stage needs, unless they were read before.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            DataError: The data has problems that cannot be repaired, or any problem if ``strict``.
            UsageError: The stage needs files that are not given.
        """
        splits = self._splits(stage)
        problems = Problems()
        new_data = self.read([split for split in splits if split not in self.data], problems)
        problems.settle(self.strict)
        self.data |= new_data
        if splits == ["predict"]:
            self._categories = self._categories or []
        else:
            self._categories = self._read_categories(Problems())
        if stage == "fit":
            self._train_loader, self._resumed = None, {}  # of an earlier run; a checkpoint is read after setup
            mirrored_labels(self.flip_pairs, self.categories)  # raises an error if a class is unknown
            self.class_counts = self.data["train"].class_counts(self._category_ids())

    def read(self, splits: Iterable[str], problems: Problems) -> dict[str, CocoData]:
        """Read and check splits without storing them in ``data``.

        Args:
            splits: Some of ``available``.
            problems: All problems are added to it.

        Returns:
            The splits that can be used.
        """
        read: dict[str, CocoData | None] = {}
        for split in splits:
            if split == "predict":
                read[split] = read_images(self.predict or [], problems)
            elif self.val_split and split != "test":
                if split not in read:
                    read |= self._read_and_split(problems)
            else:
                read[split] = self._files.read(split, problems)
        usable = {split: data for split, data in read.items() if data is not None}
        if "train" in usable and self.background_images:
            background = read_images(self.background_images, problems, "background images")
            if background is not None:
                others = {split: data for split, data in {**self.data, **usable}.items() if split in ("val", "test")}
                listed = [p for s in self._files.sources if s not in {"train", *others} for p in self._files.images(s)]
                usable["train"] = with_background(usable["train"], background, others.values(), listed, problems)
        check_splits({**self.data, **usable}, usable.keys(), self._files.data_sets, problems)
        if read.keys() - {"predict"}:
            categories = self._read_categories(problems)
            if "test" in usable:
                check_known(usable["test"], categories, problems)
        return usable

    @property
    def available(self) -> list[str]:
        """The splits that the arguments define: some of ``train``, ``val``, ``test`` and ``predict``."""
        given = {**self.sources, **({"val": None} if self.val_split else {})}
        if self.predict is not None:
            given["predict"] = None
        return [split for split in ("train", "val", "test", "predict") if split in given]

    def _splits(self, stage: str) -> list[str]:
        wanted = _STAGES.get(stage, (self._predict_split,))
        if wanted[0] not in self.available:
            verb = getattr(stage, "value", stage)  # Lightning passes a string or an enum
            hint = " To measure on the validation set, validate." if verb == "test" and "val" in self.available else ""
            raise UsageError(f"The data module needs {_NEEDS[stage]} to {verb}.{hint}")
        return [split for split in wanted if split in self.available]

    @property
    def _predict_split(self) -> str:
        return next((split for split in ("predict", "test") if split in self.available), "val")

    def _read_and_split(self, problems: Problems) -> dict[str, CocoData | None]:
        whole = self._files.read("train", problems)
        if whole is None:
            return {"train": None, "val": None}
        presence = whole.presence(np.array([category["id"] for category in whole.categories]))
        groups = picture_groups(whole.file_names)
        train, val = stratified_split(presence, self.val_split, self.seed, groups)
        if not len(val):
            problems.add(whole.path, "too few images to split: val_split needs two")
        return {"train": whole.select(train), "val": whole.select(val)}

    def _read_categories(self, problems: Problems) -> list[Category]:
        """Return the category of each label, from the training and validation files, or else from the test file."""
        categories = self._files.categories(problems)
        return label_categories(categories, self.labels == "category_id", self._files.paths(), problems)

    def _category_ids(self) -> Ints:
        return np.array([category["id"] for category in self.categories], np.int64)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return a loader of shuffled batches; an incomplete last batch is dropped, unless it is the only one."""
        dataset = CocoDataset(
            self._of_split("train"),
            self._category_ids(),
            self.transforms,
            self.augmentation,
            mirrored_labels(self.flip_pairs, self.categories),
            self._cache("train"),
        )
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        order = self._order(dataset.data)
        draws = EpochSampler(dataset, seed=self.seed, order=order).total_size
        drop_last = draws >= self.batch_size * world_size
        partners, groups = dataset.num_partners, dataset.data.groups
        sampler = EpochSampler(dataset, world_size, rank, self.seed, drop_last, order, partners, groups=groups)
        self._train_loader = ResumableLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            collate_fn=collate,
            **self._workers(),
        )
        if self.augmentation and self.trainer:
            sampler.run_epochs = run_epochs(self.trainer, len(self._train_loader))
        self._train_loader.trainer = self.trainer
        if self._resumed:
            self._train_loader.load_state_dict(self._resumed)
            self._resumed = {}
        return self._train_loader

    def _order(self, data: CocoData) -> Callable[[np.random.Generator], Ints] | None:
        """Return the order of an epoch's images; None for each once, shuffled."""
        ids, sampler = self._category_ids(), self.sampler
        if self.empty_share is None:
            return None if sampler is None else partial(sampler.order, data, ids)

        def of_annotated(annotated: CocoData, rng: np.random.Generator) -> Ints:
            return rng.permutation(len(annotated)) if sampler is None else sampler.order(annotated, ids, rng)

        return order_with_share(data, self.empty_share, of_annotated)

    def state_dict(self) -> dict[str, int]:
        """Return the position of the training loader within its epoch.

        Lightning also saves the state of loaders. It does not restore the state if the loader exists before the
        checkpoint is read, for example because ``configure_optimizers`` uses ``trainer.estimated_stepping_batches``.
        """
        return {} if self._train_loader is None else self._train_loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the position of the training loader, now or when the loader is created."""
        if self._train_loader is None:
            self._resumed = state_dict
        elif state_dict:
            self._train_loader.load_state_dict(state_dict)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return a loader of the validation images in order; an empty list if there are none."""
        return self._eval_loader("val", collate) if "val" in self.available else []

    def test_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the test images in order."""
        return self._eval_loader("test", collate)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return a loader of the images to predict on, in order; targets have only id, file name and original size."""
        tile, overlap = self.tile, self.tile_overlap
        collate_fn = collate_images if tile is None else partial(collate_tiled, tile=tile, overlap=overlap)
        return self._eval_loader(self._predict_split, collate_fn)

    def _eval_loader(self, split: str, collate_fn: Callable[..., Any]) -> DataLoader[Any]:
        # by keyword: for prediction Lightning rebuilds the loader from its arguments and its own batch size
        return DataLoader(
            CocoDataset(self._of_split(split), self._category_ids(), cache=self._cache(split)),
            batch_size=self.eval_batch_size,
            collate_fn=collate_fn,
            **self._workers(),
        )

    def _of_split(self, split: str) -> CocoData:
        if split not in self.data:
            raise UsageError(f"The {split} images are not set up: call setup first.")
        return self.data[split]

    def _cache(self, split: str) -> ImageCache | None:
        """Return the cache of a split; None if there is none, as for a split that is read once."""
        if self.cache is None or "train" not in self.data:
            return None
        if self._caches is None:
            splits = {name: self.data[name] for name in sorted(self.data) if name in ("train", "val")}
            processes = getattr(self.trainer, "num_devices", 1)
            self._caches = open_caches(self.cache, splits, self.cache_gib, processes)
        return self._caches.get(split)

    def _workers(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self.pin_memory and torch.cuda.is_available(),
            # Seeds the workers independently of the global generator, which a model also uses.
            "generator": torch.Generator().manual_seed(self.seed),
        }
