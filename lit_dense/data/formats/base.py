"""Base class of formats: ``Format``."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...core.component import Component
from ...core.errors import UsageError, line_of, nearest
from ..problems import Problems
from .annotations import Annotations

ROBOFLOW_COCO = "_annotations.coco.json"  # its images are beside it


class Request(NamedTuple):
    """What to read: the paths of one split, and the parts that are needed.

    Args:
        path: The annotation file or folder.
        images: The image folder that the user has given; None if the format must find it.
        split: ``train``, ``val`` or ``test``, for files that hold several splits.
        weight_key: The key of a box's weight; None if no weights are needed.
        masks: Whether masks are needed.
        ignore_key: The key that marks a box as a region to ignore; None if there is none.
    """

    path: Path
    images: Path | None = None
    split: str = "train"
    weight_key: str | None = None
    masks: bool = False
    ignore_key: str | None = None


class Format(Component, ABC):
    """Base class of annotation formats: recognises, reads and, if it can, writes the files of a format.

    A reader checks only the form of its files. It reports each fault with file and line, and keeps what can be used.
    Boxes outside their image, missing images, repeated boxes and other faults of content are found afterwards, by the
    same checks for all formats. A reader never opens image files.

    Images must have a fixed order: that of the annotation file, or sorted by file name. The order defines image ids
    and the order of training.

    Attributes:
        needs_images: Whether the user must give the image folder, because the files do not say where images are.
        finds_images: Whether the files say where the images of each split are, so that the image folder of the training
            set is not the default for other splits.
    """

    needs_images: bool = False
    finds_images: bool = False

    @abstractmethod
    def recognises(self, path: Path) -> bool:
        """Return whether an existing file or folder looks like this format.

        Called for paths whose format is not given; look at names first, and read no more than the beginning of a file.

        Args:
            path: An existing file or folder.
        """

    @abstractmethod
    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read the annotations of one split.

        Args:
            request: Paths and needed parts.
            problems: Faults of the files' form are added to it: ``problems.add(path, "what", ["file, line 3: ..."],
                repair="dropped")``. A problem without a repair makes the data unusable.

        Returns:
            The annotations; None if they cannot be read, which must have been reported.
        """

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the splits that a path holds if it holds several; empty if it holds one.

        Args:
            path: The annotation file or folder of the training images.
        """
        return ()

    def write(self, splits: Mapping[str, Annotations], folder: Path) -> list[str]:
        """Write annotations; ``lit-dense convert`` has placed image NAME of a split at ``images/SPLIT/NAME``.

        Args:
            splits: Checked annotations of each split, with boxes and polygons in pixels, the size of every image, and
                file names relative to ``images/SPLIT``.
            folder: The folder to write to, which exists.

        Returns:
            A line about each kind of content that the format cannot hold; empty if nothing is lost.

        Raises:
            UsageError: The format cannot be written.
        """
        raise UsageError(f"{type(self).__name__} cannot be written: choose another format.")


NOT_UTF8 = "save the file as UTF-8: in a spreadsheet by the type 'CSV UTF-8', in an editor by 'Save with encoding'"


def not_utf8(error: UnicodeDecodeError) -> str:
    """Describe a file in another encoding than UTF-8, with the line of the first byte that is not UTF-8."""
    return f"not UTF-8 text: {error.reason} at byte {error.start}, in line {line_of(error)}"


def missing_file(path: Path) -> str:
    """Describe a missing file: the folder that is missing too, or the most similar name in its folder."""
    if not path.parent.is_dir():
        return f"no such file: there is no folder {path.parent}"
    stems = [file.stem for file in path.parent.iterdir() if file.suffix == path.suffix]
    hint = nearest(path.stem, stems).replace("'?", f"{path.suffix}'?")
    return f"no such file.{hint}" if hint else "no such file"
