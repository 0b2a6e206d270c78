/*
 * asof.c
 *		audit_log.as_of(): a table's rows as they were; rows_as_of(), row_as_of()
 *		the same as JSON.
 *
 * Rows that have not changed since are handed on as they are, straight from the
 * scan; of the others past_row.c makes what they were.  All is read under the
 * caller's snapshot, with his rights looked at once.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/timestamp.h"

#include "audit_log.h"

typedef struct Output
{
	AlPast	   *past;
	bool		json;
	bool		changed;		/* anything that rows have to be compared with */
	ReturnSetInfo *rsinfo;
	TupleTableSlot *then;
	struct AlVirtual *virtual;	/* columns to compute; NULL: none */
} Output;

static void
put_row(Output *output, TupleTableSlot *slot)
{
	if (output->json)
	{
		Datum		value = JsonbPGetDatum(al_row_object(output->past->table, slot));
		bool		isnull = false;

		tuplestore_putvalues(output->rsinfo->setResult, output->rsinfo->setDesc, &value, &isnull);
		return;
	}
	tuplestore_puttupleslot(output->rsinfo->setResult, slot);
}

/* A record's row as it was, if there was one. */
static void
put_past(Output *output, const AlPastRecord *record, TupleTableSlot *now)
{
	Bitmapset  *unknown = NULL;

	if (!al_past_row_make(output->past, record, now, output->then, &unknown))
		return;
	al_past_row_refuse_unknown(output->past, unknown);
	al_virtual_compute(output->virtual, output->then);
	put_row(output, output->then);
}

/*
 * Can the tuple be handed on as it is?  Not one that ends before columns that
 * came later: its reader would not know their defaults.
 */
static bool
is_complete(TupleTableSlot *slot)
{
	bool		shouldfree;
	HeapTuple	tuple;

	if (!TTS_IS_HEAPTUPLE(slot) && !TTS_IS_BUFFERTUPLE(slot))
		return true;
	tuple = ExecFetchSlotHeapTuple(slot, false, &shouldfree);
	return HeapTupleHeaderGetNatts(tuple->t_data) >= slot->tts_tupleDescriptor->natts;
}

static void
put_present(TupleTableSlot *slot, void *arg)
{
	Output	   *output = arg;
	AlPast	   *past = output->past;
	AlPastRecord *record = output->changed ? al_past_row_find(past, slot) : NULL;

	if (record != NULL && record->image != NULL)
	{
		/* so many rows of this image have come since */
		if (record->left < 0)
		{
			record->left++;
			return;
		}
		record = NULL;
	}
	if (record == NULL && past->added == NULL && output->virtual == NULL && is_complete(slot))
	{
		put_row(output, slot);
		return;
	}
	if (record != NULL)
	{
		if (record->seen)
			al_current_twice(past->rel, record->id_now);
		record->seen = true;
	}
	put_past(output, record, slot);
}

/* what is not there any more */
static void
put_gone(Output *output)
{
	AlPast	   *past = output->past;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	ListCell   *lc;

	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (record->image != NULL)
		{
			if (record->left < 0)
				al_past_missing(past, record);
			for (int64 i = 0; i < record->left; i++)
				put_past(output, record, NULL);
		}
		else if (record->id_now != NULL)
		{
			if (!record->seen)
				al_past_missing(past, record);
		}
		else
			put_past(output, record, NULL);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

static void
put_all(Output *output)
{
	AlFixed		saved;

	/* once for all rows: ids and values are written and read */
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		al_current_scan(output->past->rel, put_present, output);
		put_gone(output);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

static void
return_rows(FunctionCallInfo fcinfo, Oid relid, bool json)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Output		output = {.json = json,.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	AlMoment   *moment;
	ListCell   *lc;

	al_current_check_rights(rel);
	moment = al_moment_argument(fcinfo, 1);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	output.past = al_past_read(rel, moment, NIL, NULL);
	al_past_refuse(output.past);
	output.changed = output.past->records != NIL;
	foreach(lc, output.past->records)
		((AlPastRecord *) lfirst(lc))->left = ((AlPastRecord *) lfirst(lc))->count;
	output.then = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	output.virtual = json ? NULL : al_virtual_prepare(rel);
	put_all(&output);
	al_current_check_snapshot(rel);
	al_virtual_end(output.virtual);
	ExecDropSingleTupleTableSlot(output.then);
	al_past_end(output.past);
	table_close(rel, NoLock);
}

/* The table whose row type the argument has. */
static Oid
argument_table(FunctionCallInfo fcinfo, const char *hint)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the first argument must have a table's row type, not %s",
						OidIsValid(type) ? format_type_be(type) : "unknown"),
				 errhint("%s", hint)));
	return relid;
}

static Oid
table_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("table_name must not be NULL")));
	return PG_GETARG_OID(0);
}

/* audit_log.as_of(anyelement, moment) RETURNS SETOF anyelement */
PG_FUNCTION_INFO_V1(audit_log_as_of);
Datum
audit_log_as_of(PG_FUNCTION_ARGS)
{
	return_rows(fcinfo, argument_table(fcinfo, "Call it as audit_log.as_of(NULL::mine, moment): the table's own row type is what it returns."),
				false);
	return (Datum) 0;
}

/* audit_log.rows_as_of(table_name regclass, moment) RETURNS SETOF jsonb */
PG_FUNCTION_INFO_V1(audit_log_rows_as_of);
Datum
audit_log_rows_as_of(PG_FUNCTION_ARGS)
{
	return_rows(fcinfo, table_argument(fcinfo), true);
	return (Datum) 0;
}

/* ---- one row ---- */

static void
refuse_both(const AlPast *past, const char *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_CARDINALITY_VIOLATION),
			 errmsg("table %s had two rows of record %s at %s", past->states->name, id, past->moment->text),
			 errdetail("The mark's snapshot shows a row of its own transaction in the place of one that was removed after it was taken."),
			 errhint("audit_log.rows_as_of() and audit_log.as_of() give both.")));
}

/*
 * The record that bore the id then.  NULL with *gone: nobody did; without:
 * nothing has changed of whoever bears it.
 */
static AlPastRecord *
bearer_then(AlPast *past, const char *id, bool *gone)
{
	AlPastRecord *bearer = NULL;
	AlPastRecord *left = NULL;
	ListCell   *lc;

	*gone = false;
	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);

		if (record->id_then != NULL && strcmp(record->id_then, id) == 0)
		{
			if (bearer != NULL)
				refuse_both(past, id);
			bearer = record;
		}
		if (record->gone_now && strcmp(record->id_gone, id) == 0)
			left = record;
		*gone |= record->id_now != NULL && strcmp(record->id_now, id) == 0;
	}
	if (left != NULL)
	{
		bool		both = al_past_shows_both(past, id, left->change_id);

		if (bearer != NULL && both)
			refuse_both(past, id);
		*gone |= !both;
	}
	return bearer;
}

/* audit_log.row_as_of(table_name regclass, record_id text, moment) RETURNS jsonb */
PG_FUNCTION_INFO_V1(audit_log_row_as_of);
Datum
audit_log_row_as_of(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(table_argument(fcinfo), AccessShareLock);
	TupleTableSlot *now;
	TupleTableSlot *then;
	AlMoment   *moment;
	AlPast	   *past;
	AlPastRecord *record;
	Bitmapset  *unknown = NULL;
	Jsonb	   *object = NULL;
	char	   *id;
	bool		gone;

	al_current_check_rights(rel);
	moment = al_moment_argument(fcinfo, 2);
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("record_id must not be NULL")));
	id = al_translate_normal_id(al_current_table(rel, al_states_read(rel)), rel,
								text_to_cstring(PG_GETARG_TEXT_PP(1)));
	past = al_past_read(rel, moment, list_make1(id), NULL);
	al_past_refuse(past);
	now = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	then = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	record = bearer_then(past, id, &gone);
	/* also where it has come since, for it may stand beside the one that is asked for */
	if (record == NULL && !al_current_fetch(rel, past->table, id, now))
		gone = true;
	else if (record != NULL && record->whole == NULL)
		(void) al_current_fetch(rel, past->table, record->id_now, now);
	if ((record != NULL || !gone) && al_past_row_make(past, record, now, then, &unknown))
	{
		al_past_row_refuse_unknown(past, unknown);
		object = al_current_object(past->table, then);
	}
	al_current_check_snapshot(rel);
	ExecDropSingleTupleTableSlot(now);
	ExecDropSingleTupleTableSlot(then);
	al_past_end(past);
	table_close(rel, NoLock);
	if (object == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(object);
}

/* ---- names of things ---- */

/* audit_log.as_of_query(table_name regclass, moment) RETURNS text */
PG_FUNCTION_INFO_V1(audit_log_as_of_query);
Datum
audit_log_as_of_query(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(table_argument(fcinfo), AccessShareLock);
	AlMoment   *moment;
	AlFixed		saved;
	StringInfoData sql;

	al_current_check_rights(rel);
	moment = al_moment_argument(fcinfo, 1);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM audit_log.as_of(NULL::%s, ",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
												RelationGetRelationName(rel)));
	if (moment->mark)
		appendStringInfo(&sql, "%s::pg_catalog.text)", quote_literal_cstr(moment->text));
	else
	{
		/* whatever the settings of who reads it later */
		al_fixed_enter(&saved, AL_FIXED_VARIABLES);
		appendStringInfo(&sql, "'%s'::pg_catalog.timestamptz)",
						 DatumGetCString(DirectFunctionCall1(timestamptz_out,
															 TimestampTzGetDatum(moment->timestamp))));
		al_fixed_leave(&saved);
	}
	table_close(rel, NoLock);
	PG_RETURN_TEXT_P(cstring_to_text(sql.data));
}

/* audit_log.record_id(anyelement) RETURNS text */
PG_FUNCTION_INFO_V1(audit_log_record_id);
Datum
audit_log_record_id(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(argument_table(fcinfo, "Call it as SELECT audit_log.record_id(m) FROM mine m."),
								 AccessShareLock);
	AlTable    *table;
	TupleTableSlot *slot;
	HeapTupleData tuple;
	text	   *volatile id = NULL;
	AlFixed		saved;

	al_current_check_rights(rel);
	if (PG_ARGISNULL(0))
	{
		table_close(rel, NoLock);
		PG_RETURN_NULL();
	}
	table = al_current_table(rel, al_states_read(rel));
	tuple.t_data = PG_GETARG_HEAPTUPLEHEADER(0);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(&tuple, slot, false);
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		id = al_row_record_id(table, slot);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	if (id == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(id);
}

/*
 * audit_log._normal_record_id(table_name regclass, record_id text) RETURNS text:
 * a record_id as the log writes it, for report()
 */
PG_FUNCTION_INFO_V1(audit_log_normal_record_id);
Datum
audit_log_normal_record_id(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	AlTable    *table = al_current_table(rel, al_states_read(rel));
	char	   *id = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (table->nkeys > 0)
		id = al_translate_normal_id_as_caller(table, rel, id);
	table_close(rel, NoLock);
	PG_RETURN_TEXT_P(cstring_to_text(id));
}
