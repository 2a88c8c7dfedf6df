"""Evidence in the stated sizes of images on whether boxes were drawn before or after the EXIF rotation."""

from ..image_files import Header


class ExifRotations:
    """The images of a file with an EXIF orientation, and what their stated sizes show.

    The size of an image decides only if the orientation swaps unequal sides. Turns by 180 degrees, mirrored images and
    square images have one size before and after. One tool usually wrote the whole file, so the other images decide
    for them.

    Attributes:
        undecided: Ids of images whose size is the same before and after, or not stated.
    """

    def __init__(self) -> None:
        self._before = self._after = 0
        self.undecided: list[int] = []

    def add(self, image_id: int, header: Header, stated: tuple[int | None, int | None]) -> None:
        """Add an image; one without an EXIF orientation counts for nothing.

        Args:
            image_id: The image id.
            header: The header of the image file.
            stated: Width and height in the annotations; None if they are not given.
        """
        if not header.turned:
            return
        size = header.width, header.height
        if header.swapped and header.width != header.height and stated in (size, size[::-1]):
            self._after += stated == size
            self._before += stated != size
        elif stated == size or None in stated:
            self.undecided.append(image_id)

    @property
    def verdict(self) -> str:
        """What the decided images show: ``before``, ``after``, ``mixed``, or ``unknown`` if there are none."""
        if self._before and self._after:
            return "mixed"
        return "before" if self._before else "after" if self._after else "unknown"
