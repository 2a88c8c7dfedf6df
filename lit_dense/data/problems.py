"""Problems of a data set, collected from all files and reported in one message."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from ..core.errors import UsageError

SHOWN = 5  # examples of each kind in a report
KEPT = "left as they are"
"""The ``repair`` of doubtful data that is not changed, because the intention is unknown."""


class DataError(UsageError):
    """Raised for data that cannot be used; the message lists every problem of every file."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem in one file.

    Args:
        path: The file or folder with the problem, or another name for the place.
        what: Description of the problem, in the plural if cases are counted ("boxes of zero size").
        repair: The repair ("dropped"); empty if there is none.
        count: Number of cases; 0 if the problem is the file itself.
        examples: The first cases, with their ids.
        cure: Advice to the user; empty if it is obvious.
        hint: Whether this is a hint instead of an error.
    """

    path: Path | str
    what: str
    repair: str
    count: int
    examples: tuple[str, ...]
    cure: str = ""
    hint: bool = False

    def text(self, fatal: bool) -> str:
        """Format the lines of a report about this problem."""
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
        hints: Findings that may be intended; only ``lit-dense check`` reports them.

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
        """Add one kind of problem.

        Args:
            path: The file or folder with the problem.
            what: Description of the problem, in the plural if cases are counted.
            details: A line about each case; only the first few are used.
            count: Number of cases. Default: the number of details.
            repair: The repair; empty if there is none, which makes the problem an error.
            cure: Advice to the user.
            hint: Whether this is a hint, which is never an error and which only ``lit-dense check`` reports.
        """
        if count is None:
            details = list(details)
            count = len(details)
        examples = tuple(itertools.islice(details, SHOWN))
        self.extend([Problem(path, what, repair, count, examples, cure, hint)])

    def extend(self, found: Iterable[Problem]) -> None:
        """Add problems that are not in the collection yet."""
        for problem in found:
            known = self.hints if problem.hint else self.found
            if problem not in known:
                known.append(problem)

    def errors(self, strict: bool) -> list[Problem]:
        """Return the problems that make the data unusable: those without a repair, or all if ``strict``."""
        return [problem for problem in self.found if strict or not problem.repair]

    def report(self, strict: bool) -> str:
        """Format all problems by file; an exclamation mark marks errors."""
        return _by_file(self.found, self.errors(strict))

    def report_hints(self) -> str:
        """Format all hints by file."""
        return _by_file(self.hints, [])

    def settle(self, strict: bool) -> None:
        """Raise an error if the data cannot be used; otherwise warn once about all problems.

        Raises:
            DataError: There are problems without a repair, or any problems if ``strict``.
        """
        if errors := self.errors(strict):
            head = "The data cannot be used"
            if len(self.found) == 1 and not strict and not errors[0].examples:
                cure = f" Cure: {errors[0].cure}." if errors[0].cure else ""
                raise DataError(f"{head}: {errors[0].path}: {errors[0].what}.{cure}")
            if errors[0].examples:  # repeats the reason in the first line, because the report is long
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
