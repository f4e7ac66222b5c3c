#!/usr/bin/env bash
# Several GPUs of one machine, data parallel: the effective batch stays the same, each card takes its share. Needs GPUs.
#
#   bash recipes/many_gpus.sh 4 --data corpus.jsonl      # the number of cards first
#
# Expected: not measured yet. Two processes of a processor give the losses of one (tests/pipeline/test_ddp.py).
set -euo pipefail
CARDS=$1 && shift
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/many-gpus}

# The first process does the whole job; the others train along and write nothing.
torchrun --nproc-per-node "$CARDS" -m pipeline.processes run --preset llama-3.2-3b --out "$OUT" "$@"

# Several machines: the same on each, --out on a file system that all of them share:
#   torchrun --nnodes 2 --node-rank 0 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint first-node:29500 \
#     -m pipeline.processes run --preset llama-3.2-3b --out /shared/run --data corpus.jsonl
