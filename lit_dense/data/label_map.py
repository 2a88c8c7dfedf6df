"""The identity of classes: which column of a model's head each label of a data set is, by category id and name."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError, nearest

Categories = Sequence[Mapping[str, Any]]
"""``id`` and ``name`` of each label or column; a name of "" says that nothing has this label."""

LABEL_FIELDS = ("labels", "neg_labels", "not_exhaustive_labels")
NO_CLASS = ("", "N/A", "__background__")  # names of columns that stand for nothing, the last two torchvision's
SHOWN = 20  # names in a list of a message
MOST_REASONS = 5


@dataclass(frozen=True)
class LabelMap:
    """Which column of the head each label of a data set is.

    Batches and results carry the data's labels; logits, losses and their state are in the order of the columns. The
    map translates where the two meet.

    Args:
        num_columns: Classes of the head C.
        columns: The column of each label, -1 for a label that nothing has [K]. None: labels are columns.
        categories: ``id`` and ``name`` of each label; None where they are not known.
        note: What a user should know of the match, in one line; empty where there is nothing to say.
        problem: Why the data cannot be used with the model; empty where it can.
    """

    num_columns: int
    columns: tuple[int, ...] | None = None
    categories: list[dict[str, Any]] | None = None
    note: str = ""
    problem: str = ""

    @property
    def num_labels(self) -> int:
        """Number of labels that the data may use."""
        return self.num_columns if self.columns is None else len(self.columns)

    @property
    def is_identity(self) -> bool:
        """Whether every label is its own column, and every column a label."""
        return self.columns is None or self.columns == tuple(range(self.num_columns))

    def check(self) -> None:
        """Raise an error if the data cannot be used with the model.

        Raises:
            UsageError: If its classes are not the model's; it lists both and says what to do.
        """
        if self.problem:
            raise UsageError(self.problem)

    def in_columns(self, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Targets whose labels are columns, for the losses.

        Args:
            targets: Targets with the data's labels, in any of ``labels``, ``neg_labels`` and ``not_exhaustive_labels``.

        Raises:
            UsageError: If the data cannot be used with the model.
        """
        self.check()
        if self.columns is None or self.is_identity:
            return targets
        columns = torch.tensor(self.columns)
        return [{name: _look_up(columns, v) if name in LABEL_FIELDS else v for name, v in t.items()} for t in targets]

    def in_labels(self, detections: dict[str, Tensor]) -> dict[str, Tensor]:
        """Detections with the data's labels; those of classes that the data does not have are left out, as in COCO.

        Args:
            detections: ``labels`` [N], which are columns, and other tensors of as many rows.

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
        found = {**detections, "labels": _look_up(label_of, detections["labels"])}
        keep = found["labels"] >= 0
        return {name: rows[keep] for name, rows in found.items()}

    def of_labels(self, values: Sequence[int]) -> list[int]:
        """The numbers of the data's labels among those of the columns; 0 where a label has no column or no number.

        Args:
            values: A number for each column; later columns may be missing.
        """
        columns = range(self.num_columns) if self.columns is None else self.columns
        return [values[column] if 0 <= column < len(values) else 0 for column in columns]


def offered_categories(data: Any) -> list[dict[str, Any]] | None:
    """The categories that a data module offers; None where it offers none.

    Args:
        data: Any object, None included. Its attribute ``categories`` is read if it is a list of mappings with ``id``
            and ``name``, one for each label; anything else says nothing of the labels.
    """
    offered = getattr(data, "categories", None)
    if not isinstance(offered, Sequence) or isinstance(offered, str) or not offered:
        return None
    if not all(isinstance(c, Mapping) and isinstance(c.get("name"), str) and "id" in c for c in offered):
        return None
    return [{"id": c["id"], "name": c["name"]} for c in offered]


def label_categories(module: Any) -> list[dict[str, Any]] | None:
    """``id`` and ``name`` of each label in the batches and results of any module; None where it does not know them."""
    return getattr(module, "data_categories", None) or getattr(module, "categories", None)


def match_labels(known: Categories | None, offered: Categories | None, num_columns: int) -> LabelMap:
    """Match the data's labels with a model's columns.

    A class is the same where id and name are, or else where the name is and no other column has it. The data may have
    some of the model's classes, under other ids and in any order. A class that the model does not know is a problem,
    and so are two classes of the data that are one class of the model's.

    Args:
        known: What the columns stand for, C of them or fewer; None where the model does not know.
        offered: What the data's labels stand for [K]; None where the data does not say.
        num_columns: Classes of the head C.

    Returns:
        The map, with ``problem`` set where there is no match.
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
    """The column of a category, of those with its name; -1 where there is none, or several and none has its id."""
    if not category["name"]:
        return -1
    exact = [column for column in same if known[column]["id"] == category["id"]]
    return exact[0] if exact else same[0] if len(same) == 1 else -1


def _mismatch(known: Categories, offered: Categories, columns: Sequence[int]) -> str:
    """Why the data's classes are not those of the model, in one line; empty where they are."""
    strange = [c for c, column in zip(offered, columns, strict=True) if column < 0 and c["name"]]
    counts = Counter(column for column in columns if column >= 0)
    reasons = [_reason(category, known) for category in strange]
    for column in (column for column, number in counts.items() if number > 1):
        both = [c for c, of in zip(offered, columns, strict=True) if of == column]
        reasons.append(f"{_named(both)} of the data are one class of the model, {_named([known[column]])}.")
    if not reasons:
        return ""
    if len(reasons) > MOST_REASONS:
        reasons[MOST_REASONS:] = [f"And {len(reasons) - MOST_REASONS} more."]
    return (
        f"The data's classes are not those of the model. {' '.join(reasons)} "
        f"The model has {_named(known)}. The data has {_named(offered)}. Where they are the same classes, give them "
        "the model's names in the annotation file; ids and order do not matter. To train on other classes, start "
        "without the checkpoint; with torchvision's weights, give another num_classes."
    )


def _reason(category: Mapping[str, Any], known: Categories) -> str:
    """What is wrong with a category that has no column: a sentence or two."""
    name, number = category["name"], category["id"]
    same = sum(k["name"] == name for k in known)
    if same:
        return f"The model has {same} classes named {name!r}, none of them with the id {number}."
    alike = [k["name"] for k in known if k["name"] and _folded(k["name"]) == _folded(name)]
    if alike:
        return f"{name!r} (id {number}) differs from the model's {alike[0]!r} in case or spaces only."
    other = next((k["name"] for k in known if k["id"] == number and k["name"]), None)
    there = f"; its id {number} is {other!r}" if other else ""
    names = [k["name"] for k in known if k["name"] not in NO_CLASS]
    return f"The model does not know {name!r} (id {number}){there}.{nearest(name, names)}"


def _difference(known: Categories, offered: Categories, columns: Sequence[int]) -> str:
    """What is different though the classes match, in one line; empty where it is only labels that nothing has."""
    pairs = [(c, known[column]) for c, column in zip(offered, columns, strict=True) if column >= 0]
    moved = [(mine, theirs) for mine, theirs in pairs if mine["id"] != theirs["id"]]
    said = []
    if moved:
        said.append(
            f"The data's classes are matched with the model's by name, for their ids differ: the data has "
            f"{_named([mine for mine, _ in moved])}, the model {_named([theirs for _, theirs in moved])}. Results are "
            "written with the data's ids."
        )
    missing = [k for column, k in enumerate(known) if column not in columns and k["name"] not in NO_CLASS]
    if missing:
        said.append(
            f"Of the model's {len(pairs) + len(missing)} classes the data does not have {_quoted(missing)}: they are "
            "not evaluated, their detections are left out, and training takes their objects for background."
        )
    used = [column for column in columns if column >= 0]
    if not said and used != sorted(used):
        said.append("The data has the model's classes in another order: its labels are mapped.")
    return " ".join(said)


def _nameless(offered: Categories, num_columns: int) -> str:
    return (
        f"The model knows that it has {num_columns} classes, and not their names: the data's labels are taken for its "
        f"columns as they are, {_named(offered)} for columns 0 to {len(offered) - 1}."
    )


def _too_many(offered: Categories, num_columns: int) -> str:
    return (
        f"The data has {len(offered)} classes, but num_classes={num_columns}: the head has no column for "
        f"{offered[num_columns]['name']!r} and what follows. The data has {_named(offered)}."
    )


def _named(categories: Categories) -> str:
    """Ids and names in one line; of many the first."""
    real = [c for c in categories if c["name"]]
    more = f" and {len(real) - SHOWN} more" if len(real) > SHOWN else ""
    return ", ".join(f"{c['id']} {c['name']}" for c in real[:SHOWN]) + more


def _quoted(categories: Categories) -> str:
    more = f" and {len(categories) - SHOWN} more" if len(categories) > SHOWN else ""
    return ", ".join(repr(c["name"]) for c in categories[:SHOWN]) + more


def _folded(name: str) -> str:
    """A name without case, spaces and the ways to code an accent."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _copied(categories: Categories | None) -> list[dict[str, Any]] | None:
    return None if categories is None else [dict(c) for c in categories]


def _look_up(table: Tensor, labels: Tensor) -> Tensor:
    """The table's entry for each label, of the labels' type [N]."""
    return table.to(labels.device)[labels].to(labels.dtype)


def unique_names(categories: Categories) -> list[str]:
    """A name for each label: categories may share one, and labels that no category uses have none."""
    names = [c["name"] or f"unused {c['id']}" for c in categories]
    return [f"{name} ({c['id']})" if names.count(name) > 1 else name for name, c in zip(names, categories, strict=True)]
