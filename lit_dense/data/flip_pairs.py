"""Classes that become another class in a mirrored image, such as left and right arrows."""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..core.errors import UsageError, nearest
from .coco_data import Category
from .problems import Problems

SIDES = (
    ("left", "right"),
    ("l", "r"),
    ("links", "rechts"),
    ("linker", "rechter"),
    ("linke", "rechte"),
    ("gauche", "droite"),
    ("izquierda", "derecha"),
    ("izquierdo", "derecho"),
    ("esquerda", "direita"),
    ("sinistra", "destra"),
    ("sol", "sag"),
    ("lewo", "prawo"),
    ("lewy", "prawy"),
)
"""Words for left and right in names of classes."""

FlipPairs = Sequence[Sequence[str]]
"""Pairs of names of classes."""


def check_flip_pairs(pairs: FlipPairs | None) -> list[tuple[str, str]]:
    """Return pairs of names, if they have the right form.

    Args:
        pairs: The pairs, or None for none.

    Raises:
        UsageError: An entry is not a pair of different names, or a name is in two pairs.
    """
    if pairs is None:
        return []
    for pair in pairs:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
            raise UsageError(f"flip_pairs is a list of pairs of class names, such as [[left, right]], not {pair!r}.")
    names = [name for pair in pairs for name in pair]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"flip_pairs has the class {twice!r} in two pairs: a class has one mirror image.")
    return [(first, second) for first, second in pairs]


def mirrored_labels(pairs: Sequence[tuple[str, str]], categories: Sequence[Category]) -> Tensor | None:
    """Return the label that each label becomes in a mirrored image [C]; None if there are no pairs.

    Args:
        pairs: Pairs of names.
        categories: The category of each label.

    Raises:
        UsageError: There is no class of a name, or there are several.
    """
    if not pairs:
        return None
    names = [category["name"] for category in categories]
    table = torch.arange(len(names))
    for pair in pairs:
        for name in pair:
            if names.count(name) != 1:
                number = "no class" if name not in names else f"{names.count(name)} classes"
                raise UsageError(f"flip_pairs: the data has {number} of the name {name!r}.{nearest(name, names)}")
        first, second = map(names.index, pair)
        table[first], table[second] = second, first
    return table


def note_sides(
    categories: Sequence[Category], pairs: Sequence[tuple[str, str]], where: str, problems: Problems
) -> None:
    """Report classes whose names say left or right and that flips do not change.

    Args:
        categories: The category of each label.
        pairs: The known pairs of names.
        where: The files of the categories, for the report.
        problems: A hint is added to it.
    """
    known = {name for pair in pairs for name in pair}
    names = [category["name"] for category in categories if category["name"] not in known]
    found = dict(_sided(names))
    if not found:
        return
    suggested = sorted({tuple(sorted((name, other))) for name, other in found.items() if other})
    shown = ", ".join(f"[{first}, {second}]" for first, second in suggested)
    cure = f"set data.flip_pairs to [{shown}], so that a flip exchanges them; or leave" if suggested else "leave"
    problems.add(
        where,
        "names of classes that a mirrored image may change",
        [f"{name!r}, mirrored {other!r}" if other else repr(name) for name, other in found.items()],
        cure=f"if a mirrored object belongs to another class, {cure} RandomHorizontalFlip out of data.transforms",
        hint=True,
    )


def _sided(names: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each name that contains a side, with the name of its mirror image; None if there is no such class."""
    by_words: Mapping[tuple[str, ...], str] = {_words(name): name for name in names}
    for words, name in by_words.items():
        for left, right in SIDES:
            swapped = tuple({left: right, right: left}.get(word, word) for word in words)
            other = by_words.get(swapped)
            # short words mean a side only if both classes exist: "r" or "sol" can be anything
            if swapped != words and (other or min(len(left), len(right)) > 3):
                yield name, other
                break


def _words(name: str) -> tuple[str, ...]:
    """Split a name into lower-case words: at spaces, hyphens and underscores, and before capital letters."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(re.split(r"[\W_]+", spaced.casefold()))
