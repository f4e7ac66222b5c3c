# Each target sets itself up in .venv. TORCH_INDEX is where pip looks for a CPU build of torch beside its usual index.
PYTHON ?= python3
TORCH_INDEX ?=
BIN := .venv/bin
PURELIB := import sysconfig; print(sysconfig.get_path('purelib'))
UNSLOTH_TESTS := -m pytest tests/unsloth -o filterwarnings=default --disable-warnings --durations 5
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

CHAOS_N ?= 200
PROCESSES ?= 2
REAL_RUN = $(or $(RUN),runs/real)
REAL = --preset smollm2-135m --data $(DATA) --out $(REAL_RUN) --yes $(if $(SET),--set $(SET))
CORPUS_RUN = $(or $(RUN),runs/real-corpus)
PARTS = data.train=runs/corpus-parts/train.PubTator data.validation=runs/corpus-parts/validation.PubTator data.test=$(DEV)
CORPUS = --preset smollm2-135m --out $(CORPUS_RUN) --yes --set $(PARTS) eval.grounded=true eval.splits=test \
	eval.base_model=false eval.logprobs=false export.gguf= train.eval_f1_articles=0 $(SET)

.PHONY: demo real real-corpus test test-fast lint bench tiny-base smollm2 llama3-tokenizer check-requirements clean
.PHONY: chaos fuzz lock licences sbom audit
.PHONY: test-unsloth test-unsloth-t4 test-unsloth-a100

demo: .venv/ready
	$(BIN)/medner run --preset tiny --data data/sample.jsonl --out runs/demo

# The job on real articles, with a really pretrained small Llama: make real DATA=FILE [SET="section.key=value …"] [RUN=FOLDER]
# Two processes of one core: a small model's products are too short to be shared by cores.
real: .venv/ready-real
	$(if $(DATA),,$(error DATA is missing: make real DATA=FILE, in any format that medner reads))
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m pipeline.processes train $(REAL)
	$(BIN)/medner run $(REAL) || test $$? -eq 1  # 1: its GGUF file is not shown to be as good, which is told; the rest is wanted
	$(BIN)/medner evaluate $(REAL_RUN) --grounded
	$(BIN)/medner compare $(REAL_RUN)

# The same learnt from one corpus file and scored on another, as the official evaluation does:
# make real-corpus TRAIN=FILE DEV=FILE [SET=…] [RUN=FOLDER]. Figures go to bench/results/, named after the run's folder.
real-corpus: .venv/ready-real
	$(if $(and $(TRAIN),$(DEV)),,$(error TRAIN or DEV is missing: make real-corpus TRAIN=FILE DEV=FILE, with offsets and concept ids))
	$(BIN)/python -m bench.crf $(TRAIN) $(DEV) --keep runs/corpus-parts
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) -m pipeline.processes train $(CORPUS)
	$(BIN)/medner run $(CORPUS)
	$(BIN)/python -m bench.real $(CORPUS_RUN) --cores $(PROCESSES) --out bench/results/$(notdir $(CORPUS_RUN:/=))-cpu.json

# Two processes of one thread each: a file's tests stay together, since they share what was trained for them.
test: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25

test-fast: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

# Unsloth's CUDA path on a processor, as a T4 (float16) and as an A100 (bfloat16), side by side.
test-unsloth: .venv-unsloth/ready
	$(MAKE) --jobs 2 --output-sync=target test-unsloth-t4 test-unsloth-a100

test-unsloth-t4 test-unsloth-a100: export OMP_NUM_THREADS = 1
test-unsloth-t4: .venv-unsloth/ready
	MEDNER_PRETEND_GPU=7.5 .venv-unsloth/bin/python $(UNSLOTH_TESTS)

test-unsloth-a100: .venv-unsloth/ready
	MEDNER_PRETEND_GPU=8.0 .venv-unsloth/bin/python $(UNSLOTH_TESTS) -k "fused or end_to_end or gradient or gives_the_same or bit_for_bit"

lint: .venv/ready-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Interrupts every stage of a tiny job and goes on with it; mutates a million inputs. Both print tables.
chaos: .venv/ready-test
	OMP_NUM_THREADS=1 $(BIN)/python tests/support/chaos.py --interruptions $(CHAOS_N)

fuzz: .venv/ready
	$(BIN)/python -m bench.fuzz

# The CPU set with the hashes of its files; what is installed, as a list of licences and a CycloneDX bill of materials; and
# what the lock's packages are known to be vulnerable to (--strict: a package that could not be looked up is no pass).
lock: .venv/ready-test
	$(BIN)/python -m tools.lock_requirements

licences: .venv-supply/ready
	mkdir -p build
	.venv-supply/bin/pip-licenses --python $(BIN)/python --order license --format markdown --output-file build/licences.md

sbom: .venv-supply/ready
	mkdir -p build
	.venv-supply/bin/cyclonedx-py environment --output-reproducible --output-file build/sbom.json $(BIN)/python

audit: .venv-supply/ready
	@.venv-supply/bin/pip-audit --strict --disable-pip --requirement requirements-cpu.lock || { echo "make audit: no pass. If a package \
	could not be audited, pypi.org, which lists the vulnerabilities, was not reached (a mirror does not): run it where it is." >&2; exit 1; }

bench: .venv/ready
	$(BIN)/python -m bench.scoring
	$(BIN)/python -m bench.generation
	$(BIN)/python -m bench.train --tiny

smollm2: .venv/ready-real

llama3-tokenizer:
	$(PYTHON) tests/support/llama3_tokenizer.py

check-requirements: .venv/ready-test
	$(BIN)/python -m tools.check_requirements

tiny-base: .venv/ready
	$(BIN)/python -m tools.tiny_base.pretrain

.venv/ready: requirements-cpu.txt requirements-libraries.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(INDEX) -r requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

.venv/ready-test: .venv/ready requirements-test.txt requirements-ui.txt requirements-ray.txt
	$(BIN)/python -m pip install --quiet -r requirements-test.txt
	touch $@

.venv/ready-real: .venv/ready requirements-real.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-real.txt
	touch $@

# Apart from .venv, which is what is looked at.
.venv-supply/ready: .venv/ready requirements-supply.txt
	$(PYTHON) -m venv .venv-supply
	.venv-supply/bin/python -m pip install --quiet -r requirements-supply.txt
	touch $@

# Laid over .venv by a path file: what stands in .venv is not installed twice.
.venv-unsloth/ready: .venv/ready-test requirements-unsloth-cpu.txt
	$(PYTHON) -m venv --without-pip .venv-unsloth
	$(BIN)/python -m pip --python .venv-unsloth/bin/python install --quiet --no-deps -r requirements-unsloth-cpu.txt
	$(BIN)/python -c "$(PURELIB)" > "$$(.venv-unsloth/bin/python -c "$(PURELIB)")/base.pth"
	touch $@

clean:
	rm -rf .venv .venv-unsloth .venv-supply runs build *.egg-info
