#!/usr/bin/env bash
# Trains the demo with two processes on the CPU of this machine. For GPUs and several machines, see docs/multi_gpu.md.
#   bash examples/ddp.sh [further arguments of lit-dense fit]
set -eu
exec lit-dense fit --config "$(dirname "$0")/../configs/demo.yaml" \
  --trainer.accelerator=cpu --trainer.devices=2 --trainer.strategy=ddp --data.batch_size=4 "$@"
