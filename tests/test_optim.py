import pytest
import torch

from lit_dense.errors import UsageError
from lit_dense.optim import WarmupSchedule, build_optimizer


def test_warm_up_rises_and_cosine_ends_at_nothing():
    schedule = WarmupSchedule(1000, "cosine", 50, ())
    factors = [schedule(step) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 51)
    assert factors[50] == 1.0
    assert factors[525] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0)
    assert factors[:51] == sorted(factors[:51])
    assert factors[50:] == sorted(factors[50:], reverse=True)


def test_multistep_falls_at_its_milestones():
    schedule = WarmupSchedule(100, "multistep", 0, (0.5, 0.8))
    assert [round(schedule(s), 4) for s in (0, 49, 50, 79, 80, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_warm_up_takes_at_most_a_tenth_of_the_run():
    assert WarmupSchedule(100, "constant", 500, ())(10) == 1.0


def test_a_run_without_end_has_no_cosine():
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
def test_a_schedule_that_does_not_exist(arguments, message):
    with pytest.raises(UsageError, match=message):
        WarmupSchedule(**{"total_steps": 100, "name": "multistep", "warmup_steps": 0, "milestones": (), **arguments})


def test_an_optimizer_that_does_not_exist():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}]
    assert type(build_optimizer("sgd", groups, 0.1)) is torch.optim.SGD
    assert type(build_optimizer("adamw", groups, 0.1)) is torch.optim.AdamW
    with pytest.raises(UsageError, match=r"optimizer must be one of adamw, sgd, not 'SGD'\. Did you mean 'sgd'\?"):
        build_optimizer("SGD", groups, 0.1)
