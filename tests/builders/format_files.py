"""One small data set as YOLO, Pascal VOC and CSV files, written without the code under test."""

import json

from tests.builders.coco_files import box_entry, image_entry, write_image, write_json

NAMES = ("dog", "cat")  # not in alphabetical order
SIZE = (40, 30)
BOXES = {  # class index and x, y, width, height of the boxes of each image; the last image has none
    "a.png": [(0, 5, 5, 10, 10), (1, 20, 3, 8, 12)],
    "b.png": [(1, 0, 0, 40, 30)],
    "c.png": [],
}


def write_images(folder, names=tuple(BOXES)):
    for seed, name in enumerate(names):
        write_image(folder / name, *SIZE, seed=seed)


def line_of(index, x, y, w, h):
    return f"{index} {(x + w / 2) / SIZE[0]:.8f} {(y + h / 2) / SIZE[1]:.8f} {w / SIZE[0]:.8f} {h / SIZE[1]:.8f}\n"


def write_yolo(root, boxes=BOXES, split="train", **config):
    """``data.yaml`` with ``images/SPLIT`` and ``labels/SPLIT``; further keys replace those of the file."""
    write_images(root / "images" / split, boxes)
    for name, rows in boxes.items():
        write_label(root, name, "".join(line_of(*row) for row in rows), split)
    content = {"train": "images/train", "names": list(NAMES), **config}
    (root / "data.yaml").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return root / "data.yaml"


def write_label(root, name, text, split="train"):
    path = root / "labels" / split / f"{name.rpartition('.')[0]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def object_of(name, x1, y1, x2, y2, more="<difficult>0</difficult>"):
    box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
    return f"<object>\n<name>{name}</name>{more}\n<bndbox>{box}</bndbox>\n</object>\n"


def xml_of(name, objects, size=SIZE):
    size = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>\n<filename>{name}</filename>\n{size}\n{objects}</annotation>\n"


def write_voc(root, boxes=BOXES):
    """A folder ``annotations`` beside the folder ``images``."""
    write_images(root / "images", boxes)
    for name, rows in boxes.items():
        objects = "".join(object_of(NAMES[index], x, y, x + w, y + h) for index, x, y, w, h in rows)
        write_xml(root, name, xml_of(name, objects))
    return root / "annotations"


def write_xml(root, name, text):
    path = root / "annotations" / f"{name.rpartition('.')[0]}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_csv(root, boxes=BOXES, text=None):
    """``train.csv`` with DeepForest's columns and images in ``images``, or with another text."""
    write_images(root / "images", boxes)
    rows = ["image_path,xmin,ymin,xmax,ymax,label"]
    for name, entries in boxes.items():
        rows += [f"{name},{x},{y},{x + w},{y + h},{NAMES[index]}" for index, x, y, w, h in entries]
        rows += [] if entries else [f"{name},,,,,"]
    (root / "train.csv").write_text(text if text is not None else "\n".join(rows) + "\n")
    return root / "train.csv"


def write_coco(root, boxes=BOXES, file="train.json", first_category=1):
    """A COCO file of the same data, with images in ``images``."""
    write_images(root / "images", boxes)
    images = [image_entry(number, *SIZE, file_name=name) for number, name in enumerate(boxes, start=1)]
    rows = [(number, row) for number, entries in enumerate(boxes.values(), start=1) for row in entries]
    annotations = [
        box_entry(place, number, bbox, index + first_category)
        for place, (number, (index, *bbox)) in enumerate(rows, start=1)
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES, start=first_category)]
    return write_json(root / file, images, annotations, categories)
