# The demo in a container, on a processor:
#   docker build -t medner . && docker run --rm -v "$PWD/runs:/medner/runs" medner
# TORCH_INDEX: a mirror of PyTorch's CPU builds; without it pip brings CUDA's gigabytes too.
FROM python:3.12-slim
ARG TORCH_INDEX=""
WORKDIR /medner
COPY . .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url $TORCH_INDEX} -r requirements-cpu.txt \
 && pip install --no-cache-dir --no-deps -e .
CMD ["bash", "recipes/demo.sh"]
