"""Reading of YOLO's ``data.yaml``: class names, and the images of each split."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...core.yaml_files import RepeatedKeyError, load_yaml
from ..problems import Problems
from .base import NOT_UTF8, Request, missing_file, not_utf8
from .folders import CLASSES, file_of_names, is_name, list_files, read_lines

KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


@dataclass(frozen=True)
class YOLOConfig:
    """The classes and images of one split.

    Args:
        path: The file that names the classes.
        names: The name of each class index.
        folder: The folder that the images are relative to.
        images: The images, sorted.
        labels: The folder of all label files; None for that which the rule gives for each image.
        whole_folders: Whether the images are whole folders, so that each label file should have an image.
        keypoints: Whether lines have keypoints behind the box.
    """

    path: Path
    names: dict[int, str]
    folder: Path
    images: list[str]
    labels: str | None = None
    whole_folders: bool = True
    keypoints: bool = False


def splits_of(path: Path) -> tuple[str, ...]:
    """Return the splits that ``data.yaml`` gives; a validation set that is the training set is left out."""
    try:
        content = load_yaml(_file(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):  # reported when the file is read
        return ()
    if not isinstance(content, dict):
        return ()
    given = {split: _entry(content, split) for split in KEYS}
    return tuple(split for split, entry in given.items() if entry and (split == "train" or entry != given["train"]))


def _file(path: Path) -> Path:
    return path / "data.yaml" if path.is_dir() else path


def _entry(content: dict[str, Any], split: str) -> Any:
    return next((content[key] for key in KEYS[split] if content.get(key)), None)


def read_config(request: Request, problems: Problems) -> YOLOConfig | None:
    """Read ``data.yaml``, or ``classes.txt`` of a folder of label files, and list the images of a split.

    Args:
        request: Paths and split. A given image folder replaces the entry of the split.
        problems: Faults are added to it.

    Returns:
        The classes and images; None if they cannot be read.
    """
    if request.path.is_dir() and not (request.path / "data.yaml").is_file():
        return _of_label_folder(request, problems)
    path = _file(request.path)
    content = _load(path, problems)
    if content is None:
        return None
    names = _names(content, path, problems)
    keypoints = "kpt_shape" in content
    if request.images is not None:
        if not request.images.is_dir():
            problems.add(request.images, "no such image folder")
            return None
        images = list_files(request.images)
        return YOLOConfig(path, names, request.images, images, keypoints=keypoints) if names else None
    entry = _entry(content, request.split)
    if entry is None:
        problems.add(path, f"no entry {request.split!r}: the keys are {', '.join(map(str, content)) or 'none'}")
        return None
    places = _places(entry if isinstance(entry, list) else [entry], content.get("path"), path, request.split, problems)
    if not places or not names:
        return None
    if len(places) == 1 and places[0].is_dir():
        return YOLOConfig(path, names, places[0], list_files(places[0]), keypoints=keypoints)
    files = _listed(places, path, problems)
    folder = _common_folder(files) if files else path.parent
    relative = sorted(os.path.relpath(file, folder).replace(os.sep, "/") for file in files)
    whole = all(place.is_dir() for place in places)
    return YOLOConfig(path, names, Path(folder), relative, whole_folders=whole, keypoints=keypoints)


def _of_label_folder(request: Request, problems: Problems) -> YOLOConfig | None:
    path = file_of_names(request.path)
    # an empty line is an index without a name: leaving it out would change the classes of all lines below
    names = {} if path is None else {number: name for number, name in enumerate(read_lines(path, problems)) if name}
    if path is None or not names:
        what = f"no class names: a folder of label files needs {CLASSES}, and other data needs data.yaml"
        problems.add(request.path, what)
        return None
    folder = request.images
    if folder is None:
        before, mark, after = f"{os.path.abspath(request.path)}/".rpartition("/labels/")  # noqa: PTH100
        folder = Path(f"{before}/images/{after}") if mark else request.path
    if not folder.is_dir():
        problems.add(folder, "no such image folder")
        return None
    return YOLOConfig(path, names, folder, list_files(folder), labels=str(request.path))


def _load(path: Path, problems: Problems) -> dict[str, Any] | None:
    try:
        content = load_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        problems.add(path, missing_file(path))
    except UnicodeDecodeError as error:
        problems.add(path, not_utf8(error), cure=NOT_UTF8)
    except RepeatedKeyError as error:
        problems.add(path, str(error), cure="keep one of them, and number the names without repetition")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problems.add(path, f"not YAML: {error.problem}{where}")
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.add(path, f"cannot be read: {' '.join(str(error).split())}")
    else:
        if isinstance(content, dict):
            return content
        problems.add(path, "not a data.yaml of YOLO: it has no keys such as train, val and names")
    return None


def _names(content: dict[str, Any], path: Path, problems: Problems) -> dict[int, str]:
    """Return the name of each class index; empty if there are none, which is reported."""
    given, count = content.get("names"), content.get("nc")
    odd: list[str] = []
    if isinstance(given, list | dict):
        entries = given.items() if isinstance(given, dict) else enumerate(given)
        odd = [f"{index}: {name!r}" for index, name in entries if not is_name(name)]
    indices = [int(key) for key in given if str(key).isdigit()] if isinstance(given, dict) else []
    if twice := sorted({f"{index}" for index in indices if indices.count(index) > 1}):  # such as 1 and "1"
        problems.add(path, "class indices given more than once in names", twice, cure="number the names from 0")
        return {}
    if isinstance(given, list):
        names = {number: str(name) for number, name in enumerate(given)}
    elif isinstance(given, dict) and all(str(key).isdigit() for key in given):
        names = {int(key): str(name) for key, name in sorted(given.items(), key=lambda item: int(item[0]))}
    else:
        names = {}
    if not names:
        keys = f"the keys are {', '.join(map(str, content)) or 'none'}" if given is None else f"it is {given!r}"
        problems.add(path, f"no class names: names must be a list, or a dict of index and name; {keys}")
    elif odd:
        cure = "put quotes around names such as 'no', 'off' and 'null', which YAML reads as false and as no value"
        problems.add(path, "class names that are not text", odd, cure=cure)
        return {}
    elif count is not None and str(count) != str(len(names)):
        problems.add(path, f"nc is {count}, but there are {len(names)} names", repair="the names are used")
    return names


def _places(entries: list[Any], root: Any, path: Path, split: str, problems: Problems) -> list[Path]:
    """Return the existing folders and lists of a split; missing ones are reported.

    ``path`` is relative to the file. Roboflow writes entries such as ``../train/images`` for ``train/images``.
    """
    bases = [path.parent / str(root), Path(str(root))] if root else []
    bases.append(path.parent)
    places, missing, others = [], [], []
    for entry in map(str, entries):
        tried = [base / entry for base in bases]
        if entry.startswith("../"):
            tried += [base / entry[3:] for base in bases]
        found = next((place for place in tried if place.exists()), None)
        if found is None:
            missing.append(f"{split}: {entry}; looked for {', '.join(dict.fromkeys(map(str, tried)))}")
        elif found.is_file() and b"\0" in found.read_bytes()[:1024]:
            others.append(f"{split}: {found}")
        else:
            places.append(found)
    if others:
        cure = "an entry is a folder of images, or a text file with the path of an image on each line"
        problems.add(path, "entries that are neither a folder nor a list of images", others, cure=cure)
    if missing:
        cure = "entries are relative to path, and path is relative to the file"
        problems.add(path, "missing image folders or lists of images", missing, cure=cure)
    return places


def _listed(places: list[Path], path: Path, problems: Problems) -> list[str]:
    """Return the absolute paths of the images in folders and lists, without repetitions."""
    files: dict[str, None] = {}
    repeated = []
    for place in places:
        if place.is_dir():
            found = [f"{os.path.abspath(place)}/{name}" for name in list_files(place)]  # noqa: PTH100
        else:
            lines = place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            found = _of_list([line.strip() for line in lines if line.strip()], place, path)
        for file in found:
            if file in files:
                repeated.append(f"{place}: {file}")
            files[file] = None
    if repeated:
        problems.add(path, "images listed more than once", repeated, repair="used once")
    return list(files)


def _of_list(lines: list[str], place: Path, path: Path) -> list[str]:
    """Return the absolute paths of a list's images: relative to the list, to ``data.yaml`` or to the current folder."""
    bases = list(dict.fromkeys(os.path.abspath(base) for base in (place.parent, path.parent, Path())))  # noqa: PTH100
    first = lines[0].replace("\\", "/") if lines else ""
    base = next((base for base in bases if os.path.exists(os.path.join(base, first))), bases[0])  # noqa: PTH110, PTH118
    return [os.path.normpath(os.path.join(base, line.replace("\\", "/"))) for line in lines]  # noqa: PTH118


def _common_folder(files: list[str]) -> str:
    return os.path.commonpath([file.rpartition("/")[0] or "/" for file in files])
