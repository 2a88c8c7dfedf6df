"""Small COCO data sets on disk: of noise, and of objects that a detector could see."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
SHAPES = [{"id": 7, "name": "square"}, {"id": 3, "name": "bar"}]


def write_image(path, width=40, height=30, seed=0, pixels=None):
    """Writes pixels, or noise of a size."""
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def image_entry(number, width=40, height=30, **more):
    return {"id": number, "file_name": f"{number}.png", "width": width, "height": height, **more}


def box_entry(number, image_id, bbox=(5, 5, 10, 10), category_id=3, **more):
    return {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(bbox), **more}


def write_json(path, images=(), annotations=(), categories=CATEGORIES, **more):
    content = {"images": list(images), "annotations": list(annotations), "categories": list(categories), **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_noise(folder, num_images=8, name="train", categories=CATEGORIES, first_id=1):
    """Images of noise in the folder ``name``; image i has i % 3 boxes of different sizes. Returns ``name.json``."""
    images, annotations = [], []
    for number in range(first_id, first_id + num_images):
        write_image(folder / name / f"{number}.png", seed=number)
        images.append(image_entry(number))
        for index in range(number % 3):
            category = categories[(number + index) % len(categories)]["id"]
            bbox = (index * 10, 2, 5 + number % 10, 6 + index)
            annotations.append(box_entry(len(annotations) + 1, number, bbox, category))
    return write_json(folder / f"{name}.json", images, annotations, categories)


def write_shapes(folder, split, counts=(2, 0, 1, 3), seed=0, size=64):
    """Dark images in the folder ``split`` with so many bright squares and bars each. Returns ``split.json``."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for index, count in enumerate(counts, start=1):
        pixels = rng.integers(0, 90, (size, size, 3), dtype=np.uint8)
        for _ in range(count):
            category = SHAPES[int(rng.integers(2))]
            w, h = (20, 20) if category["name"] == "square" else (28, 12)
            x, y = (int(v) for v in rng.integers(0, size - 28, 2))
            pixels[y : y + h, x : x + w] = 230
            box = box_entry(len(annotations) + 1, 10 * index, (x, y, w, h), category["id"], area=w * h, iscrowd=0)
            annotations.append(box)
        write_image(folder / split / f"{index}.png", pixels=pixels)
        images.append(image_entry(10 * index, size, size, file_name=f"{index}.png"))
    return write_json(folder / f"{split}.json", images, annotations, SHAPES)


def write_shape_splits(folder):
    """Shapes for training and, others, for validation. Returns ``train.json``."""
    write_shapes(folder, "val", seed=1)
    return write_shapes(folder, "train")


def data_arguments(folder):
    """Arguments of a CocoDataModule for a folder with the splits train and val."""
    return {
        "root": str(folder),
        "train_images": "train",
        "train_annotations": "train.json",
        "val_images": "val",
        "val_annotations": "val.json",
        "num_workers": 0,
    }
