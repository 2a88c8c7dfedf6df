"""``lit-dense compare``: several configurations trained at equal budget, and one report of what differs.

* :mod:`~lit_dense.compare.command`: the words of the command.
* :mod:`~lit_dense.compare.plan`: which runs there are, and what each is; :mod:`~lit_dense.compare.configuration` reads
  their configurations.
* :mod:`~lit_dense.compare.worker`: one run, in a process of its own, watched by :mod:`~lit_dense.compare.recorder`.
* :mod:`~lit_dense.compare.local` and :mod:`~lit_dense.compare.ray_tune`: where these processes run.
* :mod:`~lit_dense.compare.results`: what the runs left on disk, all that the report is made from.
* :mod:`~lit_dense.compare.statistics`: which differences are larger than the noise.
* :mod:`~lit_dense.compare.report`, with :mod:`~lit_dense.compare.sections` and :mod:`~lit_dense.compare.figures`:
  what is written of it.
"""
