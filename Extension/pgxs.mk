# Builds and installs the module: C objects with the server's own flags (PGXS), the Swift engine as one static library
# (SwiftPM), both linked into one bdr.so. Run from the top of the checkout: make -f Extension/pgxs.mk (Makefile does).

PG_CONFIG ?= pg_config
BUILD ?= .build

SOURCES = $(sort $(wildcard Extension/*.c))
OBJS = $(SOURCES:Extension/%.c=$(BUILD)/c/%.o)
MODULES = $(BUILD)/bdr
ENGINE = $(BUILD)/release/libBDR.a
EXTENSION = SQL/bdr
DATA = $(sort $(wildcard SQL/bdr--*.sql))

SERVER_INCLUDE := $(shell $(PG_CONFIG) --includedir-server)
# Server headers are not ours to mend: as system headers they raise no warnings.
PG_CPPFLAGS = -IExtension -ISources/CHost/include -isystem $(SERVER_INCLUDE) -isystem $(shell $(PG_CONFIG) --includedir)
PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Werror
override with_llvm = no
NO_INSTALLCHECK = yes
INSTALL_STRIP_FLAG ?= -s

PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
# PGXS takes the folder of this file for that of the sources; paths here start at the top of the checkout.
srcdir = .

# The flags that pg_config hands out are gcc's: clang must not take those it does not know for an error.
ifneq ($(findstring clang,$(shell $(CC) --version 2>/dev/null)),)
override CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-unused-command-line-argument
endif

COMPILED_WITH = $(CC) $(CFLAGS) $(CPPFLAGS) PostgreSQL $(VERSION)

.PHONY: bdr.so bdrctl uninstall-module install-bdrctl uninstall-bdrctl FORCE
FORCE:
bdr.so: $(BUILD)/bdr.so

$(BUILD)/c/%.o: Extension/%.c $(BUILD)/c/flags
	$(CC) $(CFLAGS) $(CPPFLAGS) -MMD -MP -c $< -o $@

# This file's time changes only when compiler, flags or server change, so that objects of another build are not linked.
$(BUILD)/c/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(COMPILED_WITH)' | cmp -s - $@ || echo '$(COMPILED_WITH)' >$@

# SwiftPM knows by itself what is out of date; the archive's time changes only when its content does.
$(ENGINE): FORCE
	BDR_SERVER_ONLY=1 swift build -c release --product BDR --scratch-path $(BUILD)

# No symbol leaves the module but those of exports.map: the server loads modules with RTLD_GLOBAL, so another
# extension's function of the same name, or its Swift runtime, would otherwise be called instead of ours.
$(BUILD)/bdr.so: $(OBJS) $(ENGINE) Extension/exports.map
	swiftc -emit-library -static-stdlib -o $@.new $(OBJS) $(ENGINE) -L$(libdir) -lpq \
		-Xlinker --exclude-libs -Xlinker ALL -Xlinker --version-script=Extension/exports.map -Xlinker --gc-sections \
		-Xlinker --as-needed -Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now
	mv $@.new $@

# The operator's tool. In a folder of its own, as it is built with other flags; it takes the package ArgumentParser, which
# SwiftPM fetches. Its Swift runtime is linked into it: it runs where no Swift is installed.
bdrctl: $(BUILD)/bdrctl
$(BUILD)/bdrctl: FORCE
	swift build -c release --product bdrctl --static-swift-stdlib --scratch-path $(BUILD)/ctl -Xlinker -L$(libdir) \
		-Xlinker -z -Xlinker relro -Xlinker -z -Xlinker now
	@cmp -s $(BUILD)/ctl/release/bdrctl $@ || cp $(BUILD)/ctl/release/bdrctl $@

# What make install adds for it; without it (as the tests install, which need only the module) it is left out.
install-bdrctl: bdrctl
	$(MKDIR_P) '$(DESTDIR)$(bindir)' '$(DESTDIR)$(mandir)/man1'
	$(INSTALL_PROGRAM) $(BUILD)/bdrctl '$(DESTDIR)$(bindir)/bdrctl'
	$(INSTALL_DATA) docs/bdrctl.1 '$(DESTDIR)$(mandir)/man1/bdrctl.1'

# PGXS looks for it in a folder like the one it was built in.
uninstall: uninstall-module
uninstall-module:
	rm -f '$(DESTDIR)$(pkglibdir)/bdr.so'

uninstall-bdrctl:
	rm -f '$(DESTDIR)$(bindir)/bdrctl' '$(DESTDIR)$(mandir)/man1/bdrctl.1'

-include $(OBJS:.o=.d)
