/*
 * values.c
 *		The rows that a plan aims at as rows of the table.
 *
 * Functions of users are called for types and generated columns only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "audit_log.h"

/* The aim as a row of the table; in scratch memory. */
static void
decode_row(AlPlanRow *row)
{
	AlPlanTable *table = row->table;
	TupleDesc	desc = RelationGetDescr(table->rel);
	Datum	   *values = palloc(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	Datum	   *decoded = palloc(sizeof(Datum) * desc->natts);
	bool	   *decoded_nulls = palloc(sizeof(bool) * desc->natts);
	AlPairs	   *pairs = al_pairs_room(row->aim, NULL);
	AlJsonWalk	walk;
	MemoryContext old;
	int			attnum = -1;

	if (row->present)
		heap_deform_tuple(row->tuple, desc, values, nulls);
	else
		memset(nulls, true, sizeof(bool) * desc->natts);

	/* generated ones are computed anew; until then they serve to find obstacles */
	al_jsonwalk_begin(&walk, &row->aim->root);
	while (al_jsonwalk_next(&walk))
	{
		AttrNumber	number = al_plan_column(table, walk.key, walk.keylen);

		if (bms_is_member(number, row->columns) ||
			(bms_is_member(number, table->generated) &&
			 !bms_is_member(number, table->virtual)))
			al_pairs_add(pairs, &walk);
	}
	al_decode_columns(table->decoder, al_pairs_object(pairs), decoded, decoded_nulls);
	while ((attnum = bms_next_member(row->columns, attnum)) >= 0)
	{
		values[attnum - 1] = decoded[attnum - 1];
		nulls[attnum - 1] = decoded_nulls[attnum - 1];
	}
	attnum = -1;
	while ((attnum = bms_next_member(table->generated, attnum)) >= 0)
	{
		values[attnum - 1] = decoded[attnum - 1];
		nulls[attnum - 1] = decoded_nulls[attnum - 1];
	}
	old = MemoryContextSwitchTo(table->cxt);
	row->target = heap_form_tuple(desc, values, nulls);
	MemoryContextSwitchTo(old);
}

static void
decode_one(AlPlanRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(row->table->scratch);

	decode_row(row);
	MemoryContextSwitchTo(old);
	MemoryContextReset(row->table->scratch);
}

static bool
to_be_decoded(const AlPlanRow *row)
{
	return row->target == NULL &&
		(row->action == AL_PLAN_INSERT || row->action == AL_PLAN_UPDATE);
}

static void
decode_rows(void *arg)
{
	AlPlanTable *table = arg;
	AlFixed		saved;

	/* once for all rows */
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		for (int i = 0; i < table->nrows; i++)
			if (to_be_decoded(table->rows[i]))
				decode_one(table->rows[i]);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

static void
decode_first(void *arg)
{
	AlPlanTable *table = arg;

	for (int i = 0; i < table->nrows; i++)
		if (to_be_decoded(table->rows[i]))
		{
			decode_one(table->rows[i]);
			return;
		}
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline Jsonb *
as_logged(AlPlanTable *table, TupleTableSlot *slot)
{
	AlEntry		entry;
	AlFixed		saved;

	al_fixed_enter(&saved, table->table->need);
	PG_TRY();
	{
		al_row_whole(table->table, slot, &entry);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return entry.changes;
}

/*
 * Stored generated columns as they will be, so that what is shown is what is
 * written, and keys over them can be looked at.  In the session's own settings:
 * their functions are the user's.
 */
static void
compute_generated(AlPlanTable *table)
{
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *info = makeNode(ResultRelInfo);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsHeapTuple);

	InitResultRelInfo(info, table->rel, 0, NULL, 0);
	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];
		MemoryContext old;

		if (row->target == NULL || row->left_out)
			continue;
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(table->scratch);
		ExecStoreHeapTuple(row->target, slot, false);
		ExecComputeStoredGenerated(info, estate, slot, CMD_INSERT);
		MemoryContextSwitchTo(table->cxt);
		row->target = ExecCopySlotHeapTuple(slot);
		MemoryContextSwitchTo(table->scratch);
		row->aim = al_plan_keep(table, as_logged(table, slot));
		ExecClearTuple(slot);
		MemoryContextSwitchTo(old);
		MemoryContextReset(table->scratch);
		ResetPerTupleExprContext(estate);
	}
	ExecDropSingleTupleTableSlot(slot);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

/*
 * Gives each row to be written its values.  What a type does not take any more
 * is a conflict of its row; since looking for it costs a subtransaction a row,
 * all are tried at once first.  In plan memory.
 */
void
al_values_decode(AlPlanTable *table)
{
	bool		all = al_plan_try(decode_rows, table) == NULL;

	for (int i = 0; i < table->nrows && !all; i++)
	{
		AlPlanRow  *row = table->rows[i];
		char	   *message;

		if (!to_be_decoded(row))
			continue;
		message = al_plan_try(decode_first, table);
		if (message != NULL)
			al_plan_leave_out(row, psprintf("a value cannot be read any more: %s", message));
	}
	if (!bms_equal(table->generated, table->virtual))
		compute_generated(table);
}
