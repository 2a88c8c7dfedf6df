"""The argument parser of ``lit-dense``, which reports errors in one line instead of a hundred lines of usage."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from ..core.cli_types import refused
from ..core.errors import nearest
from ..core.yaml_files import read_config_file
from .user_errors import tracebacks_wanted

OF_TRAINER = ("fit", "validate", "test", "predict", "check", "calibrate", "analyze", "export")
VERBS = (*OF_TRAINER, "convert", "compare", "advise", "list")
KEY = re.compile(r'^Parser key "([^"]+)":\s*')
# lines of jsonargparse that describe the accepted types instead of the error
NOISE = re.compile(
    r"Does not validate against any|Subtypes:|Errors:|Given value|Expected a (config )?path but|Neither a name nor|"
    r"Expected a <class 'NoneType'>|Expected a <class 'collections.abc.Sequence'>$|Subclass types expect one of|"
    r"a class path \(str\)|a dict with"
)
NO_COMPONENT = re.compile(r"Not a valid subclass of \w+Like$")  # such as a list in place of one loss
A_LIST = "Expected a <class 'collections.abc.Sequence'>"  # said only if nothing else is


class CommandParser(LightningArgumentParser):
    """LightningCLI's parser with one-line errors; ``JSONARGPARSE_DEBUG=true`` shows jsonargparse's own errors."""

    def parse_path(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:
        """Parse a configuration file, after checking that no key in it or in the files of its sections is repeated.

        Args:
            path: The file.
            args: Further arguments of jsonargparse's method.
            kwargs: Further arguments of jsonargparse's method.

        Raises:
            UsageError: A file cannot be read, or gives a key twice.
        """
        if (file := Path(path)).is_file():  # other places, such as URLs, are read by jsonargparse
            _check_file(file)
        parsed: Namespace = super().parse_path(path, *args, **kwargs)
        return parsed

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the error in one line, and exit with status 2."""
        if tracebacks_wanted():
            super().error(message, ex)
        line = self._one_line(message)
        if not self.exit_on_error:
            super().error(line, ex)
        print(f"lit-dense: {line}", file=sys.stderr)
        self.exit(2)

    def _one_line(self, message: str) -> str:
        key = KEY.match(message)
        option, rest = (f"--{key[1]}: ", message[key.end() :]) if key else ("", message)
        if problem := next((p for p in reversed(refused) if p in message), None):
            return option + problem
        lines = [line.strip().removeprefix("- ") for line in rest.splitlines()]
        told = [line for line in lines if line and not NOISE.match(line)] or [li for li in lines if li == A_LIST]
        reasons = list(dict.fromkeys(map(_plain_types, told)))
        text = "; ".join(reasons).replace(":; ", ": ") or " ".join(rest.split())
        given = re.search(r"^ *Given value: (.*)", message, re.MULTILINE)
        got = given[1] if given and "Expected" in text and "Got value" not in text else None
        if got is not None and (nested := re.fullmatch(r"NestedArg\(key='\w+', val=(.*)\)", got)):
            got = nested[1]  # an option such as --model.loss.gamma=x
        if got is not None and not re.search(rf"(?<!\w){re.escape(got.strip(chr(39)))}(?!\w)", text):
            text = f"{text.removesuffix('.')}, not {got}"
        return f"{option}{text}".removesuffix(".") + "." + self._hint(message)

    def _hint(self, message: str) -> str:
        """Return the nearest option, subcommand, callback or choice, if the message is about an unknown one."""
        if "Did you mean" in message:
            return ""
        if found := re.search(r"unrecognized arguments: (--[\w.]+)", message, re.IGNORECASE):
            return nearest(found[1], self._options())
        if found := re.search(r"(?:option|key) '([\w.]+)'", message, re.IGNORECASE):
            return nearest(f"--{found[1]}", self._options()).replace("'--", "'")
        if found := re.search(r"invalid choice: '(\w+)'", message):
            return nearest(found[1], VERBS)
        if "trainer.callbacks" in message and (found := re.search(r"import path string: (\w+)\s", f"{message} ")):
            return nearest(found[1], [cls.__name__ for cls in _subclasses(Callback)])
        choices, found = re.findall(r"Literal\[(.*?)\]", message), re.search(r"value: (\S+)$", message)
        return nearest(found[1], re.findall(r"[\w-]+", " ".join(choices))) if choices and found else ""

    def _options(self) -> Iterator[str]:
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action.choices, dict):  # subcommands and their parsers
                for parser in action.choices.values():
                    yield from (name for inner in parser._actions for name in inner.option_strings)


def _check_file(path: Path) -> None:
    content = read_config_file(path)
    for section in (content, *(value for name, value in content.items() if name in OF_TRAINER)):
        for value in section.values() if isinstance(section, dict) else ():
            named = isinstance(value, str) and value.endswith((".yaml", ".yml")) and value != path.name
            if named and (file := path.parent / value).is_file():  # as in data: data.yaml
                read_config_file(file)


def _plain_types(line: str) -> str:
    """Replace Python's notation of types in a line of jsonargparse."""
    line = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", line)
    line = NO_COMPONENT.sub("Expected one name, or {class_path: NAME, init_args: {...}}", line.removesuffix("."))
    line = re.sub(r"Expected an? typing\.Literal\[(.*?)\]", r"Expected one of \1", line)
    return line.replace("Expected a int", "Expected an int").replace("Expected a Sequence", "Expected a list, [a, b]")


def _subclasses(cls: type) -> Iterator[type]:
    subs: list[type] = cls.__subclasses__()
    for sub in subs:
        yield sub
        yield from _subclasses(sub)
