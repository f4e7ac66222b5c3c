#!/usr/bin/env bash
# On a rented GPU of the Hugging Face Hub, from a laptop without one. Needs the network, a login and credit there.
#
#   REPOSITORY=https://… REPO=USER/Llama-3.2-3B-medical-ner bash recipes/hub_job.sh          # --dry-run only shows the job
#
# REPOSITORY: the git address of your copy of medner, readable without a login. It trains on BC5CDR.
# The machine's disk is lost when the job ends, so all that is to be kept is pushed: each checkpoint while training goes on, then
# adapter, GGUF file, card and figures. Expected: not measured yet.
set -euo pipefail

# The pinned stack, as everywhere; `uv run --with` would resolve versions that nobody tried together.
JOB="git clone --depth 1 $REPOSITORY medner && cd medner \
&& uv pip install --system -r ${REQUIREMENTS:-requirements.txt} && uv pip install --system --no-deps -e . \
&& medner data fetch bc5cdr \
&& medner run --preset llama-3.2-3b --out runs/job --push --repo $REPO --set \
data.train=bc5cdr/train.PubTator data.validation=bc5cdr/validation.PubTator data.test=bc5cdr/test.PubTator \
publish.checkpoints=true export.gguf=q8_0"

hf jobs run "$@" --flavor "${FLAVOR:-a10g-small}" --timeout "${TIMEOUT:-6h}" --secrets HF_TOKEN \
  ghcr.io/astral-sh/uv:python3.12-bookworm bash -c "$JOB"
