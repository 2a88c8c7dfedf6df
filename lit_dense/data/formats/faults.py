"""A collection of the faults of many files, by kind."""

from pathlib import Path

from ..problems import SHOWN, Problems


class Faults:
    """The faults that a reader finds line by line, grouped by kind, so that each kind becomes one problem."""

    def __init__(self) -> None:
        self._examples: dict[tuple[str, str], list[str]] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._cures: dict[str, str] = {}

    def add(self, what: str, repair: str, detail: str, cure: str = "") -> None:
        """Add one fault.

        Args:
            what: Description of the kind, in the plural.
            repair: The repair; empty if there is none.
            detail: File, line and content.
            cure: Advice to the user, the same for all faults of the kind.
        """
        key = what, repair
        self._counts[key] = self._counts.get(key, 0) + 1
        if len(examples := self._examples.setdefault(key, [])) < SHOWN:
            examples.append(detail)
        self._cures[what] = cure

    def make_error(self, what: str, found: str, cure: str) -> None:
        """Turn the faults of one kind into an error, because all of them together show their cause.

        Args:
            what: The kind, which was added with one repair.
            found: The new description of the kind.
            cure: The new advice.
        """
        for key in [key for key in self._counts if key[0] == what]:
            self._counts[found, ""] = self._counts.pop(key)
            self._examples[found, ""] = self._examples.pop(key)
            self._cures[found] = cure

    def report(self, path: Path, problems: Problems) -> None:
        """Add one problem for each kind.

        Args:
            path: The file or folder that the problems are reported for.
            problems: The problems are added to it.
        """
        for (what, repair), examples in self._examples.items():
            count = self._counts[what, repair]
            problems.add(path, what, examples, count=count, repair=repair, cure=self._cures[what])
