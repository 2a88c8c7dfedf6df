"""What ``file_name`` of an image may say: a path inside the image folder, however it is written."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def inside(file_name: str, folder: Path) -> str | None:
    """The name relative to the image folder; None where it leaves the folder. No file is opened.

    Args:
        file_name: As the COCO file has it. A relative name is returned as it is.
        folder: The image folder.
    """
    if not file_name.startswith(("/", "\\")) and ":" not in file_name and ".." not in file_name:
        return file_name  # as nearly all of a hundred thousand are: paths are slow
    if not PurePath(file_name).anchor:
        return None if _climbs_out(file_name) else file_name
    target = os.path.normpath(file_name)
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
    """The name under which a missing file is in the image folder after all, if there is exactly one.

    Backslashes are tried as slashes, and names that begin with the image folder itself without it.

    Args:
        file_name: A relative name that no file has.
        folder: The image folder.
    """
    slashed = file_name.replace("\\", "/")
    parts = PurePath(slashed).parts
    ends = Path(os.path.abspath(folder)).parts  # noqa: PTH100 (resolve() would replace links)
    names = {slashed} if slashed != file_name else set()
    names |= {"/".join(parts[k:]) for k in range(1, len(parts)) if parts[:k] == ends[-k:]}
    found = [name for name in names if inside(name, folder) == name and (folder / name).is_file()]
    return found[0] if len(found) == 1 else None


def similar(path: Path) -> str:
    """The file beside a missing one that is most like it, as the end of a message; empty where there is none."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except (OSError, ValueError):
        return ""
    for key in (_plain, lambda name: _plain(PurePath(name).stem)):
        wanted = key(path.name)
        if found := min((name for name in names if key(name) == wanted), default=""):
            return f"; there is {found}"
    return ""


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def cure_of_missing(names: Sequence[str], folder: Path) -> str:
    """What to do about files that are not there.

    Args:
        names: Their names as the COCO file has them.
        folder: The image folder.
    """
    relative = f"file_name must be relative to the image folder, {folder}"
    if example := next((name for name in names if _ADDRESS.match(name)), None):
        return f"{relative}: download the pictures, and write {PurePath(example).name} instead of their address"
    if example := next((name for name in names if _WINDOWS.match(name)), None):
        name = example.replace("\\", "/").rsplit("/", 1)[-1]
        return f"{relative}: write {name}, or the folders below it and {name}, instead of {example}"
    return f"{relative}; give another image folder or mend the names"


def cure_of_leaving(names: Sequence[str], folder: Path) -> str:
    """What to do about names that leave the image folder.

    Args:
        names: As the COCO file has them.
        folder: The image folder.
    """
    cure = f"file_name must be relative to the image folder, {folder}, or an absolute path in it"
    absolute = [os.path.dirname(os.path.normpath(name)) for name in names if PurePath(name).is_absolute()]  # noqa: PTH120
    if absolute:
        cure += f". If the files are where the names say, give {os.path.commonpath(absolute)} as the image folder"
    return cure
