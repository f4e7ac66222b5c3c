# The demo in a container, on a processor:
#   docker build -t medner . && docker run --rm -v "$PWD/runs:/medner/runs" medner
# Its steps were followed in a minimal Debian 12 (Python 3.11), not by Docker.
# TORCH_INDEX: a mirror of PyTorch's CPU builds; without it pip brings CUDA's gigabytes too.
FROM python:3.12-slim
ARG TORCH_INDEX=""
# llama.cpp's threads need it, and a slim image has none
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
WORKDIR /medner
COPY . .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} -r requirements-cpu.txt \
 && pip install --no-cache-dir --no-deps -e .
CMD ["bash", "recipes/demo.sh"]
