"""``load`` and ``Predictor``: a trained detector that takes image files, PIL images, arrays and tensors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..cli.checkpoint_file import check_checkpoint
from ..core.batch_values import warn_of_range
from ..core.errors import UsageError, check_range, nearest
from ..data.image_files import find_images, image_to_tensor, read_image
from ..data.label_map import unique_names
from ..detectors.backbones import loads_checkpoint
from ..training import LitDetector
from ..training.batch import checked_batch
from .hub import pull, push, write_pretrained
from .prediction import SHOWN_SCORE, Prediction

Source = str | Path | Image.Image | npt.NDArray[np.uint8] | Tensor
"""An image: a file, a PIL image, an array [H, W, 3], or a tensor [3, H, W]."""
ACCEPTED = (
    "a path (file, folder or glob), a PIL image, a uint8 array [H, W, 3] in RGB, a tensor [3, H, W] (uint8, or float "
    "in [0, 1]), or a list of these"
)


def load(path: str | Path, device: str | torch.device | None = None) -> "Predictor":
    """Load a checkpoint for prediction.

    Args:
        path: Checkpoint that ``lit-dense fit`` or a Trainer has written.
        device: Device of the model, such as ``cpu`` or ``cuda:1``; by default the GPU if there is one, or else the CPU.

    Raises:
        UsageError: If there is no such file, or it is not a checkpoint of this package.

    Example:
        >>> predictor = load("best.ckpt")  # doctest: +SKIP
        >>> predictor.predict("photo.jpg").show()  # doctest: +SKIP
    """
    file = Path(path).expanduser()
    if not file.exists():
        names = [p.name for p in file.parent.glob("*.ckpt")] if file.parent.is_dir() else []
        raise UsageError(f"load: there is no checkpoint {path}.{nearest(file.name, names)}")
    check_checkpoint(file)
    with loads_checkpoint():
        return Predictor(LitDetector.load_from_checkpoint(file, map_location="cpu"), device)


class Predictor:
    """A trained detector for prediction in Python.

    Args:
        module: The trained module, such as one of your own class; it is set to evaluation mode.
        device: Device of the model; by default the GPU if there is one, or else the CPU.

    Attributes:
        module: The module.
        device: The device.
        class_names: Name of each class.
    """

    def __init__(self, module: LitDetector, device: str | torch.device | None = None) -> None:
        module.check_num_classes()
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.module = module.to(self.device).eval()
        categories = module.categories
        named = unique_names(categories) if categories else []
        self.class_names = [*named, *(str(label) for label in range(len(named), module.num_classes or 0))]

    def predict(self, source: Source | Sequence[Source], score_thresh: float | None = None) -> Any:
        """Detect objects in one image or in several.

        Images are processed one by one, so that the detections of an image do not depend on the others.

        Args:
            source: A path, a PIL image, a uint8 array [H, W, 3] in RGB, or a tensor [3, H, W], uint8 or float in
                [0, 1]; a folder, a glob such as ``photos/*.jpg``, a tensor [B, 3, H, W], or a list of images.
            score_thresh: Smallest score of a detection; by default that of the model.

        Returns:
            A :class:`Prediction`, or a list of them for a folder, a glob, a batch or a list.

        Raises:
            UsageError: If there is no such image, the image has another format, or ``score_thresh`` is not between 0
                and 1.
        """
        if score_thresh is not None:
            check_range("predict", "score_thresh", score_thresh, 0, 1)
        with self._threshold(score_thresh), torch.no_grad():
            if _is_one(source):
                return self._predict(source, score_thresh)
            return [self._predict(one, score_thresh) for one in _images(source)]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as ``config.json`` and ``model.safetensors``, which :meth:`from_pretrained` reads.

        Args:
            folder: The folder; it is created.

        Raises:
            UsageError: If safetensors is not installed, or the arguments of the module cannot be written as JSON.
        """
        return write_pretrained(self.module, Path(folder).expanduser())

    @classmethod
    def from_pretrained(
        cls, source: str | Path, device: str | torch.device | None = None, **options: Any
    ) -> "Predictor":
        """Load a model from a folder of :meth:`save_pretrained`, or from the Hugging Face Hub.

        Args:
            source: A folder, or the name of a repository such as ``user/model``.
            device: Device of the model; by default the GPU if there is one, or else the CPU.
            options: Further arguments of ``huggingface_hub.snapshot_download``, such as ``revision`` and ``token``.

        Raises:
            UsageError: If the folder has no model, or a package is not installed.
        """
        return cls(pull(source, options), device)

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> str:
        """Upload the model to the Hugging Face Hub; the repository is created if it is missing.

        Args:
            repo_id: Name of the repository, such as ``user/model``.
            private: Whether a new repository is private; by default the setting of the owner.
            token: Access token; by default that of ``hf auth login``.

        Returns:
            Address of the commit.

        Raises:
            UsageError: If huggingface_hub or safetensors is not installed.
        """
        return push(self.module, repo_id, private, token)

    def _predict(self, source: Any, score_thresh: float | None) -> Prediction:
        path = Path(source).expanduser() if isinstance(source, str | Path) else None
        image = _to_tensor(source if path is None else path)
        if image.is_floating_point():
            warn_of_range([image])
        target = {"file_name": str(path)} if path else {}
        floats, _ = checked_batch([image.to(self.device)], [target], None, self.module.longest_side)
        (found,) = self.module(floats)
        found = {name: found[name].cpu() for name in ("boxes", "scores", "labels")}
        kept = None if path else image.cpu()
        shown = SHOWN_SCORE if score_thresh is None else score_thresh
        return Prediction(**found, class_names=self.class_names, path=path, source=kept, shown_score=shown)

    @contextmanager
    def _threshold(self, score_thresh: float | None) -> Iterator[None]:
        """Set the threshold of the module, and restore it afterwards."""
        module = self.module
        former = module.score_thresh
        if score_thresh is not None:
            module.score_thresh = score_thresh
            module.limit_detections()
        try:
            yield
        finally:
            if score_thresh is not None:
                module.score_thresh = former
                module.limit_detections()


def _is_one(source: Any) -> bool:
    """Return whether a source is one image, so that the result is not a list."""
    if isinstance(source, str | Path):
        return Path(source).expanduser().is_file()
    if isinstance(source, Tensor | np.ndarray):
        return source.ndim != 4
    return isinstance(source, bytes) or not isinstance(source, Sequence)


def _images(source: Any) -> Iterator[Any]:
    """Yield the images of a folder, a glob, a batch or a list."""
    if isinstance(source, str | Path):
        yield from _files(source)
        return
    for one in source:
        if isinstance(one, str | Path):
            yield from _files(one)
        else:
            yield one


def _files(path: str | Path) -> list[str]:
    whole = Path(path).expanduser()
    files, _ = find_images([whole])
    if not files:
        if whole.is_dir():
            raise UsageError(f"predict: the folder {path} contains no image.")
        names = [p.name for p in whole.parent.iterdir()] if whole.parent.is_dir() else []
        raise UsageError(f"predict: there is no image {path}.{nearest(whole.name, names)}")
    return files


def _to_tensor(source: Any) -> Tensor:
    """Convert an image to a tensor [3, H, W].

    Raises:
        UsageError: If it has another format.
    """
    if isinstance(source, Path):
        return read_image(source)
    if isinstance(source, Image.Image):
        return image_to_tensor(source)
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or 0 in source.shape:
            hint = " It looks like [3, H, W]: give image.transpose(1, 2, 0)." if source.shape[:1] == (3,) else ""
            raise _unknown(f"an array {list(source.shape)} of {source.dtype}", hint)
        return torch.from_numpy(np.ascontiguousarray(source)).permute(2, 0, 1)
    if isinstance(source, Tensor):
        right = source.dtype == torch.uint8 or source.is_floating_point()
        if source.ndim != 3 or source.shape[0] != 3 or not right or 0 in source.shape:
            hint = " It looks like [H, W, 3]: give image.permute(2, 0, 1)." if source.shape[-1:] == (3,) else ""
            raise _unknown(f"a tensor {list(source.shape)} of {source.dtype}", hint)
        return source.detach()
    raise _unknown(f"{type(source).__name__}")


def _unknown(what: str, hint: str = "") -> UsageError:
    return UsageError(f"predict takes {ACCEPTED}, not {what}.{hint}")
