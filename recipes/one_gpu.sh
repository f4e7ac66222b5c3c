#!/usr/bin/env bash
# Llama 3.2 3B on one larger GPU (24 GB or more): the plan takes 16-bit weights where they fit. Needs a GPU and the network.
#
#   bash recipes/one_gpu.sh                              # BC5CDR; or your own: bash recipes/one_gpu.sh --data corpus.jsonl
#
# Expected: docs/gpus.md says what has been measured on which card.
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/one-gpu}

# For a driver below 580: REQUIREMENTS=requirements-cuda12.txt. `medner plan` says what fits.
pip install --quiet -r "${REQUIREMENTS:-requirements.txt}"
pip install --quiet --no-deps -e .
if [ $# = 0 ]; then
  [ -f bc5cdr/test.PubTator ] || medner data fetch bc5cdr
  set -- --set data.train=bc5cdr/train.PubTator data.validation=bc5cdr/validation.PubTator data.test=bc5cdr/test.PubTator
fi

medner run --preset llama-3.2-3b --out "$OUT" "$@"

# The same answers held to the articles' words; what a precision of 90 % costs in recall; the five sentences.
medner evaluate "$OUT" --grounded
medner evaluate "$OUT" --min-precision 0.9
medner evaluate "$OUT" --cases

# Files for laptops, each compared with the adapter; then a private repository, if you are logged in: hf auth login
medner export "$OUT" --gguf q8_0 q4_k_m
[ -z "${REPO:-}" ] || medner push "$OUT" --repo "$REPO"
