"""Reading of YAML in which a key that is given twice is an error; PyYAML silently keeps the last value."""

from pathlib import Path
from typing import Any

import yaml

from .errors import UsageError, line_of

MERGE = "tag:yaml.org,2002:merge"
NOT_A_CONFIGURATION = "write the sections model, data and trainer, such as 'model: {loss: focal}'"


class RepeatedKeyError(yaml.YAMLError):  # type: ignore[misc]  # yaml has no types
    """A mapping has one key twice.

    Args:
        key: The key.
        first: The line where it is given first, from 1.
        again: The line where it is given again, from 1.
    """

    def __init__(self, key: str, first: int, again: int) -> None:
        super().__init__(f"line {again}: the key {key} was given in line {first} already")
        self.key, self.first, self.again = key, first, again


class UniqueKeyLoader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML's safe loader, which refuses repeated keys; keys that ``<<`` merges can be given again."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode | None:
        """Compose a mapping and compare its keys, before other mappings are merged into it.

        Args:
            anchor: The anchor of the mapping.

        Raises:
            RepeatedKeyError: A key is given twice.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value if node else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    raise RepeatedKeyError(key.value, lines[name], line)
                lines[name] = line
        return node


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Args:
        text: The text.

    Raises:
        RepeatedKeyError: A mapping has one key twice.
        yaml.YAMLError: The text is not YAML.
    """
    return yaml.load(text, Loader=UniqueKeyLoader)


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the content of a configuration file.

    Args:
        path: The file.

    Raises:
        UsageError: It cannot be read, is not text in UTF-8, is not YAML, has a key twice, or has no keys.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = load_yaml(text)
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} in line {line_of(error)}"
        raise UsageError(f"{path}: not UTF-8 text ({byte}); save the file as UTF-8.") from error
    except OSError as error:
        raise UsageError(f"{path}: the configuration cannot be read: {error.strerror}.") from error
    except RepeatedKeyError as error:
        raise UsageError(f"{path}, {error}; keep one of them, or merge them.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageError(f"{path}{where}: not YAML: {error.problem}.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}.") from error
    if isinstance(content, dict):
        return content
    found = "the file is empty" if content is None else "it holds no keys"
    raise UsageError(f"{path}: not a configuration: {found}; {NOT_A_CONFIGURATION}.")
