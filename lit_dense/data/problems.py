"""Problems found in a data set, collected over all of its files and told in one message."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from ..core.errors import UsageError

SHOWN = 5  # examples of each kind in a report
KEPT = "left as they are"
"""The repair of what may be wrong but cannot be repaired without knowing what was meant."""


class DataError(UsageError):
    """Data that cannot be used; the message lists every problem of every file."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem in one file.

    Args:
        path: The file or folder it was found in, or another name for the place.
        what: What is wrong, in the plural where things are counted ("boxes of zero size").
        repair: What is done about it ("dropped"); empty where nothing can be done.
        count: How many things are wrong, 0 where it is the file itself.
        examples: The first few of them, with their ids.
        cure: What the user can do about it; empty where that is plain.
        hint: It is no fault, but worth a look.
    """

    path: Path | str
    what: str
    repair: str
    count: int
    examples: tuple[str, ...]
    cure: str = ""
    hint: bool = False

    def text(self, fatal: bool) -> str:
        """The lines of a report about this problem."""
        head = f"  {'!' if fatal else '-'} {self.what}"
        if self.count:
            head += f": {self.count:,}"
        if self.repair and not fatal:
            head += f" ({self.repair})"
        more = self.count - len(self.examples)
        rest = [f"and {more:,} more"] if self.examples and more > 0 else []
        cure = [f"cure: {self.cure}"] if self.cure else []
        return "\n".join([head, *(f"      {line}" for line in (*self.examples, *rest, *cure))])


class Problems:
    """All problems of a data set.

    Attributes:
        found: The problems, in the order in which they were found.
        hints: What is no fault, but worth a look; only ``lit-dense check`` tells it.

    Example:
        >>> problems = Problems()
        >>> problems.add(Path("a.json"), "boxes of zero size", ["annotation 7"], repair="dropped")
        >>> print(problems.report(strict=False))
        a.json
          - boxes of zero size: 1 (dropped)
              annotation 7
    """

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.hints: list[Problem] = []

    def add(
        self,
        path: Path | str,
        what: str,
        details: Iterable[str] = (),
        *,
        count: int | None = None,
        repair: str = "",
        cure: str = "",
        hint: bool = False,
    ) -> None:
        """Notes one kind of problem.

        Args:
            path: The file or folder it was found in.
            what: What is wrong, in the plural where things are counted.
            details: A line about each thing; only the first few are drawn.
            count: How many things there are. Default: the number of details.
            repair: What is done about it; empty where nothing can be done, which makes it an error.
            cure: What the user can do about it.
            hint: It is no fault, but worth a look: never an error, and told by ``lit-dense check`` alone.
        """
        if count is None:
            details = list(details)
            count = len(details)
        examples = tuple(itertools.islice(details, SHOWN))
        self.extend([Problem(path, what, repair, count, examples, cure, hint)])

    def extend(self, found: Iterable[Problem]) -> None:
        """Notes problems that were found elsewhere, each once."""
        for problem in found:
            noted = self.hints if problem.hint else self.found
            if problem not in noted:
                noted.append(problem)

    def errors(self, strict: bool) -> list[Problem]:
        """Those that forbid using the data: the ones without a repair, or all of them where ``strict``."""
        return [problem for problem in self.found if strict or not problem.repair]

    def report(self, strict: bool) -> str:
        """All problems, file by file; those that forbid using the data carry an exclamation mark."""
        return _by_file(self.found, self.errors(strict))

    def report_hints(self) -> str:
        """All hints, file by file."""
        return _by_file(self.hints, [])

    def settle(self, strict: bool) -> None:
        """Raises where the data cannot be used, and warns once where it was repaired.

        Raises:
            DataError: There are problems without a repair, or any at all where ``strict``.
        """
        if errors := self.errors(strict):
            head = "The data cannot be used"
            if len(self.found) == 1 and not strict and not errors[0].examples:
                raise DataError(f"{head}: {errors[0].path}: {errors[0].what}.")
            if errors[0].examples:  # in many lines the reason is easily overlooked
                head += f": {errors[0].what}"
            reason = "strict=True repairs nothing" if strict else "! marks what cannot be repaired"
            raise DataError(f"{head} ({reason}):\n{self.report(strict)}")
        if self.found:
            repaired = any(problem.repair != KEPT for problem in self.found)
            head = "The data was repaired" if repaired else "The data has problems"
            rank_zero_warn(f"{head} (strict=True makes this an error):\n{self.report(strict)}")


def _by_file(found: list[Problem], errors: list[Problem]) -> str:
    lines = []
    for path in dict.fromkeys(problem.path for problem in found):
        lines.append(str(path))
        lines += [problem.text(problem in errors) for problem in found if problem.path == path]
    return "\n".join(lines)
