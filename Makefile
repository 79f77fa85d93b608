# Each target sets up what it needs first. `make help` lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help lab test lint unit lessons course notebooks html student slides nbgrader \
  test-browser bench format clean distclean

PYTHON ?=
CONSTRAINTS ?= constraints.txt
CPU ?=
LESSON ?=
LAB_ARGS ?=

PY := .venv/bin/python
READY := .venv/ready

# Idle OpenMP threads soon sleep instead of spinning on: two notebooks that train at the
# same time on two cores would otherwise slow each other down ten times and more.
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
	@echo "make course     run all lessons without a browser; web pages in build/"
	@echo "make html       write the web site from the stored lessons; pages in build/html/"
	@echo "make student    the lessons without solutions and outputs, in build/student/"
	@echo "make slides     a deck of slides for each lesson, in build/slides/"
	@echo "make nbgrader   the exercises for graded classes, in build/nbgrader/"
	@echo "make notebooks  run the lessons, clean them and store them (LESSON=02 for one)"
	@echo "make lint       check style;   make format  mend it"
	@echo "make unit       unit tests only"
	@echo "make lessons    compare every cell with its stored output (LESSON=02 for one)"
	@echo "make test-browser  site, slides and all lessons in JupyterLab, in a headless"
	@echo "                browser (needs Chromium)"
	@echo "make bench      measure training, its quality, scaling, the lessons (25 minutes)"
	@echo "make clean      remove what was built;   make distclean  and .venv too"
	@echo
	@echo "Options: PYTHON=python3.12 (which Python to use), CPU=1 (the small build of"
	@echo "torch for computers without an NVIDIA GPU), both only for the first set-up."

# A folder that was moved, or a Python that is gone, counts as not set up.
ifneq ($(shell $(PY) -c "" 2>/dev/null && cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): pyproject.toml constraints.txt
	@python="$(PYTHON)"; \
	for name in python3 python3.13 python3.12 python3.11 python; do \
	  [ -n "$$python" ] && break; \
	  "$$name" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
	    && python="$$name"; \
	done; \
	[ -n "$$python" ] || python=python3; \
	command -v "$$python" >/dev/null 2>&1 || { \
	  echo "Python was not found (looked for: $$python)."; \
	  echo "Install Python 3.11 or newer from python.org or your system's packages."; \
	  echo "If it is there under another name: make PYTHON=/path/to/python3 lab"; \
	  exit 1; }; \
	"$$python" tools/setup/setup_env.py --constraints="$(CONSTRAINTS)" --cpu="$(CPU)"

# Packages for one purpose only; a file in .venv tells that they are there.
EXTRAS := .venv/docs .venv/slides .venv/browser
$(EXTRAS): .venv/%: $(READY)
	@$(PY) tools/setup/extras.py $* --constraints="$(CONSTRAINTS)"
	@touch $@

lab: $(READY)
	@$(PY) tools/setup/lab.py $(LAB_ARGS)

test: lint unit lessons

lint: $(READY)
	$(PY) -m ruff check
	$(PY) -m ruff format --check

unit: $(READY)
	$(PY) -m pytest tests --ignore=tests/browser

lessons: $(READY)
	@ls notebooks/$(LESSON)*.ipynb >/dev/null 2>&1 || { \
	  echo "No lesson in notebooks/$(LESSON)*.ipynb: nothing was tested."; exit 1; }
	$(PY) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=300 \
	  --nbval-sanitize-with=tests/sanitize.cfg --junitxml=build/lessons.xml \
	  notebooks/$(LESSON)*.ipynb

course: $(READY)
	@$(PY) -m tools.publish.notebooks pages --to build $(LESSON)

notebooks: $(READY)
	@$(PY) -m tools.publish.notebooks store $(LESSON)

html: .venv/docs
	@$(PY) -m tools.publish.site

student: $(READY)
	@$(PY) -m tools.publish.editions student

nbgrader: $(READY)
	@$(PY) -m tools.publish.editions nbgrader

slides: .venv/slides
	@$(PY) -m tools.publish.editions slides

test-browser: $(EXTRAS)
	$(PY) -m pytest tests/browser

bench: $(READY)
	@$(PY) -m tools.measure.speed
	@$(PY) -m tools.measure.quality
	@$(PY) -m tools.measure.scaling
	@$(PY) -m tools.measure.lessons --at-once

format: $(READY)
	$(PY) -m ruff check --fix-only
	$(PY) -m ruff format

clean:
	rm -rf build .pytest_cache .ruff_cache *.egg-info
	find gencourse tests tools notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

distclean: clean
	rm -rf .venv
