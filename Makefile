# Plain PGXS: make && make install && make installcheck PG_CONFIG=…
# In another folder:  make -f <this folder>/Makefile, or with VPATH=<this folder>
#
#   make check           everything against private servers; installs what it needs, nothing of ours
#                        TESTS='a b' (regress, isolation) or PROVE_TESTS='t/001_a.pl' for some only
#   make check-matrix    the same on newer PostgreSQL versions, in chroots (VERSIONS='18' for some only)
#   make demo            see the README
#   make generate_version_table_migration TABLE=…   see tools/audit_log.mk
#   make bench           what auditing costs, see bench/README.md; make bench-quick: the main table only

# Targets that must work before PostgreSQL is installed, hence without PGXS (whose
# own "check" only says that it cannot).
OWN_TARGETS = check check-matrix demo bench bench-quick
THIS_MAKEFILE := $(abspath $(firstword $(MAKEFILE_LIST)))
SOURCE := $(or $(VPATH),$(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST)))))

ifneq (,$(filter generate_version_table_migration,$(MAKECMDGOALS)))

include $(SOURCE)/tools/audit_log.mk

else ifneq (,$(filter $(OWN_TARGETS),$(MAKECMDGOALS)))

.NOTPARALLEL:
.PHONY: $(MAKECMDGOALS)

$(filter $(OWN_TARGETS),$(MAKECMDGOALS)):
	@"$(SOURCE)/tools/$@"

$(filter-out $(OWN_TARGETS),$(MAKECMDGOALS)):
	+$(MAKE) -f "$(THIS_MAKEFILE)" $@

else

EXTENSION = audit_log
MODULE_big = audit_log
DATA := $(patsubst $(SOURCE)/%,%,$(sort $(wildcard $(SOURCE)/sql/audit_log--*.sql))) tools/audit_log.mk
SCRIPTS = tools/audit_log_version_table_migration
OBJS := $(patsubst $(SOURCE)/%.c,%.o,$(sort $(wildcard $(SOURCE)/src/*.c)))

# The lists are := because PGXS asks by ifdef whether they are empty.
names = $(sort $(basename $(notdir $(wildcard $(SOURCE)/sql_tests/$(1)))))
REGRESS := $(call names,*.sql)
ISOLATION := $(call names,*.spec)
TAP_TESTS := $(if $(wildcard $(SOURCE)/sql_tests/t/*.pl),1)
PROVE_TESTS = sql_tests/t/*.pl

REGRESS_PREP = tmp_inputdir
REGRESS_OPTS = --inputdir=tmp_inputdir --load-extension=audit_log
ISOLATION_OPTS = --inputdir=tmp_inputdir --load-extension=audit_log
NO_LOCALE = 1
ENCODING = UTF8

EXTRA_CLEAN = build demo tmp_inputdir

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

ifeq (,$(wildcard $(PGXS)))
# "make clean" also works where there is no PostgreSQL (any more).
.PHONY: clean
clean:
	rm -rf $(EXTRA_CLEAN) $(OBJS) $(OBJS:.o=.bc) audit_log.so results regression.* tmp_check tmp_check_iso log output_iso
ifneq (clean,$(MAKECMDGOALS))
$(error $(PG_CONFIG) --pgxs names no PGXS: install the server headers (Debian: postgresql-server-dev-15) or set PG_CONFIG)
endif
else

# A server built with LLVM wants bitcode of its extensions. Without that clang there is none,
# and the extension works all the same.
CLANG_OF_SERVER := $(shell sed -n 's/^CLANG *= *//p' "$(dir $(PGXS))../Makefile.global")
ifeq (,$(shell command -v "$(CLANG_OF_SERVER)"))
override with_llvm = no
endif

# make would take objects that lie beside the sources for those of a build elsewhere.
ifneq ($(realpath $(SOURCE)),$(realpath $(CURDIR)))
ifneq (,$(wildcard $(SOURCE)/src/*.o))
$(error $(SOURCE) has been built in place: run make clean there first)
endif
endif

include $(PGXS)

# From PostgreSQL 16 on only what is declared PGDLLEXPORT leaves the library; before, let the linker do the same.
ifneq (,$(filter linux,$(PORTNAME)))
ifneq (,$(filter 13 14 15,$(MAJORVERSION)))
SHLIB_LINK += -Wl,--version-script="$(SOURCE)/tools/exports.map"
$(shlib): $(SOURCE)/tools/exports.map
endif
endif

# PGXS tracks no headers, and makes no folders in a VPATH build (an absolute name, since
# make would find src itself by VPATH).
$(OBJS) $(OBJS:.o=.bc): $(wildcard $(SOURCE)/src/*.h) | $(CURDIR)/src
$(CURDIR)/src:
	mkdir -p $@

# pg_regress wants sql/ and expected/ in one folder, pg_isolation_regress specs/ and expected/.
.PHONY: tmp_inputdir
tmp_inputdir:
	rm -rf $@
	mkdir $@
	ln -s "$(abspath $(SOURCE))/sql_tests" $@/sql
	ln -s "$(abspath $(SOURCE))/sql_tests" $@/specs
	ln -s "$(abspath $(SOURCE))/expected" $@/expected

endif
endif
