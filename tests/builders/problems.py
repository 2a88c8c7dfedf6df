"""Problems that checks of data find."""

from lit_dense.data.problems import Problems


def problems_of(check, *arguments):
    """What a check notes."""
    problems = Problems()
    check(*arguments, problems)
    return problems


def whats(problems):
    return [problem.what for problem in problems.found]
