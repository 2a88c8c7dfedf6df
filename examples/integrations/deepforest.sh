#!/usr/bin/env bash
# Runs lit_dense with DeepForest in a new virtual environment: see docs/integrations/deepforest.md.
#   bash examples/integrations/deepforest.sh [FOLDER [--weights=IMAGENET1K_V1]]     a new temporary folder by default
set -eu
here="$(cd "$(dirname "$0")" && pwd)"
folder="${1:-$(mktemp -d)}"
mkdir -p "$folder/run"
[ -x "$folder/venv/bin/python" ] || python3 -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH" PYTHONWARNINGS=ignore
pip install --quiet deepforest -e "$here/../.."
pip list 2>/dev/null | grep -E "^(deepforest|lit-dense|lightning|pytorch-lightning|torch|torchvision) "

cd "$folder/run"
python "$here/deepforest_example.py" train . "${@:2}"

pip uninstall --quiet --yes lit-dense
python "$here/deepforest_example.py" load . "${@:2}"
