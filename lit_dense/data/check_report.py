"""The report of ``lit-dense check``: counts, sizes and problems of a data set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.array_types import Floats, Ints
from ..core.errors import UsageError
from ..core.object_sizes import AREA_LIMITS, OBJECT_SIZES
from .checks.duplicate_images import check_contents
from .checks.thin_images import vanishes
from .coco_data import CocoData
from .flip_pairs import mirrored_labels, note_sides
from .problems import KEPT, Problems
from .transforms import mirrors

if TYPE_CHECKING:
    from .module import CocoDataModule

MAX_ROWS = 40  # most classes in a table; longer tables omit the middle
MAX_SOURCES, MAX_NAMES = 6, 12  # most sources with a column in the table of classes; most unknown classes in a list


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Args:
        text: The report, to be printed.
        ok: Whether the data can be used: all problems are repaired.
    """

    text: str
    ok: bool


def check(datamodule: "CocoDataModule", max_size: int = 1333) -> CheckReport:
    """Read all data of a data module, and report its content and its problems.

    Args:
        datamodule: The data module. With ``strict``, repairable problems are errors.
        max_size: The model's ``max_size``, in pixels. Very thin images vanish when they are scaled to it.

    Raises:
        UsageError: The data module has no data.
    """
    if not datamodule.available:
        raise UsageError("There is nothing to check: give train_annotations and train_images, or predict.")
    datamodule.prepare_data()
    problems = Problems()
    splits = datamodule.read(datamodule.available, problems)
    for data in splits.values():
        _note_thin(data, max_size, problems)
    if "train" in splits:
        _note_flips(datamodule, splits["train"], problems)
    check_contents({split: data for split, data in splits.items() if split != "predict"}, problems)
    formats = datamodule.formats
    if datamodule.val_split:
        formats["val"] = formats["train"]
    parts = [summarize(split, data, formats.get(split, "coco")) for split, data in splits.items()]
    if problems.found:
        parts.append(f"Problems:\n{problems.report(datamodule.strict)}")
    if problems.hints:
        parts.append(f"Worth a look:\n{problems.report_hints()}")
    return CheckReport(
        "\n\n".join([*parts, _verdict(problems, datamodule.strict)]), not problems.errors(datamodule.strict)
    )


def _note_flips(datamodule: "CocoDataModule", data: CocoData, problems: Problems) -> None:
    """Report unknown classes of ``flip_pairs``, and classes that flips should perhaps exchange."""
    try:
        mirrored_labels(datamodule.flip_pairs, data.categories)
    except UsageError as error:
        problems.add(data.path, str(error))
    if mirrors(datamodule.transforms):
        note_sides(data.categories, datamodule.flip_pairs, str(data.path), problems)


def _verdict(problems: Problems, strict: bool) -> str:
    if errors := problems.errors(strict):
        return f"The data cannot be used: kinds of errors: {len(errors)}."
    kept = sum(problem.repair == KEPT for problem in problems.found)
    numbers = {
        "kinds of problems that are repaired": len(problems.found) - kept,
        f"kinds of problems that are {KEPT}": kept,
        "things worth a look": len(problems.hints),
    }
    counts = ", ".join(f"{kind}: {number}" for kind, number in numbers.items() if number)
    return f"The data can be used; {counts or 'no problem was found'}."


def _note_thin(data: CocoData, max_size: int, problems: Problems) -> None:
    height, width = data.sizes.T
    details = [
        f"image {data.image_ids[index]} ({data.file_names[index]}): {width[index]} x {height[index]}"
        for index in np.flatnonzero(vanishes(height, width, max_size))
    ]
    if details:
        where = data.path if data.categories else "images to predict on"
        what = f"images so thin that scaling them to max_size={max_size} leaves less than a pixel"
        problems.add(where, what, details, cure="cut them into tiles, remove them, or raise model.max_size")


def summarize(split: str, data: CocoData, file_format: str = "coco") -> str:
    """Format the sizes and counts of one split.

    Args:
        split: Name of the split.
        data: Its images and boxes, after repairs.
        file_format: Name of the format that its annotations were read in, which is shown if it is not COCO's.
    """
    counts = np.diff(data.offsets)
    read_as = "" if file_format == "coco" else f", {file_format}"
    where = f"  ({data.path}{read_as})" if data.categories else ""
    lines = [f"{split}: {len(data):,} images, {len(data.boxes):,} boxes{where}"]
    height, width = data.sizes.T
    lines += [f"  image width      {_spread(width)}", f"  image height     {_spread(height)}"]
    if not data.categories:
        return "\n".join(lines)
    lines.append(f"  boxes per image  {_spread(counts)}")
    lines.append(f"  without boxes    {_share((counts == 0).sum(), len(data))}")
    lines.append(f"  crowd boxes      {_share(data.iscrowd.sum(), len(data.boxes))}")
    sizes = np.digitize(data.area, AREA_LIMITS)
    named = [f"{name} {_share((sizes == size).sum(), len(sizes))}" for size, name in enumerate(OBJECT_SIZES)]
    lines.append(f"  object sizes     {', '.join(named)}  (limits 32² and 96² pixels)")
    if data.weight is not None and len(data.weight):
        lines.append(f"  box weights      {_spread(data.weight)}")
    return "\n".join([*lines, *_source_table(data), *_class_table(data)])


def _source_table(data: CocoData) -> list[str]:
    """Format the sources of joined data: their images, boxes, and the classes that they are not annotated for."""
    if data.origins is None:
        return []
    origins, names = data.origins, {category["id"]: category["name"] for category in data.categories}
    number = len(origins.names)
    images = np.bincount(origins.source_idxs, minlength=number)
    boxes = np.bincount(origins.source_idxs[data.image_index], minlength=number)
    width = max(len("source"), *map(len, origins.names))
    lines = [f"  {'source':{width}}  {'images':>9}  {'boxes':>9}  unknown classes (not annotated, and not background)"]
    for source, name in enumerate(origins.names):
        unknown = [names[c] for c in origins.unknown[source].tolist() if c in names]
        more = f" and {len(unknown) - MAX_NAMES} more" if len(unknown) > MAX_NAMES else ""
        listed = ", ".join(unknown[:MAX_NAMES]) or "none"
        lines.append(f"  {name:{width}}  {images[source]:9,}  {boxes[source]:9,}  {listed}{more}")
    return lines


def _class_table(data: CocoData) -> list[str]:
    """Format the classes by descending count; crowd boxes are not counted."""
    ids = np.array([category["id"] for category in data.categories])
    counts = data.class_counts(ids)
    instances, images = counts.instances.numpy(), counts.images.numpy()
    width = max(len("class"), *(len(category["name"]) for category in data.categories))
    shares = instances / max(instances.sum(), 1)
    of_sources, source_names = _boxes_of_sources(data, ids)
    rows = [
        f"  {data.categories[c]['name']:{width}}  {instances[c]:9,}  {shares[c]:6.1%}  {images[c]:9,}{of_sources[c]}"
        for c in np.argsort(-instances, kind="stable")
    ]
    if len(rows) > MAX_ROWS:
        half = MAX_ROWS // 2
        rows[half:-half] = [f"  ... {len(rows) - 2 * half} more ..."]
    return [f"  {'class':{width}}  {'boxes':>9}  {'share':>6}  {'images':>9}{source_names}", *rows]


def _boxes_of_sources(data: CocoData, ids: Ints) -> tuple[list[str], str]:
    """Format columns with the boxes of each source: the cells of each class, and the names of the columns."""
    if data.origins is None or len(data.origins.names) > MAX_SOURCES:
        return [""] * len(ids), ""
    names, unknown = data.origins.names, data.origins.unknown
    counts = np.zeros((len(ids), len(names)), np.int64)
    objects = ~data.iscrowd
    sources = data.origins.source_idxs[data.image_index[objects]]
    np.add.at(counts, (data.labels(ids)[objects], sources), 1)
    columns = range(len(names))
    cells = [
        [f"{counts[row, s]:,}" if c not in unknown[s] else "unknown" for s in columns] for row, c in enumerate(ids)
    ]
    widths = [max(9, len(name)) for name in names]
    joined = ["".join(f"  {cell:>{w}}" for cell, w in zip(line, widths, strict=True)) for line in [*cells, names]]
    return joined[:-1], joined[-1]


def _spread(values: Ints | Floats) -> str:
    return f"{values.min():g} / {np.median(values):g} / {values.max():g}  (smallest / median / largest)"


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / max(whole, 1):.1%})"
