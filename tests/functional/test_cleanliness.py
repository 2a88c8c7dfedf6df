import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.cleanliness import cleanliness_targets, cleanliness_weights

IOUS, SCORES = torch.tensor([0.8, 0.6, 0.4]), torch.tensor([0.5, 0.3, 0.1])
ONE_IMAGE = torch.zeros(3, dtype=torch.long)


def test_cleanliness__worked_values():
    def targets(form):
        return cleanliness_targets(IOUS, SCORES, ONE_IMAGE, 1, 0.75, form).tolist()

    def weights(form):
        return cleanliness_weights(IOUS, SCORES, ONE_IMAGE, 1, 0.75, 1.0, form).tolist()

    assert targets("paper") == pytest.approx([0.725, 0.525, 0.325])
    assert targets("reference") == pytest.approx([1, 0.8, 0.6])
    assert weights("paper") == pytest.approx([4.25, 2.232143, 1.527778], rel=1e-5)
    assert weights("reference") == pytest.approx([1.557692, 0.849650, 0.592657], rel=1e-5)


def test_cleanliness_targets__one_candidate_and_equal_candidates():
    one = cleanliness_targets(torch.tensor([0.6]), torch.tensor([0.3]), ONE_IMAGE[:1], 1, 0.75, "reference")
    assert one.item() == pytest.approx(0.525)
    equal = cleanliness_targets(torch.full((3,), 0.6), torch.full((3,), 0.3), ONE_IMAGE, 1, 0.75, "reference")
    assert equal.tolist() == pytest.approx([0.525] * 3)


@pytest.mark.parametrize("form", ["reference", "paper"])
@pytest.mark.parametrize(("iou", "score"), [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_cleanliness__extremes_are_finite(form, iou, score):
    ious, scores = torch.tensor([iou, 0.5, iou]), torch.tensor([score, score, 0.2])
    targets = cleanliness_targets(ious, scores, ONE_IMAGE, 1, 0.75, form)
    weights = cleanliness_weights(ious, scores, ONE_IMAGE, 1, 0.75, 1.0, form)
    assert targets.isfinite().all()
    assert ((targets >= 0) & (targets <= 1)).all()
    assert weights.isfinite().all()


@given(seed=st.integers(0, 200))
def test_cleanliness__images_are_apart_and_targets_lie_between_the_mean_and_one(seed):
    generator = torch.Generator().manual_seed(seed)
    ious, scores = torch.rand(20, generator=generator), torch.rand(20, generator=generator)
    images = torch.randint(0, 3, (20,), generator=generator)
    targets = cleanliness_targets(ious, scores, images, 4, 0.75, "reference")
    weights = cleanliness_weights(ious, scores, images, 4, 0.75, 1.0, "reference")
    for image in range(3):
        own = images == image
        alone = torch.zeros(int(own.sum()), dtype=torch.long)
        torch.testing.assert_close(
            targets[own], cleanliness_targets(ious[own], scores[own], alone, 1, 0.75, "reference")
        )
        torch.testing.assert_close(
            weights[own], cleanliness_weights(ious[own], scores[own], alone, 1, 0.75, 1.0, "reference")
        )
        if own.sum() > 1:
            assert targets[own].min() >= ious[own].mean() - 1e-6
            assert targets[own].max() == pytest.approx(1)
