"""Models as a folder of ``config.json`` and ``model.safetensors``, locally and on the Hugging Face Hub."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._version import __version__
from ..core.errors import UsageError
from ..core.optional_package import optional_package
from ..detectors.backbones import loads_checkpoint
from ..training import LitDetector

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
LIGHTNING = "pytorch-lightning_version"
ARGUMENTS = LitDetector.CHECKPOINT_HYPER_PARAMS_KEY
OTHER_STATE = "extra_state"  # of the criteria: numbers of steps, which safetensors cannot hold
OF_CLI = ("_instantiator", "_class_path")  # Lightning's notes of how its command line built the module


def write_pretrained(module: LitDetector, folder: Path) -> Path:
    """Write a module as a folder.

    Args:
        module: A trained module.
        folder: The folder; it is created.

    Raises:
        UsageError: If safetensors is not installed, or the arguments cannot be written as JSON.
    """
    safetensors = optional_package("safetensors.torch", "save_pretrained")
    arguments = {name: value for name, value in module.hparams.items() if name not in OF_CLI}
    checkpoint: dict[str, Any] = {ARGUMENTS: arguments}
    module.on_save_checkpoint(checkpoint)
    config = {
        "library_name": "lit_dense",
        "lit_dense_version": __version__,
        LIGHTNING: optional_package("lightning", "save_pretrained").__version__,
        **checkpoint,
    }
    state = module.state_dict()
    config[OTHER_STATE] = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
    try:
        text = json.dumps(config, indent=2)
    except TypeError as error:
        raise UsageError(f"save_pretrained: the module's arguments cannot be written as JSON: {error}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    # copies, because safetensors refuses tensors that share their memory
    weights = {name: v.detach().cpu().clone().contiguous() for name, v in state.items() if isinstance(v, Tensor)}
    safetensors.save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    if not (folder / CARD).exists():
        (folder / CARD).write_text(_card(module), encoding="utf-8")
    return folder


def pull(source: str | Path, options: dict[str, Any]) -> LitDetector:
    """Load a module from a folder, or from a repository of the Hub.

    Args:
        source: A folder, or the name of a repository.
        options: Further arguments of ``snapshot_download``.

    Raises:
        UsageError: If the folder has no model, or a package is not installed.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if str(source).count("/") != 1 or str(source).startswith(("/", ".", "~")):
            raise UsageError(
                f"from_pretrained: there is no folder {source}. Give a folder of save_pretrained, or the name of a "
                "repository of the Hugging Face Hub, as user/model."
            )
        hub = optional_package("huggingface_hub", "from_pretrained")
        options = {"allow_patterns": [CONFIG, WEIGHTS], **options}
        folder = Path(hub.snapshot_download(str(source), **options))
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UsageError(f"from_pretrained: {source} has no {name}: it must be written by save_pretrained.")
    safetensors = optional_package("safetensors.torch", "from_pretrained")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"from_pretrained: {folder / CONFIG} is not JSON: {error}.") from error
    if not isinstance(config, dict) or "lit_dense" not in config or ARGUMENTS not in config:
        raise UsageError(f"from_pretrained: {folder / CONFIG} is that of another library, not of lit_dense.")
    config["state_dict"] = {**safetensors.load_file(folder / WEIGHTS), **config.pop(OTHER_STATE, {})}
    buffer = io.BytesIO()  # load_from_checkpoint rebuilds the module; it takes a file
    torch.save(config, buffer)
    buffer.seek(0)
    with loads_checkpoint():
        return LitDetector.load_from_checkpoint(buffer, map_location="cpu")


def push(module: LitDetector, repo_id: str, private: bool | None, token: str | None) -> str:
    """Upload a module to the Hub, by the mixin of huggingface_hub.

    Args:
        module: A trained module.
        repo_id: Name of the repository.
        private: Whether a new repository is private.
        token: Access token.

    Returns:
        Address of the commit.

    Raises:
        UsageError: If a package is not installed.
    """
    hub = optional_package("huggingface_hub", "push_to_hub")

    class Uploaded(hub.ModelHubMixin):  # type: ignore[misc, name-defined]  # the package is optional
        def _save_pretrained(self, save_directory: Path) -> None:
            write_pretrained(module, save_directory)

    message = "Upload of a lit_dense detector"
    commit = Uploaded().push_to_hub(repo_id, private=private, token=token, commit_message=message)
    return str(commit.commit_url)


def _card(module: LitDetector) -> str:
    """Return the model card: what the model detects and how to use it."""
    names = ", ".join(str(category["name"]) for category in module.categories or [] if category["name"])
    return (
        "---\nlibrary_name: lit_dense\npipeline_tag: object-detection\n---\n\n"
        f"A {module.detector_name} detector, trained with lit_dense.\n\n"
        + (f"Classes: {names}.\n\n" if names else "")
        + "```python\nfrom lit_dense.inference import Predictor\n\n"
        'Predictor.from_pretrained("user/model").predict("photo.jpg").show()\n```\n'
    )
