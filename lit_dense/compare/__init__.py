"""``lit-dense compare``: trains several configurations at equal budget and writes one report of the differences.

* :mod:`~lit_dense.compare.command`: the command-line arguments and the order of the steps.
* :mod:`~lit_dense.compare.plan`: the list of runs; :mod:`~lit_dense.compare.configuration` reads their configurations.
* :mod:`~lit_dense.compare.worker`: the process of one run; :mod:`~lit_dense.compare.recorder` records its results.
* :mod:`~lit_dense.compare.local_processes`, :mod:`~lit_dense.compare.ray_tune`: start these processes here or on Ray.
* :mod:`~lit_dense.compare.committed`: results in files for a repository; :mod:`~lit_dense.compare.provenance` computes
  digests of code and data, and :mod:`~lit_dense.compare.joining` joins results of several machines.
* :mod:`~lit_dense.compare.results`: reads the files of the runs, the only input of the report.
* :mod:`~lit_dense.compare.statistics`: separates differences from noise; :mod:`~lit_dense.compare.curves` judges
  whether learning curves are flat.
* :mod:`~lit_dense.compare.report`, with :mod:`~lit_dense.compare.sections` and :mod:`~lit_dense.compare.figures`:
  write the report.
"""
