# The front door. Each command installs what is missing first, and needs no network once everything is there.
.DEFAULT_GOAL := help
.PHONY: help run test bench check wheel fmt install clean build packages python
SHELL := /bin/bash
PREFIX ?= /usr/local

# Through sudo, only packages and `make install` need root; all else is done as the user whose checkout this is, so that
# build/ stays theirs.
USER_ID := $(filter-out 0,$(SUDO_UID))
ifneq ($(USER_ID),)
ifeq ($(USER_ID),$(shell stat -c %u .))
AS_USER := sudo -H -u '\#$(USER_ID)' --
endif
endif

PYTHON := build/venv/bin/python
MODEL := build/models/ch_PP-OCRv4_rec_infer.onnx

help: ## this text
	@echo "make COMMAND, where COMMAND is one of:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

packages:
	@scripts/setup.sh packages
ifdef AS_USER
	@if [ -d build ] && [ -n "$$(find build -not -uid $(USER_ID) -print -quit)" ]; then chown -R $(USER_ID):$(SUDO_GID) build; fi
endif

python: packages
	@$(AS_USER) scripts/setup.sh python

build: python ## build everything into build/
	@$(AS_USER) cmake --preset release --log-level=NOTICE -DAI_VMM_BINDINGS=ON
	@$(AS_USER) cmake --build build

$(MODEL): python
	@[ -e $@ ] || $(AS_USER) $(PYTHON) tests/wheels.py extract rapidocr-onnxruntime \
	  rapidocr_onnxruntime/models/$(@F) $@

run: build $(MODEL) ## read the text in samples/hello.png with the PP-OCR recogniser, on the best device
	$(AS_USER) build/bin/aivmm run $(MODEL) --input x=samples/hello.png --image-size 48xW --image-channels bgr --repeat 30

test: build ## build and run all tests
	@$(AS_USER) $(PYTHON) tests/wheels.py fetch
	@$(AS_USER) ctest --test-dir build --output-on-failure --no-tests=error

bench: build ## compare the speed of the zoo, of Python calls and of programs with ONNX Runtime
	@$(AS_USER) $(PYTHON) tests/wheels.py fetch
	@$(AS_USER) $(PYTHON) bench/run.py $(BENCH)
	@$(AS_USER) $(PYTHON) bench/python.py

check: ## formatting, clang-tidy, layers, exported symbols, sanitizers
	@scripts/setup.sh packages check
	@$(MAKE) --no-print-directory build
	@$(AS_USER) scripts/check.sh

fmt: ## format the sources
	@scripts/setup.sh packages check
	@$(AS_USER) scripts/format.sh -i

wheel: build ## a self-contained wheel of the Python package in build/dist; WHEEL_PYTHONS="python3.13 …" for others
	@$(AS_USER) scripts/wheel.sh $(WHEEL_PYTHONS)

install: build ## install the library, headers and aivmm under PREFIX (default /usr/local)
	cmake --install build --prefix $(PREFIX)

clean: ## remove what was built; what was downloaded stays
	@if [ -d build ]; then find build -mindepth 1 -maxdepth 1 -not -name venv -not -name wheels -exec rm -rf {} +; fi
