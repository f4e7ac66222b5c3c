#!/usr/bin/env bash
# Llama 3.2 3B on a free T4 (16 GB): 4-bit base, LoRA, float16. Needs a GPU and the network.
#
#   bash recipes/t4.sh                                   # BC5CDR; or your own: bash recipes/t4.sh --data corpus.jsonl
#
# Expected: not measured on a T4 yet. `medner plan --preset t4 --gpu t4 --data FILE` counts its memory beforehand.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/t4}

# For a driver below 580: REQUIREMENTS=requirements-cuda12.txt. `medner plan` says what fits.
pip install --quiet -r "${REQUIREMENTS:-requirements.txt}"
pip install --quiet --no-deps -e .

# The official corpus, checked by its sha256, unless you brought your own.
if [ $# = 0 ]; then
  [ -f bc5cdr/test.PubTator ] || medner data fetch bc5cdr
  set -- --set data.train=bc5cdr/train.PubTator data.validation=bc5cdr/validation.PubTator data.test=bc5cdr/test.PubTator
fi

# What the card will be asked to do, and the memory it takes; then the job.
medner plan --preset t4 "$@"
medner run --preset t4 --out "$OUT" "$@"

# A file for the laptop, compared with the adapter on the validation articles. About 16 GB of disk, the base included.
medner export "$OUT" --gguf q8_0
medner evaluate "$OUT" --cases
