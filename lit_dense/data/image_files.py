"""Reading image files as 8-bit RGB, and image headers without decoding the pixels."""

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

# Errors that PIL raises on files that are damaged, malicious or not images.
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
    """The displayed size of an image, after its EXIF orientation.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        swapped: Whether the orientation swaps width and height.
        deep: Whether the file has more than 8 bits per channel.
        turned: Whether the orientation turns or mirrors the image.
    """

    width: int
    height: int
    swapped: bool
    deep: bool = False
    turned: bool = False


def read_image(path: str | Path, upright: bool = True) -> Tensor:
    """Read an image file as 8-bit RGB.

    Grey images get three equal channels. Palettes are converted to colours. An alpha channel is dropped, as in OpenCV
    and torchvision. 16-bit values are scaled by their full range (65535 becomes 255). Files of 32-bit integers and
    floats do not store their range. The range is taken as the smallest of 65535 and 2147483647 (integers) or of 1, 255
    and 65535 (floats) that contains the largest value. A float may exceed the range by 10 %, because interpolation
    overshoots.

    Args:
        path: The file.
        upright: Apply the EXIF orientation.

    Returns:
        uint8 [3, height, width]; the channel dimension is innermost in memory, as in torchvision.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            _check_planes(image)
            return image_to_tensor(image, upright)
    except _UNREADABLE as error:
        cure = "" if isinstance(error, FileNotFoundError) else ". Replace the file, or remove the image from the data."
        raise DataError(f"{path}: {_reason(error, path)}{cure}") from error


def image_to_tensor(image: Image.Image, upright: bool = True) -> Tensor:
    """Convert a PIL image to 8-bit RGB, in the same way as :func:`read_image`.

    Args:
        image: The image, of any mode.
        upright: Apply the EXIF orientation.

    Returns:
        uint8 [3, height, width]; the channel dimension is innermost in memory.
    """
    orientation = _orientation(image)
    rgb = _to_rgb(image)
    if upright and orientation in _TURNS:
        rgb = rgb.transpose(_TURNS[orientation])
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def read_header(path: str | Path) -> Header | str:
    """Read the header of an image file; a text describes the problem of a file that cannot be read."""
    try:
        with Image.open(path) as image:
            _check_planes(image)
            width, height = image.size
            orientation = _orientation(image)
            deep = image.mode == "F" or image.mode.startswith("I") or ";16" in str(getattr(image, "tile", ""))
    except _UNREADABLE as error:
        return _reason(error, path)
    if orientation not in _TURNS:
        return Header(width, height, False, deep)
    return Header(height, width, True, deep, True) if orientation >= 5 else Header(width, height, False, deep, True)


def white_level(path: str | Path) -> float | None:
    """Return the value that becomes 255 in a file of floats or 32-bit integers; None for other files.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return _top(_finite(np.asarray(image)), image.mode) if image.mode in ("F", "I") else None
    except _UNREADABLE as error:
        raise DataError(f"{path}: {_reason(error, path)}") from error


def read_headers(paths: Sequence[str | Path]) -> list[Header | str]:
    """Read the headers of many files, in order; a progress bar appears if it takes seconds."""
    return in_threads(read_header, paths, "Reading image headers")


def in_threads(work: Callable[[PathT], ResultT], paths: Sequence[PathT], title: str) -> list[ResultT]:
    """Call a function for each of many files in threads; a progress bar appears if it takes seconds.

    Args:
        work: A function of a path, limited by the disk rather than the CPU.
        paths: The files.
        title: Title of the progress bar.

    Returns:
        The results, in the order of the files.
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
    """List the image files that match paths.

    Args:
        patterns: Files, folders (searched recursively for image suffixes) and globs (``**``: any folders).

    Returns:
        The files, sorted within each pattern, without duplicates; and the patterns that match no file.
    """
    files: dict[str, None] = {}
    empty = []
    for pattern in map(str, patterns):
        path = Path(pattern)
        if path.is_file():
            matches = [pattern]
        elif path.is_dir():
            matches = [str(file) for file in path.rglob("*") if file.is_file()]
        else:
            matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
        if not path.is_file():
            matches = sorted(file for file in matches if file.lower().endswith(IMG_EXTENSIONS))
        files |= dict.fromkeys(matches)
        if not matches:
            empty.append(pattern)
    return list(files), empty


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that PIL can open" + _tiff_note(path)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"cannot be read: {str(error).split(',')[0]}: cut the image into tiles, or shrink it"
    return f"cannot be read: {str(error) or type(error).__name__}"


def _tiff_note(path: str | Path) -> str:
    """Explain a TIFF file that PIL cannot open; empty for other files."""
    with Path(path).open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return ""
    return ": a TIFF with an unsupported number of channels or type of values; save three channels of 8 bits"


def _check_planes(image: Image.Image) -> None:
    """Refuse files that PIL decodes wrongly without an error: it reads separate 16-bit planes as 8-bit planes."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    bits = tags.get(_BITS, 8)
    if tags.get(_PLANES) == 2 and max(bits if isinstance(bits, tuple) else (bits,)) > 8:
        raise ValueError("a TIFF with separate planes of more than 8 bits; save the channels interleaved")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that PIL has not applied itself; 1 for none."""
    if image.format == "TIFF":
        return 1  # PIL applies it itself
    try:
        # Not image.getexif(): for a PNG it decodes the whole image to look for an EXIF chunk at the end.
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except (*_UNREADABLE, TypeError, LookupError):
        return 1  # damaged EXIF data does not affect the pixels


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
    numbers[~(np.abs(numbers) < 1e38)] = 0  # geographic files mark missing data by the largest float
    return numbers


def _top(numbers: npt.NDArray[np.float64], mode: str) -> float:
    ranges, margin = (_FLOAT_RANGES, 1.1) if mode == "F" else (_INTEGER_RANGES, 1.0)
    peak = float(numbers.max(initial=0))
    return next((limit for limit in ranges if peak <= limit * margin), peak)
