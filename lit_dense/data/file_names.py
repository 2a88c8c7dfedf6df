"""Resolution of ``file_name`` in COCO files: a path inside the image folder, in any spelling."""

import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def inside(file_name: str, folder: Path) -> str | None:
    """Return the name relative to the image folder, or None if it leaves the folder. No file is opened.

    Args:
        file_name: The name in the COCO file. A relative name is returned unchanged.
        folder: The image folder.
    """
    if not file_name.startswith(("/", "\\")) and ":" not in file_name and ".." not in file_name:
        return file_name  # nearly all names take this branch, and pathlib is slow for 100,000 of them
    if not PurePath(file_name).anchor and not _climbs_out(file_name):
        return file_name
    target = os.path.normpath(os.path.join(os.path.abspath(folder), file_name))  # noqa: PTH100, PTH118
    real = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))  # noqa: PTH118, PTH119, PTH120
    for start, path in ((os.path.abspath(folder), target), (os.path.realpath(folder), real)):  # noqa: PTH100
        name = os.path.relpath(path, start)
        if name != "." and not _climbs_out(name):
            return PurePath(name).as_posix()
    return None


def _climbs_out(file_name: str) -> bool:
    depth = 0
    for part in PurePath(file_name).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return False


def relocated(file_name: str, folder: Path) -> str | None:
    """Return the correct name of a missing file in the image folder, or None unless exactly one name fits.

    Backslashes are replaced by slashes. A leading path that repeats the image folder is removed.

    Args:
        file_name: A relative name of a file that does not exist.
        folder: The image folder.
    """
    slashed = file_name.replace("\\", "/")
    parts = PurePath(slashed).parts
    ends = Path(os.path.abspath(folder)).parts  # noqa: PTH100 (resolve() would replace links)
    names = {slashed} if slashed != file_name else set()
    names |= {"/".join(parts[k:]) for k in range(1, len(parts)) if parts[:k] == ends[-k:]}
    existing = [name for name in names if inside(name, folder) == name and (folder / name).is_file()]
    return existing[0] if len(existing) == 1 else None


def similar(file_name: str, folder: Path) -> str:
    """Return the end of a message that says why a file is missing, or names a similar one; empty if there is neither.

    Args:
        file_name: The name in the COCO file. Its own folder is searched first, then the image folder.
        folder: The image folder.
    """
    if inside(file_name, folder) is not None and (target := _broken_link(folder / file_name)):
        return f"; it is a link to {target}, which does not exist"
    parent, _, last = file_name.replace("\\", "/").rpartition("/")
    for place in dict.fromkeys((folder / parent, folder)):
        if place != folder and inside(parent, folder) is None:
            continue
        try:
            names = sorted(file.name for file in place.iterdir())
        except (OSError, ValueError):
            continue
        for key in (_plain, lambda name: _plain(PurePath(name).stem)):
            alike = (name for name in names if key(name) == key(last))
            if found := next((name for name in alike if (place / name).exists()), None):
                return f"; there is {place / found}"
    return ""


def _broken_link(path: Path) -> str:
    """Return the target of a symbolic link to a missing file; empty for any other path."""
    try:
        return os.readlink(path) if path.is_symlink() and not path.exists() else ""  # noqa: PTH115 (as written)
    except (OSError, ValueError):
        return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def ignores_case(folder: Path) -> bool:
    """Whether the file system of an existing folder treats names that differ only in case as one, as on Windows.

    Args:
        folder: A folder in which files can be written.
    """
    with tempfile.NamedTemporaryFile(prefix="case_", dir=folder) as file:
        path = Path(file.name)
        return path.with_name(path.name.swapcase()).exists()


def clash(names: Iterable[str], key: Callable[[str], str]) -> tuple[str, str] | None:
    """Return the first two different names with an equal key; None if there are none.

    Args:
        names: The names.
        key: What must differ between different names.
    """
    first: dict[str, str] = {}
    pairs = ((first.setdefault(key(name), name), name) for name in names)
    return next((pair for pair in pairs if pair[0] != pair[1]), None)


def cure_of_missing(names: Sequence[str], folder: Path, key: str = "file_name") -> str:
    """Return the advice for missing files.

    Args:
        names: Their names in the annotations.
        folder: The image folder.
        key: The format's word for the name of an image.
    """
    relative = f"{key} must be relative to the image folder, {folder}"
    if example := next((name for name in names if _ADDRESS.match(name)), None):
        return f"{relative}: download the images, and write {PurePath(example).name} instead of the URL"
    if example := next((name for name in names if _WINDOWS.match(name)), None):
        name = example.replace("\\", "/").rsplit("/", 1)[-1]
        return f"{relative}: write {name}, or the folders below it and {name}, instead of {example}"
    return f"{relative}; give another image folder or correct the names"


def cure_of_leaving(names: Sequence[str], folder: Path, key: str = "file_name") -> str:
    """Return the advice for names that leave the image folder.

    Args:
        names: The names in the annotations.
        folder: The image folder.
        key: The format's word for the name of an image.
    """
    cure = f"{key} must be relative to the image folder, {folder}, or an absolute path in it"
    absolute = [os.path.dirname(os.path.normpath(name)) for name in names if PurePath(name).is_absolute()]  # noqa: PTH120
    if absolute:
        cure += f". If the files exist under these names, give {os.path.commonpath(absolute)} as the image folder"
    return cure
