"""Lines of YOLO's labels with more than five columns: keypoints, track ids or polygons."""

import numpy as np
import pytest

from lit_dense.data.formats.yolo_keypoints import meaning_of


def boxes_of(rng, number, largest):
    sides = rng.uniform(0.02, largest, (number, 2))
    return sides / 2 + rng.uniform(0, 1, (number, 2)) * (1 - sides), sides


def poses(count, dims, number=20, largest=0.3):
    """Boxes with keypoints in them; with 3 values a keypoint, some are not labelled."""
    rng = np.random.default_rng(0)
    middle, sides = boxes_of(rng, number, largest)
    points = middle[:, None] + rng.uniform(-0.5, 0.5, (number, count, 2)) * sides[:, None]
    if dims == 3:
        seen = rng.integers(0, 3, (number, count, 1))
        seen[:, 0] = 2
        points = np.concatenate([np.where(seen > 0, points, 0), seen], axis=2)
    return np.concatenate([middle, sides, points.reshape(number, -1)], axis=1).tolist()


@pytest.mark.parametrize(("count", "dims"), [(2, 2), (4, 2), (17, 2), (2, 3), (5, 3), (17, 3)])
def test_meaning_of__boxes_with_keypoints_with_the_shape_to_write(count, dims):
    what, cure = meaning_of(poses(count, dims))
    assert what == "a box with keypoints"
    assert f"kpt_shape: [{count}, {dims}]" in cure


def test_meaning_of__keypoints_without_a_label_prove_nothing_alone():
    lines = [[*line[:4], 0, 0, 0, 0, 0, 0] for line in poses(2, 3)]
    assert meaning_of(lines) is None


def test_meaning_of__a_few_lines_of_another_length_do_not_hide_keypoints():
    assert meaning_of([*poses(4, 2, number=40), [0.5] * 6]) is not None
    assert meaning_of([*poses(4, 2), *[[0.5] * 6] * 5]) is None


def test_meaning_of__a_few_lines_prove_nothing():
    assert meaning_of(poses(4, 2)[:4]) is None
    assert meaning_of([]) is None


def test_meaning_of__a_confidence_and_a_track_id():
    lines = [[*line[:4], 0.9, number] for number, line in enumerate(poses(1, 2))]
    assert meaning_of(lines) == ("a box with a confidence and a track id", "remove the columns behind the fifth")
    assert meaning_of([[*line[:5], 0.93] for line in lines]) is None


@pytest.mark.parametrize("largest", [0.1, 0.9])
@pytest.mark.parametrize("corners", [3, 4, 5, 6, 8, 10, 20])
@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("turn", [1, -1])
def test_meaning_of__outlines_of_many_shapes_are_polygons(corners, largest, regular, turn):
    """Also those cut off at the border, and rectangles and triangles that all begin at one corner."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        middle, sides = boxes_of(rng, 5 + seed, largest)
        angles = np.sort(rng.uniform(0, 2 * np.pi, (len(middle), corners)), axis=1)
        if regular:
            angles = np.arange(corners)[None] * 2 * np.pi / corners + rng.uniform(0, 2 * np.pi)
        circle = np.stack([np.cos(turn * angles), np.sin(turn * angles)], axis=2)
        outlines = (middle[:, None] + circle * sides[:, None]).clip(0, 1)
        assert meaning_of(outlines.reshape(len(middle), -1).tolist()) is None


@pytest.mark.parametrize("largest", [0.1, 0.6])
def test_meaning_of__rotated_rectangles_are_polygons(largest):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        middle, sides = boxes_of(rng, 5 + seed, largest)
        turn = rng.uniform(0, np.pi, len(middle))
        axes = np.stack([np.cos(turn), np.sin(turn), -np.sin(turn), np.cos(turn)], axis=1).reshape(-1, 2, 2)
        corners = (np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * sides[:, None]) @ axes
        outlines = (corners + middle[:, None]).clip(0, 1)
        assert meaning_of(outlines.reshape(len(middle), -1).tolist()) is None
