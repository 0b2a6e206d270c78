# For an application's own Makefile, which gets by it
#
#     make generate_version_table_migration TABLE=mine [SCHEMA=shop] [OUT=folder] [FORMAT=flyway|alembic|django|sql]
#
# (see audit_log_version_table_migration --help). One line includes it:
#
#     include $(shell pg_config --sharedir)/extension/audit_log.mk
#
# SCHEMA, OUT and FORMAT may be set in that Makefile as well.

PG_CONFIG ?= pg_config

# The script lies in PostgreSQL's bindir, of the same installation as this file; in the project itself beside it.
AUDIT_LOG_MK := $(abspath $(lastword $(MAKEFILE_LIST)))
AUDIT_LOG_MIGRATION := $(or \
	$(wildcard $(dir $(AUDIT_LOG_MK))audit_log_version_table_migration), \
	$(patsubst %$(abspath $(shell $(PG_CONFIG) --sharedir))/extension/audit_log.mk,%,$(AUDIT_LOG_MK))$(shell $(PG_CONFIG) --bindir)/audit_log_version_table_migration)

# Names may hold anything; make expands nothing in them, and the shell gets them by its environment.
AUDIT_LOG_GOAL := $(.DEFAULT_GOAL)
.PHONY: generate_version_table_migration
generate_version_table_migration: export AUDIT_LOG_TABLE = $(value TABLE)
generate_version_table_migration: export AUDIT_LOG_SCHEMA = $(value SCHEMA)
generate_version_table_migration: export AUDIT_LOG_OUT = $(OUT)
generate_version_table_migration: export AUDIT_LOG_FORMAT = $(FORMAT)
generate_version_table_migration:
	@'$(AUDIT_LOG_MIGRATION)' TABLE="$$AUDIT_LOG_TABLE" SCHEMA="$$AUDIT_LOG_SCHEMA" OUT="$$AUDIT_LOG_OUT" FORMAT="$$AUDIT_LOG_FORMAT"
.DEFAULT_GOAL := $(AUDIT_LOG_GOAL)
