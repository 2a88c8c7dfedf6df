"""The checks of a format."""

import copy
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..data import CocoDataModule
from ..formats import FORMATS, Annotations, table_of
from .check_runner import Fault, Finding, NotRun
from .format_subject import FormatSubject

FORM = "build the table with lit_dense.formats.table_of, and give image and category ids that exist"
REPORT = "add a problem without a repair, with problems.add(path, what), and return None"
DTYPES = (table_of(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4))).dtype,)


def recognition(subject: FormatSubject) -> Iterator[Finding]:
    """The format recognises its sample, and no file or folder of another kind."""
    if not subject.format.recognises(subject.path):
        yield Fault(f"recognises({subject.path.name}) is True", "False", "recognise the files that read accepts")
    with tempfile.TemporaryDirectory() as name:
        (note := Path(name) / "notes.txt").write_text("nothing of interest\n")
        (binary := Path(name) / "data.bin").write_bytes(bytes(range(256)))
        (empty := Path(name) / "empty").mkdir()
        for path in (note, binary, empty):
            if subject.format.recognises(path):
                remedy = "look at suffixes, names or the beginning of the file"
                yield Fault(f"recognises is False for a file called {path.name}", "True", remedy)


def table(subject: FormatSubject) -> Iterator[Finding]:
    """A sample is read without errors, as a table of valid ids, finite boxes and existing images."""
    content, problems = subject.read()
    if content is None or problems.errors(strict=False):
        yield Fault("annotations without errors", problems.report(strict=False) or "None", "read the sample")
        return
    ids = [entry.get("id") for entry in content.images]
    if len(set(ids)) < len(ids) or not all(type(number) is int for number in ids):
        yield Fault("a different integer id for each image", f"{ids[:5]}", FORM)
    if content.annotations.dtype not in DTYPES:
        yield Fault(f"rows of {DTYPES[0]}", f"{content.annotations.dtype}", FORM)
        return
    if not np.isin(content.annotations["image_id"], ids).all():
        yield Fault("image ids of images", f"{content.annotations['image_id'][:5]}, the images have {ids[:5]}", FORM)
    numbers = [category["id"] for category in content.categories]
    if not np.isin(content.annotations["category_id"], numbers).all():
        yield Fault("category ids of categories", f"{content.annotations['category_id'][:5]}, not {numbers[:5]}", FORM)
    if numbers != sorted(set(numbers)):
        yield Fault("categories by ascending id, each once", f"{numbers[:5]}", FORM)
    if not np.isfinite(content.annotations["bbox"]).all() or not len(content.annotations):
        yield Fault("at least one box, all finite", f"{content.annotations['bbox'][:2]}", "give a sample with boxes")
    folder = content.folder or subject.images
    if folder is None or not all((folder / entry["file_name"]).is_file() for entry in content.images):
        seen = f"folder {folder}, file names {[entry['file_name'] for entry in content.images][:3]}"
        yield Fault("file names that exist in the image folder", seen, "set folder, and names relative to it")


def same_again(subject: FormatSubject) -> Iterator[Finding]:
    """Two readings give equal images, in the same order, and equal tables."""
    (first, _), (second, _) = subject.read(), subject.read()
    if first is None or second is None:
        yield NotRun("the sample cannot be read")
    elif first.images != second.images or not _equal(first, second):
        remedy = "sort the images by file name: a directory listing has no fixed order"
        yield Fault("the same annotations twice", "different ones", remedy)


def places(subject: FormatSubject) -> Iterator[Finding]:
    """Each row has a place that can be shown: a file and a line, or an annotation id."""
    content, _ = subject.read()
    if content is None:
        yield NotRun("the sample cannot be read")
    elif content.place is not None:
        shown = [content.place(row) for row in range(len(content.annotations))]
        if not all(isinstance(text, str) and text for text in shown) or len(set(shown)) < len(shown):
            yield Fault(
                "a different text for each row", f"{shown[:5]}", "return file and line, such as TextPlaces does"
            )


def weights(subject: FormatSubject) -> Iterator[Finding]:
    """A request with a weight key gives a column of weights, or an error that says that there are none."""
    content, problems = subject.read(weight_key="hardness")
    has = content is not None and content.weight_key is not None and "weight" in (content.annotations.dtype.names or ())
    if not has and not problems.errors(strict=False):
        remedy = "give table_of the weights and set weight_key, or add a problem if the format holds no weights"
        yield Fault("a column of weights, or an error", "neither", remedy)


def missing_file(subject: FormatSubject) -> Iterator[Finding]:
    """A missing file is an error with its path, not an exception."""
    path = subject.path.with_name(f"none{subject.path.suffix}")
    content, problems = subject.read(path=path)
    if content is not None or not problems.errors(strict=False):
        yield Fault("None and an error", f"{'annotations' if content else 'None'} and no error", REPORT)


def damaged_files(subject: FormatSubject) -> Iterator[Finding]:
    """Empty files, files of random bytes and truncated files raise no exception, and noise is reported."""
    damage: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda content: b"",
        "noise": lambda content: np.random.default_rng(0).bytes(max(len(content), 64)),
        "cut": lambda content: content[: len(content) // 2],
    }
    with tempfile.TemporaryDirectory() as name:
        for kind, damaged, files in subject.copies(Path(name)):
            for file in files:
                file.write_bytes(damage[kind](file.read_bytes()))
            content, problems = damaged.read()
            found = problems.found or problems.hints
            if kind == "noise" and not found:
                seen = "no problem" if content is None else f"{len(content.annotations)} boxes and no problem"
                yield Fault("a problem for annotation files of random bytes", seen, REPORT)
            elif content is None and not problems.errors(strict=False):
                yield Fault(f"an error if None is returned ({kind} files)", "None without an error", REPORT)


def round_trip(subject: FormatSubject) -> Iterator[Finding]:
    """What was written is read again: images, sizes of boxes to 0.001 pixels, and class names."""
    if subject.written is None:
        yield NotRun("the format does not write: a sample was given")
        return
    data = _set_up(subject).data["train"]
    names = {category["id"]: category["name"] for category in data.categories}
    found = [name.removeprefix("images/train/") for name in data.file_names]
    remedy = "write and read the same numbers, and every image, also without boxes"
    wanted = [entry["file_name"] for entry in subject.written.images]
    if found != wanted:
        yield Fault(f"the images {wanted}", f"{found}", remedy)
        return
    boxes = subject.written.annotations["bbox"]
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    if data.boxes.shape != corners.shape or np.abs(data.boxes - corners).max() > 1e-3:
        yield Fault(f"the boxes {corners.tolist()}", f"{data.boxes.tolist()}", remedy)
    classes = {category["id"]: category["name"] for category in subject.written.categories}
    expected = [classes[int(number)] for number in subject.written.annotations["category_id"]]
    seen = [names[int(number)] for number in data.category_ids]
    if seen != expected:
        yield Fault(f"the classes {expected}", f"{seen}", remedy)


def data_module(subject: FormatSubject) -> Iterator[Finding]:
    """A data module trains on the sample: a batch has images and boxes."""
    data = _set_up(subject)
    images, targets = next(iter(data.train_dataloader()))
    if not len(images) or not all(len(target["boxes"]) == len(target["labels"]) for target in targets):
        yield Fault("a batch of images with boxes and labels", f"{len(images)} images", "check the table")


def spec(subject: FormatSubject) -> Iterator[Finding]:
    """Arguments are plain data that build an equal format; copies and pickles read the same."""
    form, (first, _) = subject.format, subject.read()
    for how, other in (
        ("spec", FORMATS.build(form.spec)),
        ("copy.deepcopy", copy.deepcopy(form)),
        ("pickle", pickle.loads(pickle.dumps(form))),
    ):
        second, _ = FormatSubject(other, subject.folder, subject.path, subject.images, None).read()
        if first is not None and (second is None or not _equal(first, second)):
            yield Fault(f"the same annotations from {how}", "other annotations", "keep all settings in arguments")


def _set_up(subject: FormatSubject) -> CocoDataModule:
    data = CocoDataModule(
        train_annotations=subject.path.absolute(),
        train_images=None if subject.images is None else subject.images.absolute(),
        format=subject.format,
        num_workers=0,
    )
    data.setup("fit")
    return data


def _equal(first: Annotations, second: Annotations) -> bool:
    names = first.annotations.dtype.names
    if names != second.annotations.dtype.names or first.categories != second.categories:
        return False
    columns = ((first.annotations[name], second.annotations[name]) for name in names or ())
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in columns)
