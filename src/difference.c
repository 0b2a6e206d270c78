/*
 * difference.c
 *		audit_log.diff(): the net change of every record between two moments.
 *
 * Either moment's state is made from the present, so nothing depends on which
 * of the two is earlier.  A record is the same on both sides if it bears the
 * same id now, or has gone by the same change.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

/* up to so many rows are looked up one by one instead of in a scan */
#define FEW_ROWS 200

/* a record that has changed since one of the moments */
typedef struct Pair
{
	int64		change_id;		/* hash key: its newest change */
	AlPastRecord *from;			/* NULL: unchanged since */
	AlPastRecord *to;
} Pair;

typedef struct Output
{
	AlPast	   *from;
	AlPast	   *to;
	HTAB	   *pairs;
	ReturnSetInfo *rsinfo;
	TupleTableSlot *before;
	TupleTableSlot *after;
} Output;

static void
put_change(Output *output, const char *action, text *record_id, Jsonb *before, Jsonb *after,
		   Jsonb *changes)
{
	Datum		values[5];
	bool		nulls[5];

	values[0] = PointerGetDatum(record_id);
	nulls[0] = record_id == NULL;
	values[1] = CStringGetTextDatum(action);
	nulls[1] = false;
	values[2] = JsonbPGetDatum(before);
	nulls[2] = before == NULL;
	values[3] = JsonbPGetDatum(after);
	nulls[3] = after == NULL;
	values[4] = JsonbPGetDatum(changes);
	nulls[4] = changes == NULL;
	tuplestore_putvalues(output->rsinfo->setResult, output->rsinfo->setDesc, values, nulls);
}

/* The row at one of the moments as an object; NULL: there was none. */
static Jsonb *
object_at(AlPast *past, const AlPastRecord *record, TupleTableSlot *now, TupleTableSlot *slot,
		  text **record_id)
{
	Bitmapset  *unknown = NULL;

	/* not changed since: as it is now, if it is there */
	if (record == NULL && now == NULL)
		return NULL;
	if (!al_past_row_make(past, record, now, slot, &unknown))
		return NULL;
	al_past_row_refuse_unknown(past, unknown);
	*record_id = al_row_record_id(past->table, slot);
	return al_row_object(past->table, slot);
}

static void
put_pair(Output *output, const Pair *pair, TupleTableSlot *now)
{
	text	   *id_before = NULL;
	text	   *id_after = NULL;
	Jsonb	   *before = object_at(output->from, pair->from, now, output->before, &id_before);
	Jsonb	   *after = object_at(output->to, pair->to, now, output->after, &id_after);
	AlValue		old;
	AlValue		new;
	AlValue		delta;

	if (before == NULL && after == NULL)
		return;
	if (before == NULL || after == NULL)
	{
		put_change(output, before ? "DELETE" : "INSERT", before ? id_before : id_after,
				   before, after, NULL);
		return;
	}
	al_jsonbuild_from_root(&old, before);
	al_jsonbuild_from_root(&new, after);
	if (al_delta_objects(&old, &new, &delta))
		put_change(output, "UPDATE", id_after, before, after, al_jsonbuild_scalar(&delta));
}

/* ---- pairs ---- */

static bool
is_record(const AlPastRecord *record)
{
	return record->id_now != NULL || record->id_then != NULL;
}

static void
add_pairs(Output *output, AlPast *past)
{
	ListCell   *lc;

	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);
		Pair	   *pair;
		bool		found;

		if (!is_record(record))
			continue;
		pair = hash_search(output->pairs, &record->change_id, HASH_ENTER, &found);
		if (!found)
			pair->from = pair->to = NULL;
		if (past == output->from)
			pair->from = record;
		else
			pair->to = record;
	}
}

static const char *
id_now(const Pair *pair)
{
	return (pair->from ? pair->from : pair->to)->id_now;
}

/* A record whose row has not been found: there may be a reason, at either moment. */
static void
check_seen(Output *output, const Pair *pair)
{
	if ((pair->from ? pair->from : pair->to)->seen)
		return;
	if (pair->from != NULL)
		al_past_missing(output->from, pair->from);
	if (pair->to != NULL)
		al_past_missing(output->to, pair->to);
	/* it went with its partition: of either moment only what came later is known */
	if (pair->from == NULL || pair->to == NULL)
		al_past_misfit(output->from, psprintf("Record %s is not there, but its last change left it.",
											  id_now(pair)));
}

static void
put_present(TupleTableSlot *slot, void *arg)
{
	Output	   *output = arg;
	AlPastRecord *record = al_past_row_find(output->from, slot);
	Pair	   *pair;

	if (record == NULL)
		record = al_past_row_find(output->to, slot);
	if (record == NULL)
		return;
	pair = hash_search(output->pairs, &record->change_id, HASH_FIND, NULL);
	if ((pair->from ? pair->from : pair->to)->seen)
		al_current_twice(output->from->rel, id_now(pair));
	(pair->from ? pair->from : pair->to)->seen = true;
	put_pair(output, pair, slot);
}

static void
put_keyed(Output *output)
{
	AlPast	   *past = output->from;
	bool		few = hash_get_num_entries(output->pairs) <= FEW_ROWS;
	TupleTableSlot *now = MakeSingleTupleTableSlot(RelationGetDescr(past->rel), &TTSOpsHeapTuple);
	HASH_SEQ_STATUS seq;
	Pair	   *pair;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;

	if (!few)
		al_current_scan(past->rel, put_present, output);
	old = MemoryContextSwitchTo(scratch);
	hash_seq_init(&seq, output->pairs);
	while ((pair = hash_seq_search(&seq)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (id_now(pair) == NULL)
			put_pair(output, pair, NULL);
		else if (few)
		{
			if (al_current_fetch(past->rel, past->table, id_now(pair), now))
			{
				(pair->from ? pair->from : pair->to)->seen = true;
				put_pair(output, pair, now);
			}
			else
				check_seen(output, pair);
			ExecClearTuple(now);
		}
		else
			check_seen(output, pair);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	ExecDropSingleTupleTableSlot(now);
}

/* ---- without key ---- */

/* Rows of one image that one moment has more than the other. */
typedef struct Count
{
	const char *image;			/* hash key */
	Jsonb	   *object;
	int64		more;			/* at the second moment */
} Count;

static void
count_rows(HTAB *counts, AlPast *past, TupleTableSlot *slot, int sign)
{
	ListCell   *lc;

	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);
		AlPastRecord there = *record;
		Bitmapset  *unknown = NULL;
		Jsonb	   *object;
		char	   *image;
		Count	   *count;
		bool		found;

		if (record->count == 0)
			continue;
		there.count = 1;
		(void) al_past_row_make(past, &there, NULL, slot, &unknown);
		al_past_row_refuse_unknown(past, unknown);
		object = al_row_object(past->table, slot);
		image = JsonbToCString(NULL, &object->root, VARSIZE(object));
		count = hash_search(counts, &image, HASH_ENTER, &found);
		if (!found)
		{
			count->image = image;
			count->object = object;
			count->more = 0;
		}
		count->more += sign * record->count;
	}
}

static void
put_keyless(Output *output)
{
	HTAB	   *counts = al_texthash_create("audit_log rows", 256, sizeof(Count), CurrentMemoryContext);
	HASH_SEQ_STATUS seq;
	Count	   *count;

	count_rows(counts, output->from, output->before, -1);
	count_rows(counts, output->to, output->after, 1);
	hash_seq_init(&seq, counts);
	while ((count = hash_seq_search(&seq)) != NULL)
	{
		for (int64 i = 0; i < count->more; i++)
			put_change(output, "INSERT", NULL, NULL, count->object, NULL);
		for (int64 i = count->more; i < 0; i++)
			put_change(output, "DELETE", NULL, count->object, NULL, NULL);
	}
}

/* ---- entry ---- */

static void
put_all(Output *output)
{
	AlFixed		saved;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		if (output->from->keyed)
			put_keyed(output);
		else
			put_keyless(output);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * audit_log.diff(table_name regclass, from_moment, to_moment) RETURNS TABLE
 * (record_id text, action_type text, before jsonb, after jsonb, changes jsonb)
 */
PG_FUNCTION_INFO_V1(audit_log_diff);
Datum
audit_log_diff(PG_FUNCTION_ARGS)
{
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(Pair),.hcxt = CurrentMemoryContext};
	Output		output = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo};
	Relation	rel;
	AlMoment   *from;
	AlMoment   *to;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("table_name must not be NULL")));
	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	al_current_check_rights(rel);
	from = al_moment_argument(fcinfo, 1);
	to = al_moment_argument(fcinfo, 2);
	InitMaterializedSRF(fcinfo, 0);
	output.from = al_past_read(rel, from, NIL, NULL);
	al_past_refuse(output.from);
	output.to = al_past_read(rel, to, NIL, output.from->keyed ? NULL : output.from->added);
	al_past_refuse(output.to);
	if (!output.from->keyed && !bms_equal(output.from->added, output.to->added))
	{
		/* rows told apart by their image: by the columns that both moments have */
		AlPast	   *narrow = output.from;

		output.from = al_past_read(rel, from, NIL, output.to->added);
		al_past_end(narrow);
	}

	output.pairs = hash_create("audit_log pairs", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	output.before = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	output.after = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	add_pairs(&output, output.from);
	add_pairs(&output, output.to);
	put_all(&output);
	al_current_check_snapshot(rel);
	ExecDropSingleTupleTableSlot(output.before);
	ExecDropSingleTupleTableSlot(output.after);
	al_past_end(output.from);
	al_past_end(output.to);
	table_close(rel, NoLock);
	return (Datum) 0;
}
