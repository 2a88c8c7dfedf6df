#!/usr/bin/env bash
# Runs lit_dense with torchgeo in a new virtual environment: see docs/integrations/torchgeo.md.
#   bash examples/integrations/torchgeo.sh [FOLDER [--epochs=4 --images=32]]     a new temporary folder by default
# The variable MODELS lists the models to run: retinanet, fcos and faster-rcnn by default.
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-$(mktemp -d)}"
models="${MODELS:-retinanet fcos faster-rcnn}"
[ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH" PYTHONWARNINGS=ignore
# torchgeo 0.8.1 imports requests, and its mAP imports pycocotools; only its extra "datasets" installs them
pip install --quiet torchgeo requests pycocotools -e "$here/../.."
pip list 2>/dev/null | grep -E "^(torchgeo|lit-dense|lightning|torch|torchvision) "

export PYTHONPATH="$here"
for model in $models; do
  mkdir -p "$folder/$model"
  cd "$folder/$model"
  echo "== $model"
  python "$here/torchgeo_example.py" train . --model="$model" "${@:2}"

  # The same from the command line. Only the data module is user code; it must be importable.
  torchgeo fit \
    --model=ObjectDetectionTask --model.model="$model" --model.backbone=resnet18 --model.weights=null \
    --model.num_classes=3 --model.trainable_layers=5 --model.lr=3e-4 \
    --data=torchgeo_example.ShapesDataModule --data.images=8 \
    --trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false --trainer.logger=false \
    --trainer.callbacks+=lit_dense.SwapLoss --trainer.callbacks.loss=ghm
done

pip uninstall --quiet --yes lit-dense
for model in $models; do
  cd "$folder/$model"
  echo "== $model"
  python "$here/torchgeo_example.py" load .
done
