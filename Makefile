# Each target sets up what it needs first. `make help` lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab test lessons notebooks html student clean slides handout pdf nbgrader \
  lint format unit test-browser bench distclean translations

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
CPU ?=
GPU ?=
LESSON ?=
LAB_ARGS ?=
# EDITION=zh: lab, student, slides, pdf, nbgrader and notebooks in Chinese, in build/zh_CN.
EDITION ?=
LANGUAGE := $(if $(filter zh,$(EDITION)),zh_CN,$(EDITION))
# Two files of tests, or two lessons, at a time; each on its own from top to bottom.
TWO_AT_ONCE := --numprocesses=2 --dist=loadfile

PY := .venv/bin/python
READY := .venv/ready
SETUP = tools/setup/setup_env.py --constraints="$(CONSTRAINTS)" --cpu="$(CPU)" \
  --gpu="$(GPU)" --keep="$(filter-out file,$(origin PYTHON))"

# Idle OpenMP threads soon sleep instead of spinning: otherwise two notebooks that train
# at the same time on two cores would slow each other down ten times and more.
export GOMP_SPINCOUNT ?= 1000
# Settings, caches and histories stay in .venv, and those of other projects stay out.
export JUPYTER_CONFIG_DIR := $(CURDIR)/.venv/jupyter
export JUPYTER_DATA_DIR := $(CURDIR)/.venv/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.venv/jupyter/runtime
export IPYTHONDIR := $(CURDIR)/.venv/ipython
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

help:
	@echo "make lab        set up everything and open the course in JupyterLab"
	@echo "make test       set up everything; lint, unit tests, every cell of every lesson"
	@echo "make lessons    compare every cell with its stored output (LESSON=02 for one)"
	@echo "make notebooks  run the lessons, clean them and store them (LESSON=02 for one)"
	@echo "make html       the web site, from the stored lessons, in build/html/"
	@echo "make student    the lessons without solutions and outputs, in build/student/"
	@echo "make handout    one zip for a class: those, the package, and its set-up"
	@echo "make pdf        all lessons as one book, build/gencourse.pdf (needs Chromium)"
	@echo "make clean      remove what was built;   make distclean  and .venv too"
	@echo
	@echo "Editions: make slides, make nbgrader; in Chinese: make EDITION=zh lab (or"
	@echo "student, slides, pdf); make translations lists what is not translated yet."
	@echo "Style: make lint, make format."
	@echo "Tests: make unit, make test-browser (site, slides, all lessons in JupyterLab;"
	@echo "needs Chromium), make bench (speed and quality, about 20 minutes)."
	@echo
	@echo "Options for the first set-up: PYTHON=python3.12 (which Python to use), GPU=1 or"
	@echo "CPU=1 (which build of torch; by itself, Linux without an NVIDIA GPU gets the"
	@echo "small one)."

# A folder that was moved, or a Python that is gone, needs a new set-up.
ifneq ($(shell $(PY) -c "" 2>/dev/null && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "Python was not found: no $(PYTHON). Install" \
	  "Python 3.12, or name the one you have: make PYTHON=/path/to/python3 lab"; exit 1; }
	@"$(PYTHON)" $(SETUP)

# Packages for one purpose only; a file in .venv says that they are installed.
EXTRAS := .venv/docs .venv/slides .venv/browser
$(EXTRAS): .venv/%: $(READY)
	@$(PY) $(SETUP) $*
	@touch $@

lab: $(READY)
	@$(if $(LANGUAGE),$(PY) -m tools.publish.translations build $(LANGUAGE))
	@GENCOURSE_LANG=$(LANGUAGE) $(PY) tools/setup/lab.py $(LAB_ARGS)

test: $(READY)
	@$(MAKE) --no-print-directory --keep-going lint unit lessons

lessons: $(READY)
	$(PY) -m pytest $(TWO_AT_ONCE) --nbval --nbval-current-env \
	  --nbval-cell-timeout=300 --nbval-sanitize-with=tests/sanitize.cfg \
	  --junitxml=build/lessons.xml notebooks/$(LESSON)*.ipynb

notebooks: $(READY)
	@$(PY) -m tools.publish.$(if $(LANGUAGE),translations run $(LANGUAGE),notebooks \
	  store) $(LESSON)

translations: $(READY)
	@$(PY) -m tools.publish.translations update $(LESSON)

html: .venv/docs
	@$(PY) -m tools.publish.site

student handout nbgrader: $(READY)
	@$(PY) -m tools.publish.editions $@ $(LANGUAGE:%=--language %)

pdf: .venv/docs .venv/browser
	@$(PY) -m tools.publish.book $(LANGUAGE:%=--language %)

slides: .venv/slides
	@$(PY) -m tools.publish.editions slides $(LANGUAGE:%=--language %)

lint: $(READY)
	$(PY) -m ruff check
	$(PY) -m ruff format --check

format: $(READY)
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

unit: $(READY)
	$(PY) -m pytest tests $(TWO_AT_ONCE)

test-browser: .venv/docs .venv/slides .venv/browser
	$(PY) -m pytest tests/browser

bench: $(READY)
	@$(PY) -m tools.measure.speed
	@$(PY) -m tools.measure.quality
	@$(PY) -m tools.measure.lessons

clean:
	rm -rf $(filter-out build/zh_CN,$(wildcard build/*)) .pytest_cache .ruff_cache *.egg-info
	@# Those in build/zh_CN/notebooks may hold a learner's work.
	rm -rf build/zh_CN/results build/zh_CN/course build/zh_CN/student build/zh_CN/slides
	find gencourse tests tools notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) \
	  -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
