"""The annotation files of one data set: the sources of its splits, read once."""

from collections.abc import Collection, Sequence
from pathlib import Path

from ..core.component import name_or_path
from .coco_data import Category, CocoData
from .formats.base import Format
from .problems import Problems
from .sources import Given, Source, SourceReader, complete_sources, demo_sources, find_sources, image_folder


class DataFiles:
    """The annotation files of one data set.

    Args:
        root: Folder that paths are relative to.
        given: The annotation file and the image folder of each split.
        given_format: The format of all files. Default: each is recognised.
        weight_key: The key of annotations with a weight. Default: no weights are read.
        ignore_key: The key of annotations that marks ignore regions. Default: none is read.
        masks: The splits whose masks are kept.
        demo: Whether the files are those of the demo data set in ``root/digits``.

    Raises:
        UsageError: A COCO file is given without an image folder, or an image folder without annotations; other files
            than those of the demo are given.
    """

    def __init__(
        self,
        root: Path,
        given: Given,
        given_format: Format | None = None,
        weight_key: str | None = None,
        ignore_key: str | None = None,
        masks: Collection[str] = (),
        demo: bool = False,
    ) -> None:
        self.root, self.given = root, given
        self.stated = demo_sources(root, given) if demo else find_sources(root, given, given_format)
        self._keys, self._masks = (weight_key, ignore_key), masks
        self._sources: dict[str, Source] | None = None
        self._reader: SourceReader | None = None

    @property
    def sources(self) -> dict[str, Source]:
        """The files of each split, with their formats; recognised when first used after all files exist.

        Raises:
            UsageError: A format is not recognised.
        """
        if self._sources is not None:
            return self._sources
        sources = complete_sources(self.stated, self.root, self.given)
        if all(source.annotations.exists() for source in sources.values()):
            self._sources = sources
        return sources

    @property
    def data_sets(self) -> Sequence[dict[str, Source]]:
        """The sources of each data set: this one."""
        return [self.sources]

    @property
    def splits(self) -> list[str]:
        """The splits that have files."""
        return list(self.sources)

    @property
    def formats(self) -> dict[str, str]:
        """The name of the format of each split."""
        return {split: name_or_path(type(source.format)) for split, source in self.sources.items()}

    @property
    def reader(self) -> SourceReader:
        """The reader of the files."""
        if self._reader is None:
            weight_key, ignore_key = self._keys
            self._reader = SourceReader(self.sources, weight_key, self._masks, ignore_key)
        return self._reader

    def read(self, split: str, problems: Problems) -> CocoData | None:
        """Read and check the images and boxes of a split; None if no images can be used.

        Args:
            split: One of ``splits``.
            problems: All problems are added to it.
        """
        return self.reader.split(self.sources[split], problems)

    def images(self, split: str) -> list[Path]:
        """Return the paths of the images in the annotations of a split, without checking them.

        Args:
            split: One of ``splits``.
        """
        source = self.sources[split]
        content = self.reader.content(source, Problems())
        folder = None if content is None else image_folder(content, source)
        return [] if folder is None or content is None else [folder / str(one["file_name"]) for one in content.images]

    @property
    def label_splits(self) -> list[str]:
        """The splits whose categories have a label: training and validation, or else test."""
        return [split for split in self.splits if split != "test"] or self.splits

    def paths(self) -> str:
        """Return the annotation files of ``label_splits``, for reports."""
        return ", ".join(dict.fromkeys(str(self.sources[split].annotations) for split in self.label_splits))

    def categories(self, problems: Problems, splits: Sequence[str] | None = None) -> list[Category]:
        """Return the merged categories of several splits.

        Args:
            problems: Errors of the files are added to it.
            splits: The splits. Default: ``label_splits``.
        """
        chosen = self.label_splits if splits is None else splits
        return self.reader.categories([self.sources[split] for split in chosen], problems)
