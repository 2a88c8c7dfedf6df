"""Checks for images of more than 8 bits that lose their contrast when converted to 8 bits."""

from collections.abc import Sequence
from pathlib import Path

from ..image_files import read_image, white_level
from ..problems import KEPT, DataError, Problems

LOOKED_AT = 8  # most images that are decoded
DEPTHS = (10, 12, 14)  # bits of sensors whose values are often stored in 16 bits without scaling


def note_depths(paths: Sequence[Path], where: Path | str, problems: Problems) -> None:
    """Report images of more than 8 bits that become nearly black, or that are scaled by different ranges.

    Only a few images are decoded. A single dark 16-bit image may be intended; among several, one should be bright.

    Args:
        paths: Images of more than 8 bits.
        where: The source of the images, for the report.
        problems: Problems are added to it.
    """
    peaks: dict[Path, int] = {}
    levels: dict[Path, float] = {}
    for path in paths[:: -(-len(paths) // LOOKED_AT) or 1]:
        try:
            peaks[path] = int(read_image(path).max())
            level = white_level(path)
        except DataError:
            continue  # unreadable files are reported elsewhere
        if level is not None:
            levels[path] = level
    if len(set(levels.values())) > 1:
        problems.add(
            where,
            "images of 32 bits that are scaled differently, because the largest value of each sets its range",
            [f"{path}: {level:g} becomes 255" for path, level in levels.items()],
            repair=KEPT,
            cure="save them as 8 bits, all with one range",
        )
    brightest = max(peaks.values(), default=255)
    if (bits := next((bits for bits in DEPTHS if brightest <= 2 ** (bits - 8)), None)) is not None:
        problems.add(
            where,
            "images of more than 8 bits that become nearly black (only a few were decoded)",
            [f"{path}: its largest value becomes {peak} of 255" for path, peak in peaks.items()],
            repair=KEPT,
            cure=f"65535 becomes 255, but these look like {bits} bits stored in 16: multiply the values by "
            f"{2 ** (16 - bits)}, or save 8-bit images of the relevant range",
        )
