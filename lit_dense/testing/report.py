"""Runs named checks, collects what they found, and says it in one error."""

import os
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ..core.errors import UsageError

NO_PLACE = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).with_name("host_sync.py")))
"""Files of which no line is a place: torch's, and the one that watches torch."""


class Fault(NamedTuple):
    """One thing that a check found wrong.

    Args:
        expected: What should be.
        seen: What is.
        remedy: What to do about it.
    """

    expected: str
    seen: str
    remedy: str


class NotRun(NamedTuple):
    """A check's answer where it cannot be made.

    Args:
        reason: Why.
    """

    reason: str


Finding = Fault | NotRun
SubjectT = TypeVar("SubjectT")
Check = Callable[[SubjectT], Iterable[Finding]]


class CheckFailure(AssertionError):  # noqa: N818 (what failed is the loss)
    """At least one check failed; the message lists each, and those that passed.

    Attributes:
        failed: What each failed check found, by its name.
        passed: Names of those that found nothing.
        skipped: Reasons of those that were not made, by name.
    """

    def __init__(
        self, title: str, failed: Mapping[str, list[Fault]], passed: list[str], skipped: Mapping[str, str]
    ) -> None:
        self.failed, self.passed, self.skipped = dict(failed), passed, dict(skipped)
        made = len(self.failed) + len(passed)
        lines = [f"{title}: {len(self.failed)} of {made} checks failed."]
        for name, faults in self.failed.items():
            for fault in faults:
                lines += ["", f"FAILED {name}"]
                lines += [f"  {label}: {text}" for label, text in zip(_LABELS, fault, strict=True)]
        lines += ["", f"passed: {', '.join(passed) or 'none'}"]
        lines += [f"skipped: {name} ({reason})" for name, reason in self.skipped.items()]
        super().__init__("\n".join(lines))


_LABELS = ("expected", "seen    ", "to do   ")


def run_checks(
    title: str,
    subject: SubjectT,
    checks: Mapping[str, Check[SubjectT]],
    skip: Collection[str],
) -> None:
    """Make all checks, whatever the others found.

    Args:
        title: What is checked, for the report.
        subject: What each check is given.
        checks: Checks by name; an exception of one is what it found.
        skip: Names of checks that are not made.

    Raises:
        UsageError: If a name to skip is none of the checks'.
        CheckFailure: If a check found something.
    """
    if unknown := sorted(set(skip) - checks.keys()):
        raise UsageError(f"Unknown check {', '.join(map(repr, unknown))}. The checks are {', '.join(checks)}.")
    failed: dict[str, list[Fault]] = {}
    passed: list[str] = []
    skipped = {name: "the caller asked for it" for name in checks if name in skip}
    for name, check in checks.items():
        if name in skipped:
            continue
        findings = _findings(name, check, subject)
        faults = [f for f in findings if isinstance(f, Fault)]
        reasons = [f.reason for f in findings if isinstance(f, NotRun)]
        if faults:
            failed[name] = faults
        elif reasons:
            skipped[name] = reasons[0]
        else:
            passed.append(name)
    if failed:
        raise CheckFailure(title, failed, passed, skipped)


def _findings(name: str, check: Check[SubjectT], subject: SubjectT) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(subject))
    except Exception as error:  # whatever a stranger's loss raises
        seen = f"{type(error).__name__}: {str(error).strip()} ({place(traceback.extract_tb(error.__traceback__))})"
        found.append(Fault("no error", seen, f"make it work on what the check {name!r} gives it"))
    return found


def place(stack: traceback.StackSummary) -> str:
    """The innermost line of a stack that is not torch's."""
    for frame in reversed(stack):
        if not frame.filename.startswith(NO_PLACE):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "within torch"
