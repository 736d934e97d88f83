# bdr: multi-master logical replication for PostgreSQL 15.
#
#   make                  builds bdr.so (needs scripts/install-dependencies once)
#   make install          installs it beside the server of PG_CONFIG (DESTDIR is honoured)
#   make demo             installs what is missing, builds, starts two nodes and lets them replicate both ways
#   make demo-stop        stops and removes what `make demo` started
#   make check            installs what is missing, builds and runs all tests
#   make bench            compares with native logical replication (BENCH_OPTS='--quick'; bench/run --help lists them)
#   make dist             a source archive of what is committed, in BUILD
#   make check-swift | check-regress | check-upgrade | check-tap [TESTS='001_walk 008_crash']
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

MODULE_TARGETS = all install installdirs uninstall bdr.so

.PHONY: $(MODULE_TARGETS) clean dependencies demo demo-stop bench dist check check-swift check-regress check-upgrade check-tap
.DEFAULT_GOAL := all

$(MODULE_TARGETS):
	@scripts/install-dependencies --check-only build
	@$(MAKE) --no-print-directory -f Extension/pgxs.mk $@

dependencies:
	@scripts/install-dependencies check

demo:
	@scripts/install-dependencies build
	@$(MAKE) --no-print-directory all
	@scripts/demo start

demo-stop:
	@scripts/demo stop

bench:
	@scripts/install-dependencies bench
	@$(MAKE) --no-print-directory all
	@bench/run $(BENCH_OPTS)

check check-swift check-regress check-upgrade check-tap:
	@scripts/install-dependencies check
	@$(MAKE) --no-print-directory all
	@scripts/check $(if $(filter check,$@),swift regress upgrade tap,$(@:check-%=%))

# What Debian's tools take for the upstream sources: without debian/, under the name that they look for.
VERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" SQL/bdr.control)
dist:
	@mkdir -p $(BUILD)
	git archive --format=tar.gz --prefix=bdr-$(VERSION)/ -o $(BUILD)/bdr_$(VERSION).orig.tar.gz HEAD ':!debian'
	@echo $(BUILD)/bdr_$(VERSION).orig.tar.gz

clean:
	rm -rf $(BUILD)
