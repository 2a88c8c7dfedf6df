import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.training.optimization import Optimization, WarmupSchedule, build_optimizer, parameter_groups


def test_warmup_schedule__rises_and_cosine_ends_at_zero():
    schedule = WarmupSchedule(1000, "cosine", 50, ())
    factors = [schedule(step) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 51)
    assert factors[50] == 1.0
    assert factors[525] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0)
    assert factors[:51] == sorted(factors[:51])
    assert factors[50:] == sorted(factors[50:], reverse=True)


def test_warmup_schedule__multistep_falls_at_its_milestones():
    schedule = WarmupSchedule(100, "multistep", 0, (0.5, 0.8))
    assert [round(schedule(s), 4) for s in (0, 49, 50, 79, 80, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_warmup_schedule__warm_up_takes_at_most_a_tenth_of_the_run():
    assert WarmupSchedule(100, "constant", 500, ())(10) == 1.0


def test_warmup_schedule__a_run_without_end_has_no_cosine():
    with pytest.raises(UsageError, match=r"max_epochs or --trainer.max_steps, or take schedule='constant'"):
        WarmupSchedule(float("inf"), "cosine", 10, ())
    assert WarmupSchedule(float("inf"), "constant", 10, ())(20) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "step"},
            r"schedule must be one of cosine, multistep, constant, not 'step'\. Did you mean 'multistep'",
        ),
        ({"milestones": [8, 11]}, r"shares of the run in \(0, 1\), not \[8, 11\]: divide epochs by max_epochs"),
        ({"milestones": (0.0,)}, "milestones must be shares"),
        ({"milestones": (0.5, 1.0)}, "milestones must be shares"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, not -1"),
    ],
)
def test_warmup_schedule__one_that_does_not_exist_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        WarmupSchedule(**{"total_steps": 100, "name": "multistep", "warmup_steps": 0, "milestones": (), **arguments})


def test_build_optimizer__one_that_does_not_exist_is_refused():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}]
    assert type(build_optimizer("sgd", groups, 0.1)) is torch.optim.SGD
    assert type(build_optimizer("adamw", groups, 0.1)) is torch.optim.AdamW
    with pytest.raises(UsageError, match=r"optimizer must be one of adamw, sgd, not 'SGD'\. Did you mean 'sgd'\?"):
        build_optimizer("SGD", groups, 0.1)


def test_warmup_schedule__a_run_of_one_step_ends_at_zero_and_constant_stays():
    assert WarmupSchedule(1, "cosine", 0, ())(1) == pytest.approx(0)
    assert WarmupSchedule(100, "constant", 500, ())(9) == pytest.approx(10 / 11)
    assert WarmupSchedule(100, "constant", 500, ())(60) == 1.0


GOOD = {"lr": 0.0, "backbone_lr_factor": 0.1, "weight_decay": 0.0, "optimizer": "sgd", "schedule": "constant"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": -1.0}, "LitDetector: lr must be at least 0, not -1.0"),
        ({"backbone_lr_factor": -0.1}, "LitDetector: backbone_lr_factor must be at least 0, not -0.1"),
        ({"weight_decay": -0.1}, "LitDetector: weight_decay must be at least 0, not -0.1"),
        ({"optimizer": "adam"}, r"optimizer must be one of adamw, sgd, not 'adam'\. Did you mean 'adamw'"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"milestones": [3]}, "milestones must be shares"),
    ],
)
def test_optimization__refuses_impossible_numbers(change, message):
    whole = {**GOOD, "warmup_steps": 0, "milestones": ()}
    Optimization(**whole)
    with pytest.raises(UsageError, match=message):
        Optimization(**{**whole, **change})


def test_parameter_groups__have_the_rate_of_their_part_and_the_decay_of_their_shape():
    body, head = torch.nn.Linear(2, 2), torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    frozen, own = torch.nn.Linear(1, 1).requires_grad_(False), torch.nn.Linear(3, 3)
    given = [{"params": list(own.parameters()), "lr": 0.7}]
    groups, factors = parameter_groups([body, head, frozen, own, body], body, 0.1, 0.01, 0.3, given)
    assert factors[-1] is None
    assert factors[:-1] == pytest.approx([g["lr"] / 0.1 for g in groups[:-1]])
    rates = {id(p): (g["lr"], g.get("weight_decay")) for g in groups for p in g["params"]}
    assert len(rates) == sum(len(g["params"]) for g in groups)
    assert [rates[id(p)] for p in body.parameters()] == [(0.1 * 0.01, 0.3), (0.1 * 0.01, 0.0)]
    assert [rates[id(p)] for p in head.parameters()] == [(0.1, 0.3), (0.1, 0.0), (0.1, 0.0), (0.1, 0.0)]
    assert [rates[id(p)] for p in own.parameters()] == [(0.7, None)] * 2
    assert not any(id(p) in rates for p in frozen.parameters())
    assert {g["lr"] for g in parameter_groups([body], None, 0.1, 0.01, 0.3)[0]} == {0.1}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_build_optimizer__a_group_without_a_rate_has_the_common_one(name):
    made = build_optimizer(name, [{"params": [torch.nn.Parameter(torch.zeros(2))]}], 0.3)
    assert made.param_groups[0]["lr"] == 0.3
    assert made.param_groups[0].get("momentum", 0.9) == 0.9
