import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.federated import federated_classes


@given(seed=st.integers(0, 500), number=st.integers(1, 8))
def test_federated_classes__have_all_present_classes_and_no_unseen_ones(seed, number):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(8, generator=generator) < 0.3
    chances = torch.rand(8, generator=generator) * (torch.rand(8, generator=generator) < 0.7)
    selected = federated_classes(present, chances, torch.rand(8, generator=generator), number)
    assert selected[present].all()
    assert not selected[~present & (chances == 0)].any()
    possible = int((present | (chances > 0)).sum())
    assert selected.sum() == max(int(present.sum()), min(number, possible))


def test_federated_classes__are_drawn_in_proportion_to_their_weights():
    present = torch.zeros(6, dtype=torch.bool)
    present[[1, 3]] = True
    chances = torch.tensor([100.0, 400, 25, 900, 16, 49]).sqrt()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack(
        [federated_classes(present, chances, torch.rand(6, generator=generator), 3) for _ in range(4000)]
    )
    expected = torch.tensor([0.384615, 1, 0.192308, 1, 0.153846, 0.269231])
    torch.testing.assert_close(drawn.double().mean(0), expected.double(), rtol=0, atol=0.025)
