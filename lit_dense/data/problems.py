"""Problems found in a data set, collected over all of its files and told in one message."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from ..errors import UsageError

SHOWN = 5  # examples of each kind in a report


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
    """

    path: Path | str
    what: str
    repair: str
    count: int
    examples: tuple[str, ...]

    def text(self, fatal: bool) -> str:
        """The lines of a report about this problem."""
        head = f"  {'!' if fatal else '-'} {self.what}"
        if self.count:
            head += f": {self.count:,}"
        if self.repair and not fatal:
            head += f" ({self.repair})"
        more = self.count - len(self.examples)
        rest = [f"and {more:,} more"] if self.examples and more > 0 else []
        return "\n".join([head, *(f"      {line}" for line in (*self.examples, *rest))])


class Problems:
    """All problems of a data set.

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

    def add(
        self, path: Path | str, what: str, details: Iterable[str] = (), *, count: int | None = None, repair: str = ""
    ) -> None:
        """Notes one kind of problem.

        Args:
            path: The file or folder it was found in.
            what: What is wrong, in the plural where things are counted.
            details: A line about each thing; only the first few are drawn.
            count: How many things there are. Default: the number of details.
            repair: What is done about it; empty where nothing can be done, which makes it an error.
        """
        if count is None:
            details = list(details)
            count = len(details)
        self.found.append(Problem(path, what, repair, count, tuple(itertools.islice(details, SHOWN))))

    def extend(self, found: Iterable[Problem]) -> None:
        """Notes problems that were found elsewhere, each once."""
        self.found += [problem for problem in found if problem not in self.found]

    def errors(self, strict: bool) -> list[Problem]:
        """Those that forbid using the data: the ones without a repair, or all of them where ``strict``."""
        return [problem for problem in self.found if strict or not problem.repair]

    def report(self, strict: bool) -> str:
        """All problems, file by file; those that forbid using the data carry an exclamation mark."""
        errors = self.errors(strict)
        lines = []
        for path in dict.fromkeys(problem.path for problem in self.found):
            lines.append(str(path))
            lines += [problem.text(problem in errors) for problem in self.found if problem.path == path]
        return "\n".join(lines)

    def settle(self, strict: bool) -> None:
        """Raises where the data cannot be used, and warns once where it was repaired.

        Raises:
            DataError: There are problems without a repair, or any at all where ``strict``.
        """
        if self.errors(strict):
            reason = "strict=True repairs nothing" if strict else "! marks what cannot be repaired"
            raise DataError(f"The data cannot be used ({reason}):\n{self.report(strict)}")
        if self.found:
            rank_zero_warn(f"The data was repaired (strict=True makes this an error):\n{self.report(strict)}")
