"""Run an exported detector on a photograph, with onnxruntime, numpy and Pillow; lit_dense is not needed.

python examples/run_onnx.py model.onnx photo.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
height, width = json.loads(about["size"])
names = json.loads(about["names"])

photo = Image.open(sys.argv[2]).convert("RGB")
factor = min(height / photo.height, width / photo.width)
canvas = Image.new("RGB", (width, height))  # the photograph is scaled to its top left, the rest stays black
canvas.paste(photo.resize((round(photo.width * factor), round(photo.height * factor))), (0, 0))
images = np.asarray(canvas).transpose(2, 0, 1)[None]

boxes, scores, labels = (output[0] for output in session.run(["boxes", "scores", "labels"], {"images": images}))
for box, score, label in zip(boxes / factor, scores, labels, strict=True):
    if label >= 0:
        print(names[label] if names else label, f"{score:.2f}", *(f"{number:.1f}" for number in box))
