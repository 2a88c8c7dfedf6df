"""``lit-dense analyze``: one page about the errors of a checkpoint; its sections are also part of a comparison.

* :mod:`~lit_dense.cli.analysis.command`: the steps of the command.
* :mod:`~lit_dense.cli.analysis.loss`: a callback that observes the loss on validation images.
* :mod:`~lit_dense.cli.analysis.errors`: the errors of an evaluation, and their tables and figures.
* :mod:`~lit_dense.cli.analysis.pictures`: images of the worst errors.
* :mod:`~lit_dense.cli.analysis.page`: the page.
"""
