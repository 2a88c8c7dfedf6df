import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from lit_dense.functional import top_detections
from lit_dense.functional.top_detections import suppress, top_scores


def torchvision_scores(logits, score_thresh, number):
    """The lines of ``RetinaNet.postprocess_detections``."""
    scores = torch.sigmoid(logits).flatten()
    keep = scores > score_thresh
    scores, positions = scores[keep], torch.where(keep)[0]
    scores, order = scores.topk(min(number, len(scores)))
    return scores, positions[order]


def assert_same(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.fixture
def shortcuts(monkeypatch):
    """How often all scores were sorted after all."""
    calls = []
    stock = top_detections._sorted_all
    monkeypatch.setattr(top_detections, "_sorted_all", lambda *args: calls.append(1) or stock(*args))
    return calls


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 3000),
    columns=st.sampled_from([1, 3, 4, 7, 16]),
    centre=st.sampled_from([-9.0, -4.6, -1.0, 3.0]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 6.0]),
    score_thresh=st.sampled_from([-1.0, 0.0, 1e-3, 0.05, 0.5, 0.9999999, 1.0]),
    number=st.sampled_from([1, 5, 50]),
    decimals=st.sampled_from([1, 7]),
)
def test_top_scores__are_torchvisions(seed, rows, columns, centre, spread, score_thresh, number, decimals):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(rows, columns, generator=generator) * spread + centre).round(decimals=decimals)
    assert_same(top_scores(logits, score_thresh, number), torchvision_scores(logits, score_thresh, number))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("length", [70_001, 131_071, 200_014])
def test_top_scores__at_the_end_of_a_threads_share_are_torchvisions(threads, length, shortcuts):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        logits = torch.randn(length, 1, generator=torch.Generator().manual_seed(length)) - 4
        share = -(-length // min(threads, -(-length // 2**15)))
        for end in [*range(share, length, share), length]:
            logits[end - 40 : end] += 6  # these are the ones to get right, and they are kept
        assert_same(top_scores(logits, 0.05, 500), torchvision_scores(logits, 0.05, 500))
    finally:
        torch.set_num_threads(before)
    assert not shortcuts


def test_top_scores__a_score_right_at_the_threshold_is_left_out():
    logits = torch.linspace(-4, -2, 20_001).unsqueeze(1)
    for index in (0, 7000, 12_345):
        score_thresh = logits.sigmoid()[index].item()
        got = top_scores(logits, score_thresh, 150)
        assert_same(got, torchvision_scores(logits, score_thresh, 150))


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), float("-inf"), 1e30, 60.0, -120.0])
@pytest.mark.parametrize("share", [0.001, 0.5, 1.0])
def test_top_scores__of_unusual_logits_are_torchvisions(strange, share):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5000, 4, generator=generator)
    logits[torch.rand(5000, 4, generator=generator) < share] = strange
    for score_thresh in (0.0, 0.05):
        assert_same(top_scores(logits, score_thresh, 20), torchvision_scores(logits, score_thresh, 20))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_top_scores__are_torchvisions_in_every_precision(kind):
    logits = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)).to(kind)
    assert_same(top_scores(logits, 0.05, 20), torchvision_scores(logits, 0.05, 20))


def test_top_scores__only_the_best_blocks_are_read(shortcuts):
    logits = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    top_scores(logits, 0.05, 100)
    assert not shortcuts
    top_scores(logits.t(), 0.05, 100)  # in another order in memory, whose scores may differ in the last bit
    assert shortcuts


def random_boxes(count, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 100
    boxes = torch.cat([low, low + torch.rand(count, 2, generator=generator) * 60], 1)
    scores = torch.rand(count, generator=generator)
    return boxes, scores, torch.randint(classes, (count,), generator=generator)


@pytest.mark.parametrize("count", [0, 1, 900, 1500, 4000])
@pytest.mark.parametrize("classes", [1, 5, 3000])
@pytest.mark.parametrize("number", [1, 30, 300, 5000])
@pytest.mark.parametrize("decimals", [2, 8])  # with two, many scores are equal
def test_suppress__the_boxes_that_stay_are_torchvisions(count, classes, number, decimals):
    boxes, scores, labels = random_boxes(count, classes)
    found = boxes, scores.round(decimals=decimals), labels
    assert torch.equal(suppress(*found, 0.5, number), batched_nms(*found, 0.5)[:number])
