#!/usr/bin/env bash
# The whole job on any processor, offline once installed: the embedded tiny Llama on invented articles.
#
#   bash recipes/demo.sh                                 # or shorter: bash recipes/demo.sh --set train.max_steps=20
#
# Expected, 24 November 2026, 2 cores, 104 test articles: F1 of chemicals 87.2, diseases 80.4, relations 42.1; 11 minutes.
# Training gives other weights on another machine: README.md says how far apart three were.
set -euo pipefail
cd "$(dirname "$0")/.."
DATA=${DATA:-data/sample.jsonl} OUT=${OUT:-runs/demo}

# What is in the articles, and does the split leak? Exit code 1 where a given split does.
medner data audit "$DATA"

# The untuned model's score, training, the adapter's score and report, f16 and q8_0 files, and whether they answer alike.
# The same command again goes on where it stopped.
medner run --preset tiny --data "$DATA" --out "$OUT" "$@"

# The same test articles again, each item held to the article's own words.
medner evaluate "$OUT" --grounded

# A text of your own, by the adapter and by the file alone. The model knows invented names only.
TEXT="Two patients treated with lithium developed tremor. Propranolol relieved it."
medner extract --model "$OUT" --explain "$TEXT"
for file in "$OUT"/export/*.gguf; do medner extract --model "$file" "$TEXT"; done
