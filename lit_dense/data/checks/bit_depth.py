"""Pictures of more than 8 bits whose values become 8 bits badly."""

from collections.abc import Sequence
from pathlib import Path

from ..images import read_image, white_level
from ..problems import KEPT, DataError, Problems

LOOKED_AT = 8  # pictures that are decoded, at most
DEPTHS = (10, 12, 14)  # bits of sensors whose values are often kept in 16 bits as they are


def note_depths(paths: Sequence[Path], where: Path | str, problems: Problems) -> None:
    """Notes pictures of more than 8 bits that become nearly black, or that are scaled by different ranges.

    A few of them are looked at. Whether a dark picture of 16 bits was meant to be dark cannot be known from one: of
    several, one should be bright.

    Args:
        paths: Pictures of more than 8 bits.
        where: Where they come from, for the report.
        problems: Where they are noted.
    """
    peaks: dict[Path, int] = {}
    levels: dict[Path, float] = {}
    for path in paths[:: -(-len(paths) // LOOKED_AT) or 1]:
        try:
            peaks[path] = int(read_image(path).max())
            level = white_level(path)
        except DataError:
            continue  # told where it is needed
        if level is not None:
            levels[path] = level
    if len(set(levels.values())) > 1:
        problems.add(
            where,
            "pictures of 32 bits that are not scaled alike, for the largest value of each decides",
            [f"{path}: {level:g} becomes 255" for path, level in levels.items()],
            repair=KEPT,
            cure="save them as 8 bits by one range",
        )
    brightest = max(peaks.values(), default=255)
    if (bits := next((bits for bits in DEPTHS if brightest <= 2 ** (bits - 8)), None)) is not None:
        problems.add(
            where,
            "pictures of more than 8 bits that become nearly black (a few were looked at)",
            [f"{path}: its largest value becomes {peak} of 255" for path, peak in peaks.items()],
            repair=KEPT,
            cure=f"65535 becomes 255, but these look like {bits} bits kept in 16: multiply the values by "
            f"{2 ** (16 - bits)}, or save 8-bit pictures of the range that matters",
        )
