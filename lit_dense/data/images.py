"""Reading image files of any kind as 8-bit RGB, and their headers without decoding them."""

import glob
import struct
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from .problems import DataError

# What PIL raises on files that are damaged, forged or no images.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Header(NamedTuple):
    """The size of an image as it is seen, EXIF orientation applied.

    Args:
        width: In pixels.
        height: In pixels.
        swapped: Whether the orientation swaps the sides, so that the file's rows are the picture's columns.
    """

    width: int
    height: int
    swapped: bool


def read_image(path: str | Path, upright: bool = True) -> Tensor:
    """The pixels of an image file as 8-bit RGB.

    Grey images get three equal channels, palettes their colours; an alpha channel is dropped, as OpenCV and torchvision
    do. 16 bits become 8 by their full range (65535 is 255). Of 32-bit integers and floats the file does not say the
    range: it is the smallest of 65535 and 2147483647, for floats of 1, 255 and 65535, that holds the largest value.

    Args:
        path: The file.
        upright: Apply the EXIF orientation.

    Returns:
        uint8 [3, height, width], with the strides that torchvision's images have: channels are innermost in memory.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except _UNREADABLE as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    if upright and orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def read_header(path: str | Path) -> Header | str:
    """The size of an image file, or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            swapped = _orientation(image) >= 5
    except _UNREADABLE as error:
        return _reason(error)
    return Header(height, width, True) if swapped else Header(width, height, False)


def read_headers(paths: Sequence[str | Path]) -> list[Header | str]:
    """The headers of many files, in their order, with a progress bar where it takes seconds."""
    chunks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
    hidden = getattr(rank_zero_only, "rank", 0) != 0
    headers: list[Header | str] = []
    with (
        ThreadPoolExecutor(8) as pool,  # for slow disks: reading a header waits more than it computes
        tqdm(total=len(paths), desc="Reading image headers", unit="file", delay=2, disable=hidden, leave=False) as bar,
    ):
        for part in pool.map(lambda chunk: [read_header(path) for path in chunk], chunks):
            headers += part
            bar.update(len(part))
    return headers


def find_images(patterns: Iterable[str | Path]) -> tuple[list[str], list[str]]:
    """The image files that paths stand for.

    Args:
        patterns: Files, folders (searched with their subfolders for image suffixes) and globs (``**``: any folders).

    Returns:
        The files, sorted within each pattern, each once; and the patterns that stand for none.
    """
    files: dict[str, None] = {}
    empty = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_file():
            found = [pattern]
        elif path.is_dir():
            found = [str(file) for file in path.rglob("*") if file.is_file()]
        else:
            found = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
        if not path.is_file():
            found = sorted(file for file in found if file.lower().endswith(IMG_EXTENSIONS))
        files |= dict.fromkeys(found)
        if not found:
            empty.append(pattern)
    return list(files), empty


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that PIL can open"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"cannot be read: {error}"


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation that is left to apply: 1 for none."""
    if image.format == "TIFF":
        return 1  # PIL applies it itself
    try:
        # Not image.getexif(): that of a PNG decodes the whole image in search of an EXIF chunk at its end.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except (*_UNREADABLE, TypeError, LookupError):
        return 1  # damaged EXIF data: the pixels are as good as ever


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    ranges = (1, 255, 65535) if values.dtype.kind == "f" else (65535, 2**31 - 1)
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)
    peak = numbers.max(initial=0)
    top = next((limit for limit in ranges if peak <= limit), peak)
    return np.rint(numbers.clip(0, top) * (255 / top)).astype(np.uint8)
