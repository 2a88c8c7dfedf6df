from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.data.coco_data import CocoData
from lit_dense.data.federated import Federated, Ragged

IDS = np.array([3, 7, 9])


def make(counts, seed=0):
    rng = np.random.default_rng(seed)
    images, boxes = len(counts), sum(counts)
    return CocoData(
        path=Path("a.json"),
        folder=Path(),
        categories=[],
        image_ids=np.arange(images) * 10,
        file_names=[f"{n}.png" for n in range(images)],
        sizes=rng.integers(1, 9, (images, 2)),
        upright=rng.random(images) < 0.5,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        annotation_ids=np.arange(boxes),
        category_ids=rng.choice(IDS, boxes),
        boxes=rng.random((boxes, 4)).astype(np.float32),
        area=rng.random(boxes).astype(np.float32),
        iscrowd=rng.random(boxes) < 0.3,
        weight=rng.random(boxes).astype(np.float32),
    )


counts = st.lists(st.integers(0, 4), min_size=1, max_size=8)


@given(counts, st.data())
def test_select__images_keep_their_boxes(counts, draw):
    data = make(counts)
    indices = np.array(draw.draw(st.lists(st.integers(0, len(counts) - 1), unique=True)), np.int64)
    part = data.select(indices)
    assert len(part) == len(indices)
    assert part.file_names == [data.file_names[i] for i in indices]
    for new, old in enumerate(indices):
        assert part.image_ids[new] == data.image_ids[old]
        assert part.sizes[new].tolist() == data.sizes[old].tolist()
        mine, theirs = (slice(d.offsets[i], d.offsets[i + 1]) for d, i in ((part, new), (data, old)))
        for field in ("annotation_ids", "category_ids", "boxes", "area", "iscrowd", "weight"):
            assert getattr(part, field)[mine].tolist() == getattr(data, field)[theirs].tolist()


@given(counts)
def test_class_counts__leave_out_crowds(counts):
    data = make(counts)
    found = data.class_counts(IDS)
    boxes = list(zip(data.image_index.tolist(), data.category_ids.tolist(), data.iscrowd.tolist(), strict=True))
    for label, number in enumerate(IDS.tolist()):
        images = [image for image, category, crowd in boxes if category == number and not crowd]
        assert found.instances[label] == len(images)
        assert found.images[label] == len(set(images))
    assert found.num_images == len(counts)


def test_without_boxes__images_are_numbered_from_one():
    data = CocoData.without_boxes(["a.png", "b.png"], np.array([[1, 2], [3, 4]]))
    assert data.image_ids.tolist() == [1, 2]
    assert data.class_counts(np.array([], np.int64)).instances.shape == (0,)


def test_federated__a_united_category_is_absent_only_if_all_of_its_parts_are():
    new = {1: 1, 2: 1, 5: 5}  # 1 and 2 become one
    absent = Ragged.of([np.array(a, np.int64) for a in ([2, 5], [1, 2], [2], [], [])])
    partial = Ragged.of([np.array(p, np.int64) for p in ([], [], [], [], [1])])
    shown = [np.array(s, np.int64) for s in ([1], [5], [], [1], [1, 2])]
    found = Federated(absent, partial).renumbered(new, shown)
    # shown and absent; both absent; one absent, the other not annotated; one shown, the other not annotated; partial
    assert [found.absent.row(i).tolist() for i in range(5)] == [[5], [1], [], [], []]
    assert [found.not_exhaustive.row(i).tolist() for i in range(5)] == [[], [], [], [1], [1]]
