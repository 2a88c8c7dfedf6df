"""Small COCO data sets on disk."""

import json

import numpy as np
from PIL import Image

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def write_image(path, width=40, height=30, seed=0):
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


def write_coco(folder, num_images=8, name="train", categories=CATEGORIES, first_id=1):
    """Image i of the folder ``name`` has i % 3 boxes, each with its own size; the file is ``name.json``."""
    images, annotations = [], []
    for number in range(first_id, first_id + num_images):
        write_image(folder / name / f"{number}.png", seed=number)
        images.append(image_entry(number))
        for index in range(number % 3):
            category = categories[(number + index) % len(categories)]["id"]
            bbox = (index * 10, 2, 5 + number % 10, 6 + index)
            annotations.append(box_entry(len(annotations) + 1, number, bbox, category))
    return write_json(folder / f"{name}.json", images, annotations, categories)
