"""A runner for named checks that reports all failures in one error."""

import os
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ..core.errors import UsageError

NO_PLACE = (str(Path(torch.__file__).parent) + os.sep, str(Path(__file__).with_name("host_sync.py")))
"""Files whose lines are skipped when a source line is located: torch's, and the one that traces torch."""


class Fault(NamedTuple):
    """One failure that a check found.

    Args:
        expected: The expected result.
        seen: The seen result.
        remedy: Advice to the author.
    """

    expected: str
    seen: str
    remedy: str


class NotRun(NamedTuple):
    """The result of a check that cannot run.

    Args:
        reason: The reason.
    """

    reason: str


Finding = Fault | NotRun
SubjectT = TypeVar("SubjectT")
Check = Callable[[SubjectT], Iterable[Finding]]


class CheckFailure(AssertionError):  # noqa: N818 (what failed is the loss)
    """Raised if at least one check failed; the message lists failed, passed and skipped checks.

    Attributes:
        failed: The faults of each failed check, by name.
        passed: Names of passed checks.
        skipped: Reasons of skipped checks, by name.
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
    """Run all checks, even after failures.

    Args:
        title: Title of the report.
        subject: The argument of each check.
        checks: Checks by name; an exception in a check counts as a fault.
        skip: Names of checks to skip.

    Raises:
        UsageError: If a name in ``skip`` is unknown.
        CheckFailure: If a check found a fault.
    """
    if unknown := sorted(set(skip) - checks.keys()):
        raise UsageError(f"Unknown check {', '.join(map(repr, unknown))}. The checks are {', '.join(checks)}.")
    failed: dict[str, list[Fault]] = {}
    passed: list[str] = []
    skipped = {name: "requested by the caller" for name in checks if name in skip}
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
    findings: list[Finding] = []
    try:
        findings.extend(check(subject))
    except Exception as error:  # code under test may raise any error
        seen = f"{type(error).__name__}: {str(error).strip()} ({place(traceback.extract_tb(error.__traceback__))})"
        findings.append(Fault("no error", seen, f"make it work with the inputs of the check {name!r}"))
    return findings


def place(stack: traceback.StackSummary) -> str:
    """Return the innermost source line of a stack outside torch."""
    for frame in reversed(stack):
        if not frame.filename.startswith(NO_PLACE):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return "within torch"
