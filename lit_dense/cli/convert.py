"""``lit-dense convert``: writes a data set in another format."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.yaml_files import read_config_file
from ..data import CocoDataModule
from ..data.conversion import convert
from .command_parser import CommandParser

DESCRIPTION = (
    "Convert a data set: lit-dense convert --to=yolo --out=data_yolo --data.root=data --data.train_images=images "
    "--data.train_annotations=train.json. The data is checked and repaired as before training. Images are linked, or "
    "copied where links are not possible; the source is not changed."
)


def build_parser() -> CommandParser:
    """Build the parser of the command's options."""
    parser = CommandParser(prog="lit-dense convert", description=DESCRIPTION)
    parser.add_argument("--from", type=str, help="format of the files (default: recognised), as data.format")
    parser.add_argument("--to", type=str, required=True, help="format to write: coco, yolo, voc, csv, ...")
    parser.add_argument("--out", type=str, required=True, help="folder to write; it must not exist or must be empty")
    parser.add_argument("--config", type=list[str], help="configuration of lit-dense fit, whose data section is used")
    parser.add_lightning_class_args(CocoDataModule, "data")
    return parser


def main(arguments: Sequence[str]) -> None:
    """Convert a data set, and print what was written and what the format cannot hold.

    Args:
        arguments: The arguments after ``convert``.

    Raises:
        UsageError: An argument or the data is not accepted.
    """
    parser = build_parser()
    files, rest = _take_configs(arguments)
    for file in files:
        parser.set_defaults({f"data.{name}": value for name, value in _data_section(file).items()})
    config = parser.parse_args(rest)
    if given := config["from"]:
        config["data"]["format"] = given
    datamodule = parser.instantiate(config)["data"]
    print(convert(datamodule, config["to"], config["out"]).text(), file=sys.stdout)


def _take_configs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the values of ``--config`` from the other arguments."""
    files, rest = [], []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "--config":
            files.append(next(remaining, ""))
        elif argument.startswith("--config="):
            files.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return files, rest


def _data_section(file: str) -> dict[str, Any]:
    if not Path(file).is_file():
        raise UsageError(f"convert: there is no configuration {file}.")
    content = read_config_file(Path(file))
    section = (content.get("fit") or content).get("data") or {}
    if not section:
        raise UsageError(f"convert: {file} has no section data.")
    return dict(section)
