"""Several data sets as one: classes are united by name, and each source says which classes it is annotated for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.array_types import Ints
from ..core.errors import UsageError, nearest
from .coco_data import Category, CocoData
from .concatenation import concatenated
from .data_files import DataFiles
from .formats import FORMATS
from .formats.base import Format
from .problems import Problems
from .sources import Given, Source

FILES = tuple(f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "annotations"))
KEYS = ("name", "root", *FILES, "format", "rename", "not_annotated")


@dataclass(frozen=True)
class JoinedSource:
    """One data set of a join.

    Args:
        name: Its name in reports.
        files: Its files.
        rename: New names of its classes, by their names in the files.
        not_annotated: Classes that its files list although its images are not annotated for them, by their new names.
    """

    name: str
    files: DataFiles
    rename: Mapping[str, str] = field(default_factory=dict)
    not_annotated: Sequence[str] = ()

    def renamed(self, categories: Sequence[Category]) -> dict[int, str]:
        """Return the new name of each category, by id."""
        return {category["id"]: self.rename.get(category["name"], category["name"]) for category in categories}

    def classes(self, problems: Problems, split: str = "train") -> list[str]:
        """Return the names of the classes that the images of a split are annotated for, or listed with.

        Args:
            problems: Errors of the files are added to it.
            split: ``test`` for those of the test file too.
        """
        names = self.renamed(self.files.categories(problems)).values()
        more = self.renamed(self.files.categories(problems, ["test"])).values() if split == "test" else ()
        return list(dict.fromkeys([*names, *more]))


def joined_sources(
    root: Path,
    join: Sequence[Mapping[str, Any]],
    given_format: Format | None = None,
    weight_key: str | None = None,
    ignore_key: str | None = None,
    masks: Collection[str] = (),
) -> list[JoinedSource]:
    """Check the argument ``join`` of the data module, and return its sources.

    Args:
        root: Folder that the roots of the sources are relative to.
        join: For each source a mapping with some of ``KEYS``.
        given_format: The format of sources without one. Default: each file is recognised.
        weight_key: The key of annotations with a weight. Default: no weights are read.
        ignore_key: The key of annotations that marks ignore regions. Default: none is read.
        masks: The splits whose masks are kept.

    Raises:
        UsageError: A source is no mapping or has an unknown key or a value of another type; or its files do not fit
            together.
    """
    if isinstance(join, str | Mapping) or not isinstance(join, Sequence) or not join:
        raise UsageError(
            f"join is a list of sources, such as [{{root: a, train_annotations: data.yaml}}], not {join!r}."
        )
    sources: list[JoinedSource] = []
    for number, entry in enumerate(join, start=1):
        where = f"join, source {number}"
        if not isinstance(entry, Mapping):
            raise UsageError(f"{where} is {entry!r}; expected are keys and values: {', '.join(KEYS)}.")
        for key in entry:
            if key not in KEYS:
                raise UsageError(f"{where} has the key {key!r}.{nearest(str(key), KEYS)} Keys are {', '.join(KEYS)}.")
        for key in ("root", *FILES):
            if not isinstance(entry.get(key), str | Path | None):
                raise UsageError(f"{where}: {key} is a path, not {entry[key]!r}.")
        given: Given = {
            split: (entry.get(f"{split}_annotations"), entry.get(f"{split}_images"))
            for split in ("train", "val", "test")
        }
        if not any(annotations for annotations, _ in given.values()):
            raise UsageError(f"{where} has no files: give it train_annotations, val_annotations or test_annotations.")
        chosen = given_format if entry.get("format") is None else FORMATS.build(entry["format"])
        try:
            files = DataFiles(root / (entry.get("root") or ""), given, chosen, weight_key, ignore_key, masks)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        name = _unique(str(entry.get("name") or entry.get("root") or next(a for a, _ in given.values() if a)), sources)
        sources.append(JoinedSource(name, files, _rename(entry, where), _not_annotated(entry, where)))
    return sources


def _unique(name: str, sources: Sequence[JoinedSource]) -> str:
    known = {source.name for source in sources}
    names = (name, *(f"{name} ({number})" for number in range(2, len(known) + 2)))
    return next(one for one in names if one not in known)


def _rename(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    rename = entry.get("rename") or {}
    if not isinstance(rename, Mapping) or not all(str(new).strip() and new is not None for new in rename.values()):
        raise UsageError(f"{where}: rename gives new names to classes, such as {{auto: car}}, not {rename!r}.")
    return {str(old): str(new) for old, new in rename.items()}  # YAML reads 1 and yes as other types


def _not_annotated(entry: Mapping[str, Any], where: str) -> list[str]:
    names = entry.get("not_annotated") or []
    if isinstance(names, str | Mapping) or not isinstance(names, Sequence):
        raise UsageError(f"{where}: not_annotated is a list of names of classes, not {names!r}.")
    return [str(name) for name in names]


class JoinedFiles:
    """The files of several data sets, read as one; with the methods of :class:`DataFiles`.

    Classes are united by name, and numbered from 1 in the order in which they first appear: source by source, and by
    ascending id within a source. A source is annotated for the classes that its training and validation files list,
    without those of ``not_annotated``; its test images also for those that its test file lists.

    Args:
        root: Folder that file names become relative to.
        sources: The sources.
    """

    def __init__(self, root: Path, sources: Sequence[JoinedSource]) -> None:
        self.root, self.joined = root, sources

    @property
    def stated(self) -> dict[str, Source]:
        """The splits whose files are given; a source of each."""
        return {split: source for one in reversed(self.joined) for split, source in one.files.stated.items()}

    @property
    def sources(self) -> dict[str, Source]:
        """The splits that have files; the files of the first source that has the split."""
        found = {split: source for one in reversed(self.joined) for split, source in one.files.sources.items()}
        return {split: found[split] for split in ("train", "val", "test") if split in found}

    @property
    def data_sets(self) -> Sequence[dict[str, Source]]:
        """The sources of each data set."""
        return [one.files.sources for one in self.joined]

    @property
    def formats(self) -> dict[str, str]:
        """The names of the formats of each split."""
        return {
            split: " + ".join(dict.fromkeys(one.files.formats[split] for one in self._with(split)))
            for split in self.sources
        }

    def _with(self, split: str) -> list[JoinedSource]:
        return [one for one in self.joined if split in one.files.sources]

    @property
    def _labelled(self) -> list[JoinedSource]:
        """The sources whose classes have a label: those with training or validation images, or else all."""
        return [one for one in self.joined if one.files.label_splits != ["test"]] or list(self.joined)

    def paths(self) -> str:
        """Return the annotation files whose classes have a label, for reports."""
        return ", ".join(one.files.paths() for one in self._labelled)

    def categories(self, problems: Problems) -> list[Category]:
        """Return the classes of the training and validation files, or else of the test files.

        Args:
            problems: Errors of the files are added to it, and wrong names in ``rename`` and ``not_annotated``.
        """
        for one in self._labelled:
            _note_unknown_names(one, problems)
        return [Category(id=number, name=name) for name, number in self._ids(problems).items()]

    def _ids(self, problems: Problems) -> dict[str, int]:
        names = dict.fromkeys(name for one in self._labelled for name in one.classes(problems))
        return {name: number for number, name in enumerate(names, start=1)}

    def images(self, split: str) -> list[Path]:
        """Return the paths of the images in the annotations of a split, of all sources.

        Args:
            split: One of ``splits``.
        """
        return [path for one in self._with(split) for path in one.files.images(split)]

    def read(self, split: str, problems: Problems) -> CocoData | None:
        """Read, check and join the images and boxes of a split; None if no images can be used.

        Args:
            split: One of ``splits``.
            problems: All problems are added to it.
        """
        ids = self._ids(Problems())
        with_label = np.array(list(ids.values()), np.int64)
        read: list[CocoData] = []
        names: list[str] = []
        unknown: list[Ints] = []
        for one in self._with(split):
            data = one.files.read(split, problems)
            if data is None:
                continue
            listed = one.classes(Problems(), split)
            for name in listed:
                ids.setdefault(name, len(ids) + 1)  # of a test file: reported as a class without a label
            _note_boxes(data, one, problems)
            read.append(_with_ids(data, one, ids))
            names.append(one.name)
            known = [ids[name] for name in listed if name not in one.not_annotated]
            unknown.append(np.setdiff1d(with_label, known))
        if not read:
            return None
        joined = replace(
            concatenated(read, self.root, names, unknown),
            categories=[Category(id=number, name=name) for name, number in ids.items()],
        )
        if split == "train":
            note_unused(joined, problems)
        return joined


def _with_ids(data: CocoData, source: JoinedSource, ids: Mapping[str, int]) -> CocoData:
    """Replace the category ids of a source by those of the join."""
    names = source.renamed(data.categories)
    new = {old: ids[name] for old, name in names.items()}
    categories = {ids[name]: Category(id=ids[name], name=name) for name in names.values()}
    return data.with_category_ids(new, [categories[number] for number in sorted(categories)])


def _note_unknown_names(source: JoinedSource, problems: Problems) -> None:
    """Report names in ``rename`` and ``not_annotated`` that the files of a source do not have."""
    for key, wanted in (("rename", list(source.rename)), ("not_annotated", source.not_annotated)):
        known: list[str] = []
        for splits in (None, source.files.splits):  # all files are only read if the usual ones lack a name
            categories = source.files.categories(Problems(), splits)
            renamed = source.renamed(categories)
            known = [renamed[c["id"]] if key == "not_annotated" else c["name"] for c in categories]
            if not set(wanted) - set(known):
                break
        wrong = [f"{name!r}.{nearest(name, known)}" for name in wanted if name not in known]
        if wrong and known:  # without any class the files cannot be read, which is reported
            cure = f"its classes are {', '.join(dict.fromkeys(known))}"
            problems.add(f"data.join, {source.name}", f"{key} has classes that its files do not have", wrong, cure=cure)


def _note_boxes(data: CocoData, source: JoinedSource, problems: Problems) -> None:
    """Report boxes of classes that a source is said not to be annotated for."""
    wrong = []
    for number, name in source.renamed(data.categories).items():
        count = int((data.category_ids == number).sum())
        if name in source.not_annotated and count:
            wrong.append(f"{name}: {count:,} boxes")
    if wrong:
        problems.add(
            data.path,
            f"classes in not_annotated of {source.name} that have boxes",
            wrong,
            cure="leave them out of not_annotated, or remove the boxes",
        )


def note_unused(data: CocoData, problems: Problems) -> None:
    """Report classes that a source lists without a box, although another source has boxes of them.

    Args:
        data: The joined training set.
        problems: A hint for each source is added to it.
    """
    origins = data.origins
    if origins is None:
        return
    used = np.zeros((len(origins.names), max((c["id"] for c in data.categories), default=0) + 1), bool)
    used[origins.source_idxs[data.image_index], data.category_ids] = True
    for source, (name, unknown) in enumerate(zip(origins.names, origins.unknown, strict=True)):
        unused = [
            category["name"]
            for category in data.categories
            if not used[source, category["id"]] and used[:, category["id"]].any() and category["id"] not in unknown
        ]
        if unused:
            problems.add(
                f"data.join, {name}",
                "classes that it lists without a box, and that another source has: its images count as showing none",
                unused,
                cure=f"if its images are not annotated for them, set not_annotated: [{', '.join(unused)}]",
                hint=True,
            )


def check_join_alone(demo: bool, given: Given, labels: str) -> None:
    """Raise an error if other arguments of the data module do not fit ``join``.

    Args:
        demo: The argument ``demo``.
        given: The files that are given outside ``join``.
        labels: The argument ``labels``.

    Raises:
        UsageError: There are files outside the sources, or labels that are category ids.
    """
    outside = ["demo"] if demo else []
    for split, (annotations, images) in given.items():
        outside += [f"{split}_annotations"] * (annotations is not None) + [f"{split}_images"] * (images is not None)
    if outside:
        raise UsageError(f"join and {outside[0]} were given: with join, all files are in its sources.")
    if labels != "contiguous":
        raise UsageError(
            f"join and labels={labels} were given: joined classes are united by name and have new ids. Leave labels "
            "out; the classes of pretrained models are matched by name."
        )
