"""Class matching: maps the labels of a data set to the columns of a model's head, by category id and name."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.batch_format import CLASS_LISTS
from ..core.errors import UsageError, nearest

Categories = Sequence[Mapping[str, Any]]
"""``id`` and ``name`` of each label or column; the name "" marks a label that no category uses."""

LABEL_FIELDS = ("labels", *CLASS_LISTS)
NO_CLASS = ("", "N/A", "__background__")  # names of unused columns; the last two are torchvision's
SHOWN = 20  # most names in one list of a message
MOST_REASONS = 5


@dataclass(frozen=True)
class LabelMap:
    """A map from the labels of a data set to the columns of the head.

    Batches and results use the data's labels. Logits, losses and their state use the order of the columns. The map
    translates between the two.

    Args:
        num_columns: Number of classes of the head C.
        columns: The column of each label, -1 for an unused label [K]. None: labels are columns.
        categories: ``id`` and ``name`` of each label; None if they are not known.
        note: A note for the user about the match, in one line; empty if there is none.
        problem: The reason why the data cannot be used with the model; empty if it can.
    """

    num_columns: int
    columns: tuple[int, ...] | None = None
    categories: list[dict[str, Any]] | None = None
    note: str = ""
    problem: str = ""

    @property
    def num_labels(self) -> int:
        """The number of labels that the data may use."""
        return self.num_columns if self.columns is None else len(self.columns)

    @property
    def is_identity(self) -> bool:
        """True if every label is its own column and every column is a label."""
        return self.columns is None or self.columns == tuple(range(self.num_columns))

    def check(self) -> None:
        """Raise an error if the data cannot be used with the model.

        Raises:
            UsageError: If the data's classes are not the model's; the message lists both and the solutions.
        """
        if self.problem:
            raise UsageError(self.problem)

    def in_columns(self, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Convert the labels of targets to columns, for the losses.

        Args:
            targets: Targets with the data's labels, in any of ``labels`` and the lists of classes.

        Raises:
            UsageError: If the data cannot be used with the model.
        """
        self.check()
        if self.columns is None or self.is_identity:
            return targets
        columns = torch.tensor(self.columns)
        return [{name: _look_up(columns, v) if name in LABEL_FIELDS else v for name, v in t.items()} for t in targets]

    def in_labels(self, detections: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert columns of detections to the data's labels; detections of classes without a label are dropped.

        Args:
            detections: ``labels`` [N], which are columns, and other tensors with N rows.

        Raises:
            UsageError: If the data cannot be used with the model.
        """
        self.check()
        if self.columns is None or self.is_identity:
            return detections
        label_of = torch.full((self.num_columns,), -1)
        for label, column in enumerate(self.columns):
            if column >= 0:
                label_of[column] = label
        mapped = {**detections, "labels": _look_up(label_of, detections["labels"])}
        keep = mapped["labels"] >= 0
        return {name: rows[keep] for name, rows in mapped.items()}

    def of_labels(self, values: Sequence[int]) -> list[int]:
        """Select the value of each label from the values of the columns; 0 for a label without a column or value.

        Args:
            values: A value for each column; the last columns may be missing.
        """
        columns = range(self.num_columns) if self.columns is None else self.columns
        return [values[column] if 0 <= column < len(values) else 0 for column in columns]


def offered_categories(data: Any) -> list[dict[str, Any]] | None:
    """Return the categories of a data module; None if it has none.

    Args:
        data: Any object or None. Its attribute ``categories`` is used if it is a list of mappings with ``id`` and
            ``name``, one for each label; anything else is ignored.
    """
    offered = getattr(data, "categories", None)
    if not isinstance(offered, Sequence) or isinstance(offered, str) or not offered:
        return None
    if not all(isinstance(c, Mapping) and isinstance(c.get("name"), str) and "id" in c for c in offered):
        return None
    return [{"id": c["id"], "name": c["name"]} for c in offered]


def label_categories(module: Any) -> list[dict[str, Any]] | None:
    """Return ``id`` and ``name`` of each label in a module's batches and results; None if the module has none."""
    return getattr(module, "data_categories", None) or getattr(module, "categories", None)


def match_labels(known: Categories | None, offered: Categories | None, num_columns: int) -> LabelMap:
    """Match the data's labels with a model's columns.

    A label and a column match if id and name are equal, or if the name is equal and unique among the columns. The data
    may have a subset of the model's classes, with other ids and in any order. A class that the model does not have is a
    problem, and so are two classes of the data that match one class of the model.

    Args:
        known: Categories of the columns, at most C; None if the model has no names.
        offered: Categories of the data's labels [K]; None if the data has no names.
        num_columns: Number of classes of the head C.

    Returns:
        The map, with ``problem`` set if the classes do not match.
    """
    if not offered:
        columns_with_names = None if known is None or len(known) >= num_columns else tuple(range(len(known)))
        return LabelMap(num_columns, columns_with_names, _copied(known))
    if known is None or list(known) == list(offered):
        note = "" if known is not None else _nameless(offered, num_columns)
        problem = _too_many(offered, num_columns) if len(offered) > num_columns else ""
        return LabelMap(num_columns, tuple(range(len(offered))), _copied(offered), note, problem)
    named: dict[str, list[int]] = {}
    for column, category in enumerate(known):
        named.setdefault(category["name"], []).append(column)
    columns = [_column(category, known, named.get(category["name"], [])) for category in offered]
    if problem := _mismatch(known, offered, columns):
        return LabelMap(num_columns, None, _copied(offered), problem=problem)
    return LabelMap(num_columns, tuple(columns), _copied(offered), _difference(known, offered, columns))


def _column(category: Mapping[str, Any], known: Categories, same: Sequence[int]) -> int:
    """Return the column of a category among those with its name; -1 if there is none, or several without its id."""
    if not category["name"]:
        return -1
    exact = [column for column in same if known[column]["id"] == category["id"]]
    return exact[0] if exact else same[0] if len(same) == 1 else -1


def _mismatch(known: Categories, offered: Categories, columns: Sequence[int]) -> str:
    """Explain in one line why the data's classes are not those of the model; empty if they are."""
    unknown = [c for c, column in zip(offered, columns, strict=True) if column < 0 and c["name"]]
    counts = Counter(column for column in columns if column >= 0)
    reasons = [_reason(category, known) for category in unknown]
    for column in (column for column, number in counts.items() if number > 1):
        both = [c for c, of in zip(offered, columns, strict=True) if of == column]
        reasons.append(f"{_named(both)} of the data are one class of the model, {_named([known[column]])}.")
    if not reasons:
        return ""
    if len(reasons) > MOST_REASONS:
        reasons[MOST_REASONS:] = [f"And {len(reasons) - MOST_REASONS} more."]
    return (
        f"The data's classes are not those of the model. {' '.join(reasons)} "
        f"The model has {_named(known)}. The data has {_named(offered)}. If these are the same classes, use the "
        "model's names in the annotation file; ids and order do not matter. To train on other classes, start "
        "without the checkpoint; with torchvision's weights, set num_classes."
    )


def _reason(category: Mapping[str, Any], known: Categories) -> str:
    """Explain why a category has no column, in one or two sentences."""
    name, number = category["name"], category["id"]
    same = sum(k["name"] == name for k in known)
    if same:
        return f"The model has {same} classes named {name!r}, none of them with the id {number}."
    alike = [k["name"] for k in known if k["name"] and _folded(k["name"]) == _folded(name)]
    if alike:
        return f"{name!r} (id {number}) differs from the model's {alike[0]!r} in case or spaces only."
    other = next((k["name"] for k in known if k["id"] == number and k["name"]), None)
    same_id = f"; its id {number} is {other!r}" if other else ""
    names = [k["name"] for k in known if k["name"] not in NO_CLASS]
    return f"The model does not know {name!r} (id {number}){same_id}.{nearest(name, names)}"


def _difference(known: Categories, offered: Categories, columns: Sequence[int]) -> str:
    """Describe how matching classes differ, in one line; empty if they do not, except for unused labels."""
    pairs = [(c, known[column]) for c, column in zip(offered, columns, strict=True) if column >= 0]
    other_ids = [(of_data, of_model) for of_data, of_model in pairs if of_data["id"] != of_model["id"]]
    notes = []
    if other_ids:
        notes.append(
            f"The data's classes are matched with the model's by name, because their ids differ: the data has "
            f"{_named([c for c, _ in other_ids])}, the model {_named([c for _, c in other_ids])}. Results are "
            "written with the data's ids."
        )
    missing = [k for column, k in enumerate(known) if column not in columns and k["name"] not in NO_CLASS]
    if missing:
        notes.append(
            f"Of the model's {len(pairs) + len(missing)} classes the data does not have {_quoted(missing)}: they are "
            "not evaluated, their detections are dropped, and training treats their objects as background."
        )
    used = [column for column in columns if column >= 0]
    if not notes and used != sorted(used):
        notes.append("The data has the model's classes in another order: its labels are mapped.")
    return " ".join(notes)


def _nameless(offered: Categories, num_columns: int) -> str:
    return (
        f"The model has {num_columns} classes but not their names: the data's labels are used as its columns, "
        f"{_named(offered)} as columns 0 to {len(offered) - 1}."
    )


def _too_many(offered: Categories, num_columns: int) -> str:
    return (
        f"The data has {len(offered)} classes, but num_classes={num_columns}: the head has no column for "
        f"{offered[num_columns]['name']!r} and later classes. The data has {_named(offered)}."
    )


def _named(categories: Categories) -> str:
    """List ids and names in one line; at most the first ``SHOWN``."""
    real = [c for c in categories if c["name"]]
    more = f" and {len(real) - SHOWN} more" if len(real) > SHOWN else ""
    return ", ".join(f"{c['id']} {c['name']}" for c in real[:SHOWN]) + more


def _quoted(categories: Categories) -> str:
    more = f" and {len(categories) - SHOWN} more" if len(categories) > SHOWN else ""
    return ", ".join(repr(c["name"]) for c in categories[:SHOWN]) + more


def _folded(name: str) -> str:
    """Normalise a name: case, spaces and Unicode form are ignored."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _copied(categories: Categories | None) -> list[dict[str, Any]] | None:
    return None if categories is None else [dict(c) for c in categories]


def _look_up(table: Tensor, labels: Tensor) -> Tensor:
    """Return the table's entry for each label, in the labels' dtype [N]."""
    return table.to(labels.device)[labels.long()].to(labels.dtype)  # an empty list may be a float tensor


def unique_names(categories: Categories) -> list[str]:
    """Return a unique name for each label; repeated names get the id, unused labels a placeholder."""
    names = [c["name"] or f"unused {c['id']}" for c in categories]
    return [f"{name} ({c['id']})" if names.count(name) > 1 else name for name, c in zip(names, categories, strict=True)]
