"""Small COCO data sets on disk that the tests share."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = ({"id": 7, "name": "square"}, {"id": 3, "name": "bar"})


def write_coco(folder: Path, split: str, counts=(2, 0, 1, 3), seed=0, size=64) -> Path:
    """A folder of pictures with bright rectangles and its annotation file, which is returned."""
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index, count in enumerate(counts, start=1):
        picture = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
        for _ in range(count):
            category = CATEGORIES[int(rng.integers(2))]
            w, h = (20, 20) if category["name"] == "square" else (28, 12)
            x, y = (int(v) for v in rng.integers(0, size - 28, 2))
            picture[y : y + h, x : x + w] = 230
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 10 * index,
                    "category_id": category["id"],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
        Image.fromarray(picture).save(folder / split / f"{index}.png")
        images.append({"id": 10 * index, "file_name": f"{index}.png", "width": size, "height": size})
    path = folder / f"{split}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": list(CATEGORIES)}))
    return path


def data_arguments(folder: Path) -> dict[str, object]:
    """Arguments of a CocoDataModule for a folder with the splits train and val."""
    return {
        "root": str(folder),
        "train_images": "train",
        "train_annotations": "train.json",
        "val_images": "val",
        "val_annotations": "val.json",
        "num_workers": 0,
    }
