/*
 * empty_trigger.c - an AFTER ROW trigger that does nothing
 *
 * What PostgreSQL itself takes for having such a trigger: the queue of row
 * events, and the call.  No trigger can cost less.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "fmgr.h"

PG_MODULE_MAGIC;

PGDLLEXPORT Datum empty_trigger(PG_FUNCTION_ARGS);
PG_FUNCTION_INFO_V1(empty_trigger);

Datum
empty_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		elog(ERROR, "not called by trigger manager");
	return PointerGetDatum(NULL);
}
