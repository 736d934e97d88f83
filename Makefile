# bdr: multi-master logical replication for PostgreSQL 15.
#
#   make                  builds bdr.so (needs scripts/install-dependencies once)
#   make bdrctl           builds the operator's tool
#   make install          installs both beside the server of PG_CONFIG (DESTDIR is honoured; BDRCTL=no: without the tool)
#   make demo             installs what is missing, builds, starts two nodes and lets them replicate both ways
#   make demo-ha          the same behind HAProxy and PgBouncer: load, switchovers, a crash, and what it cost
#   make demo-stop        stops and removes what `make demo` or `make demo-ha` started
#   make check            installs what is missing, builds and runs all tests
#   make bench            compares with native logical replication (BENCH_OPTS='--quick'; bench/run --help lists them)
#   make reference        writes docs/reference.md from the catalog of what is built
#   make dist             a source archive of what is committed, in BUILD
#   make check-swift | check-counts | check-regress | check-upgrade | check-tap [TESTS='001_walk 008_crash']
#
# PG_CONFIG=… chooses another server, CC=clang another C compiler, BUILD=… another folder for what is built.
# The rules that make and install the module are in Extension/pgxs.mk: they need the server's headers, which the targets
# below may first have to install.

SHELL = /bin/bash
# Debian's, which the targets below install where there is none.
DEBIAN_PG_CONFIG = /usr/lib/postgresql/15/bin/pg_config
PG_CONFIG ?= $(firstword $(wildcard $(DEBIAN_PG_CONFIG)) $(shell command -v pg_config) $(DEBIAN_PG_CONFIG))
BUILD ?= .build
export PG_CONFIG BUILD

MODULE_TARGETS = all installdirs bdr.so bdrctl install-bdrctl

.PHONY: install uninstall $(MODULE_TARGETS) clean dependencies demo demo-ha demo-stop bench reference dist check check-swift check-counts check-regress check-upgrade check-tap
.DEFAULT_GOAL := all

$(MODULE_TARGETS):
	@scripts/install-dependencies --check-only module
	@$(MAKE) --no-print-directory -f Extension/pgxs.mk $@

# `all` leaves bdrctl out: the module needs no package fetched.
install uninstall:
	@scripts/install-dependencies --check-only module
	@$(MAKE) --no-print-directory -f Extension/pgxs.mk $@ $(if $(filter no,$(BDRCTL)),,$@-bdrctl)

dependencies:
	@scripts/install-dependencies check

demo:
	@scripts/install-dependencies build
	@$(MAKE) --no-print-directory all
	@scripts/demo start

demo-ha:
	@scripts/install-dependencies ha
	@$(MAKE) --no-print-directory all bdrctl
	@scripts/demo-ha

demo-stop:
	@scripts/demo stop

bench:
	@scripts/install-dependencies bench
	@$(MAKE) --no-print-directory all
	@bench/run $(BENCH_OPTS)

reference: all
	@scripts/reference

check check-swift check-counts check-regress check-upgrade check-tap:
	@scripts/install-dependencies check
	@$(MAKE) --no-print-directory all
	@scripts/check $(if $(filter check,$@),swift counts regress upgrade tap,$(@:check-%=%))

# What Debian's tools take for the upstream sources: without debian/, under the name that they look for.
VERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" SQL/bdr.control)
dist:
	@mkdir -p $(BUILD)
	git archive --format=tar.gz --prefix=bdr-$(VERSION)/ -o $(BUILD)/bdr_$(VERSION).orig.tar.gz HEAD ':!debian'
	@echo $(BUILD)/bdr_$(VERSION).orig.tar.gz

clean:
	rm -rf $(BUILD)
