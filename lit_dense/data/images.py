"""Reading image files of any kind as 8-bit RGB, and their headers without decoding them."""

import glob
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from .problems import DataError

PathT = TypeVar("PathT", str, Path, str | Path)
ResultT = TypeVar("ResultT")

# What PIL raises on files that are damaged, forged or no images.
_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # where warnings are errors
)

_PLANES, _BITS = 284, 258  # tags of a TIFF file
_INTEGER_RANGES, _FLOAT_RANGES = (65535, 2**31 - 1), (1, 255, 65535)

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
        deep: Whether the file has more than 8 bits of each channel.
    """

    width: int
    height: int
    swapped: bool
    deep: bool = False


def read_image(path: str | Path, upright: bool = True) -> Tensor:
    """The pixels of an image file as 8-bit RGB.

    Grey images get three equal channels, palettes their colours; an alpha channel is dropped, as OpenCV and torchvision
    do. 16 bits become 8 by their full range (65535 is 255). Of 32-bit integers and floats the file does not say the
    range: it is the smallest of 65535 and 2147483647, for floats of 1, 255 and 65535, that holds the largest value; a
    float may pass it by a tenth, for interpolation overshoots.

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
            _check_planes(image)
            orientation = _orientation(image)
            rgb = _to_rgb(image)
    except _UNREADABLE as error:
        cure = "" if isinstance(error, FileNotFoundError) else ". Replace the file, or take the image out of the data."
        raise DataError(f"{path}: {_reason(error, path)}{cure}") from error
    if upright and orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def read_header(path: str | Path) -> Header | str:
    """The size of an image file, or what is wrong with the file."""
    try:
        with Image.open(path) as image:
            _check_planes(image)
            width, height = image.size
            swapped = _orientation(image) >= 5
            deep = image.mode == "F" or image.mode.startswith("I") or ";16" in str(getattr(image, "tile", ""))
    except _UNREADABLE as error:
        return _reason(error, path)
    return Header(height, width, True, deep) if swapped else Header(width, height, False, deep)


def white_level(path: str | Path) -> float | None:
    """The value that becomes 255 where the file does not say it, as of floats and 32-bit integers; None of others.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return _top(_finite(np.asarray(image)), image.mode) if image.mode in ("F", "I") else None
    except _UNREADABLE as error:
        raise DataError(f"{path}: {_reason(error, path)}") from error


def read_headers(paths: Sequence[str | Path]) -> list[Header | str]:
    """The headers of many files, in their order, with a progress bar where it takes seconds."""
    return in_threads(read_header, paths, "Reading image headers")


def in_threads(work: Callable[[PathT], ResultT], paths: Sequence[PathT], title: str) -> list[ResultT]:
    """What a function gives for each of many files, in their order, with a progress bar where it takes seconds.

    Args:
        work: Waits for the disk more than it computes.
        paths: The files.
        title: Of the progress bar.
    """
    chunks = [paths[start : start + 256] for start in range(0, len(paths), 256)]
    hidden = getattr(rank_zero_only, "rank", 0) != 0
    results: list[ResultT] = []
    with (
        ThreadPoolExecutor(8) as pool,
        tqdm(total=len(paths), desc=title, unit="file", delay=2, disable=hidden, leave=False) as bar,
    ):
        for part in pool.map(lambda chunk: [work(path) for path in chunk], chunks):
            results += part
            bar.update(len(part))
    return results


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


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that PIL can open" + _kind_of_tiff(path)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"cannot be read: {str(error).split(',')[0]}: cut the picture into tiles, or shrink it"
    return f"cannot be read: {str(error) or type(error).__name__}"


def _kind_of_tiff(path: str | Path) -> str:
    """What is left to say of a file that is a TIFF all the same."""
    with Path(path).open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return ""
    return ": a TIFF of more channels or of other numbers than it knows; save three channels of 8 bits"


def _check_planes(image: Image.Image) -> None:
    """Refuses files that PIL decodes wrongly without an error: it takes planes of 16 bits for planes of 8."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = tags.get(_BITS, 8)
    if tags.get(_PLANES) == 2 and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
        raise ValueError("a TIFF with planes of more than 8 bits one after another; save the channels interleaved")


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
        return Image.fromarray(_to_8_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _to_8_bits(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.uint8]:
    numbers = _finite(values)
    top = _top(numbers, mode)
    return np.rint(numbers.clip(0, top) * (255 / top)).astype(np.uint8)


def _finite(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    numbers = values.astype(np.float64)
    numbers[~(np.abs(numbers) < 1e38)] = 0  # geographic files mark places without data by the largest float
    return numbers


def _top(numbers: npt.NDArray[np.float64], mode: str) -> float:
    ranges, margin = (_FLOAT_RANGES, 1.1) if mode == "F" else (_INTEGER_RANGES, 1.0)
    peak = float(numbers.max(initial=0))
    return next((limit for limit in ranges if peak <= limit * margin), peak)
