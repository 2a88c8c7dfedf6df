"""The kit over set predictors: what an adapter must do is what it must do for other detectors."""

import pytest

pytest.importorskip("transformers")

from lit_dense.testing import check_detector
from tests.builders import set_predictors as models
from tests.builders.kit import CHECKS

ATTACHING = {"found", "own_loss", "own_detections", "random_stream", "copies", "removal", "steps_counted", "offers"}
QUICK = ("detr",)
SAME_LOSS = ("conditional_detr", "dab_detr", "deformable_detr", "lw_detr", "rf_detr", "rt_detr_denoising")
"""Models of which all but how the adapter is attached follows from the others."""
ALL = (*QUICK, *SAME_LOSS, "d_fine", "d_fine_denoising", "rt_detr", "rt_detr_v2", "rt_detr_v2_denoising")


def check(name, skip, **how):
    make = getattr(models, name)
    own = [models.losses_of, models.detections_of]
    check_detector("transformers", make, *own, skip=skip, of_process=["boxes"], **how)


@pytest.mark.ddp
@pytest.mark.parametrize("name", QUICK)
def test_check_detector__adapters_pass(name, two_processes):
    check(name, ["combinations"], two_processes=two_processes)


@pytest.mark.ddp
def test_check_detector__rt_detr_trains_in_two_processes_as_in_one(two_processes):
    check("rt_detr", set(CHECKS) - {"two_processes"}, two_processes=two_processes)


@pytest.mark.parametrize("name", SAME_LOSS)
def test_check_detector__adapters_of_similar_models_attach(name):
    check(name, set(CHECKS) - ATTACHING)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("name", sorted(set(ALL) - set(QUICK)))
def test_check_detector__adapters_of_similar_models_pass(name, two_processes):
    # the number of denoising queries follows from what a process holds
    skip = ["combinations"] + ["two_processes"] * name.endswith("denoising")
    check(name, skip, two_processes=two_processes)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*QUICK, "rt_detr"])
def test_check_detector__every_combination_of_parts_trains_or_is_refused(name):
    check(name, set(CHECKS) - {"combinations"})
