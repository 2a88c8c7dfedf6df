"""The entry point of the checks of a format."""

import tempfile
from collections.abc import Collection
from pathlib import Path

from ..formats import FORMATS, FormatLike
from . import format_checks as own
from .check_runner import Check, run_checks
from .format_subject import FormatSubject, use_sample, write_sample


def check_format(
    format: FormatLike,
    *,
    sample: Path | str | None = None,
    annotations: str | None = None,
    images: str | None = None,
    skip: Collection[str] = (),
) -> None:
    """Check that an annotation format meets all requirements of lit_dense.

    Args:
        format: A format, a name, or a dict with class_path and init_args.
        sample: A folder with a small data set in the format: images, at least one of them with boxes. It is copied and
            not changed. Default: the format writes a data set of three images.
        annotations: Path of the annotations in the folder. Default: the first path that the format recognises, if
            possible one with "train" in its name.
        images: Path of the image folder in the folder. Default: none, as for formats that find their images; for a
            written data set of a format that needs it, ``images/train``.
        skip: Names of checks to skip.

    Raises:
        CheckFailure: If a check failed; the message lists the expected and the seen result, and a remedy.
        UsageError: If the format cannot be built, cannot write and has no sample, or recognises no file.

    Example:
        >>> check_format("yolo")
    """
    checks: dict[str, Check[FormatSubject]] = {
        "recognition": own.recognition,
        "table": own.table,
        "same_again": own.same_again,
        "places": own.places,
        "weights": own.weights,
        "missing_file": own.missing_file,
        "damaged_files": own.damaged_files,
        "round_trip": own.round_trip,
        "data_module": own.data_module,
        "spec": own.spec,
    }
    built = FORMATS.build(format)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "sample"
        folder.mkdir()
        if sample is None:
            subject = write_sample(built, folder, annotations, images)
        else:
            subject = use_sample(built, Path(sample), folder, annotations, images)
        run_checks(subject.title, subject, checks, skip)
