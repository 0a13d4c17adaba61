# Everything is set up, tested and shown from here. Each target is sufficient alone: on a fresh Debian machine,
# as root, it first installs what it needs. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := $(CURDIR)/.venv
VENV39 := $(CURDIR)/.venv39
READY := $(VENV)/.ready
READY39 := $(VENV39)/.ready
# Where Ansible and the tests find the working tree as a collection.
LINK := .collections/ansible_collections/bare/containers
# A copy of the working tree in the layout that the tools for collections ask for.
COPY := $(CURDIR)/build/collection/ansible_collections/bare/containers

# Interpreters come from PATH and from pyenv, whose shims are no interpreters.
FOLDERS := $(filter-out $(VENV)/bin %/.pyenv/shims,$(subst :, ,$(PATH)))
interpreter = $(firstword $(foreach version,$(1),$(wildcard \
	$(addsuffix /python$(version),$(FOLDERS)) $(HOME)/.pyenv/versions/$(version).*/bin/python$(version))))
PYTHON = $(call interpreter,3.14 3.13 3.12 3.11)
PYTHON39 = $(call interpreter,3.9)

export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
export PIP_DISABLE_PIP_VERSION_CHECK := 1

LINTERS := ruff mypy yamllint shellcheck reuse changelog docs build ansible-lint sanity

.PHONY: help
help: ## this list
	sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

.PHONY: site
site: $(READY) ## bring a test host up, provision the sample containers on it, and show them
	tests/site

.PHONY: test
test: $(READY) ## lint, unit, kernel, testhost and molecule, with a summary at the end
	python tests/phases.py lint,unit,kernel,testhost molecule

.PHONY: lint
lint: $(LINTERS:%=lint-%) ## every linter; one of them alone is lint-NAME

.PHONY: unit
unit: $(READY) $(if $(PYTHON39),$(READY39)) ## logic, without root; also on Python 3.9 where there is one
	pytest tests/unit
ifneq ($(PYTHON39),)
	echo "On Python 3.9, the oldest of a managed host:"
	$(VENV39)/bin/pytest tests/unit/plugins/module_utils
else
	echo "SKIPPED [1] tests/unit on Python 3.9: there is no such interpreter here; ruff and mypy check the syntax"
endif

.PHONY: kernel
kernel: $(READY) ## the modules and the launcher on this machine's kernel, as root
	pytest tests/kernel

.PHONY: systemd
systemd: $(READY) ## the modules on a virtual host with systemd and all controllers
	pytest tests/systemd

.PHONY: testhost
testhost: $(READY) ## the program that makes and boots the virtual hosts
	pytest tests/testhost

.PHONY: molecule
molecule: $(READY) ## the roles and playbooks on virtual hosts
	molecule test --all

.PHONY: bench
bench: $(READY) ## the figures: time, tasks, memory, against crun
	python tests/bench

.PHONY: clean
clean: ## remove everything that make has made here
	rm -rf build tests/output .venv .venv39 .collections .ansible .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The linters

.PHONY: $(LINTERS:%=lint-%) copy
copy: $(READY)
	rm -rf $(COPY)
	mkdir -p $(COPY)
	git ls-files -z --cached --others --exclude-standard \
	| tar --create --null --files-from=- --ignore-failed-read 2>/dev/null | tar --extract --directory=$(COPY)
	git init --quiet $(COPY) # else ansible-test finds the repository above, where the copy is ignored

lint-ruff: $(READY)
	ruff check

lint-mypy: $(READY)
	mypy -p ansible_collections.bare.containers.plugins.module_utils

lint-yamllint: copy
	cd $(COPY)
	yamllint --strict .

lint-shellcheck: copy
	cd $(COPY)
	git ls-files --others --exclude-standard | xargs -d '\n' awk 'FNR == 1 && /^#!.*[\/ ](ba|da)?sh( |$$)/ {print FILENAME}' \
	| xargs -d '\n' shellcheck

lint-reuse: $(READY)
	reuse lint --lines

lint-changelog: $(READY)
	antsibull-changelog lint

lint-docs: copy
	cd $(COPY)
	antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

lint-build: copy
	ansible-galaxy collection build --force --output-path build $(COPY)

lint-ansible-lint: copy
	cd $(COPY)
	ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/build/collection ansible-lint --nocolor

lint-sanity: copy
	python tests/sanity/run.py $(COPY)

# What everything needs

build/packages: requirements/debian.txt
	missing=$$(sed 's/#.*//' $< | xargs -n 1 | while read -r package; do
		dpkg-query --show --showformat='$${db:Status-Status}\n' "$$package" 2>/dev/null | grep -qx installed \
		|| echo "$$package"
	done)
	if [ -n "$$missing" ]; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing
	fi
	mkdir -p build
	touch $@

$(READY): requirements/ansible.txt requirements/lint.txt requirements/test.txt requirements/constraints.txt | build/packages
	test -x $(VENV)/bin/python || $(or $(PYTHON),$(error Python 3.11 or later is needed)) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(foreach purpose,ansible lint test,-r requirements/$(purpose).txt) \
		-c requirements/constraints.txt
	test -L $(LINK) || { rm -rf $(LINK); mkdir -p $(dir $(LINK)); ln -s ../../.. $(LINK); }
	touch $@

# On Python 3.9 there is no such ansible-core, but a managed host has its module_utils, which come with each module.
$(READY39): requirements/python39.txt $(READY)
	test -x $(VENV39)/bin/python || $(PYTHON39) -m venv $(VENV39)
	$(VENV39)/bin/pip install --quiet -r $<
	ansible=$$($(VENV)/bin/python -c 'import ansible; print(*ansible.__path__)')
	mkdir -p $(VENV39)/lib/python3.9/site-packages/ansible
	cd $(VENV39)/lib/python3.9/site-packages/ansible
	touch __init__.py
	ln -sfn "$$ansible/module_utils" module_utils
	touch $@
