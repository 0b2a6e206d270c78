/*
 * values.c
 *		The rows that a plan aims at as rows of the table.
 *
 * Functions of users are called for types, generated columns and CHECK only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
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
	/* generated ones are computed anew; until then they serve to find obstacles */
	Bitmapset  *wanted = bms_union(row->columns, table->generated);
	MemoryContext old;
	int			attnum = -1;

	if (row->present)
		heap_deform_tuple(row->tuple, desc, values, nulls);
	else
		memset(nulls, true, sizeof(bool) * desc->natts);
	if (!bms_is_empty(wanted))
		al_decode_columns(table->decoder, row->aim, wanted, decoded, decoded_nulls);
	while ((attnum = bms_next_member(wanted, attnum)) >= 0)
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

/* ---- constraints of the row itself ---- */

/* Does INSERT give the column a value that is not known before? */
static bool
gets_default(const AlPlanRow *row, Form_pg_attribute att)
{
	return row->action == AL_PLAN_INSERT && !bms_is_member(att->attnum, row->columns) &&
		att->attgenerated == '\0' && (att->atthasdef || att->attidentity != '\0');
}

/* A column that must not be NULL, and would be; and are all values known? */
static const char *
missing_value(const AlPlanRow *row, bool *all_known)
{
	TupleDesc	desc = RelationGetDescr(row->table->rel);

	*all_known = true;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || bms_is_member(i + 1, row->table->virtual))
			continue;
		if (gets_default(row, att))
			*all_known = false;
		else if (att->attnotnull && heap_attisnull(row->target, i + 1, desc))
			return NameStr(att->attname);
	}
	return NULL;
}

typedef struct Checking
{
	AlPlanTable *table;
	AlPlanRow  *row;			/* NULL: all that are to be written */
	TupleTableSlot *slot;
	ResultRelInfo *info;
	EState	   *estate;
	bool		partitioned;
	int			npartitions;	/* leaves */
	ExprState **bounds;			/* of each, over rows of the whole table */
	int			found;			/* the one of the row before */
} Checking;

/* What the server itself uses to route rows takes locks as for writing. */
static void
read_bounds(Checking *checking)
{
	Relation	rel = checking->table->rel;
	List	   *members = find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL);
	ListCell   *lc;

	checking->partitioned = true;
	checking->bounds = palloc(sizeof(ExprState *) * list_length(members));
	foreach(lc, members)
	{
		Relation	leaf = table_open(lfirst_oid(lc), NoLock);

		if (leaf->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
			checking->bounds[checking->npartitions++] =
				ExecPrepareCheck(map_partition_varattnos(RelationGetPartitionQual(leaf), 1, rel, leaf),
								 checking->estate);
		table_close(leaf, NoLock);
	}
}

static void
find_partition(Checking *checking)
{
	ExprContext *econtext = GetPerTupleExprContext(checking->estate);

	econtext->ecxt_scantuple = checking->slot;
	for (int i = 0; i < checking->npartitions; i++)
	{
		int			partition = (checking->found + i) % checking->npartitions;

		if (!ExecCheck(checking->bounds[partition], econtext))
			continue;
		checking->found = partition;
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("no partition of table %s takes the row", checking->table->name)));
}

static bool
to_be_checked(const AlPlanRow *row)
{
	return row->target != NULL && !row->left_out &&
		(row->action == AL_PLAN_INSERT || row->action == AL_PLAN_UPDATE);
}

static void
check_one(Checking *checking, AlPlanRow *row)
{
	bool		all_known;

	if (missing_value(row, &all_known) != NULL || !all_known)
		return;
	ExecStoreHeapTuple(row->target, checking->slot, false);
	if (RelationGetDescr(checking->table->rel)->constr != NULL)
		ExecConstraints(checking->info, checking->slot, checking->estate);
	if (checking->partitioned)
		find_partition(checking);
	ExecClearTuple(checking->slot);
	ResetPerTupleExprContext(checking->estate);
}

static void
check(void *arg)
{
	Checking   *checking = arg;

	CHECK_FOR_INTERRUPTS();
	if (checking->row != NULL)
		check_one(checking, checking->row);
	else
		for (int i = 0; i < checking->table->nrows; i++)
			if (to_be_checked(checking->table->rows[i]))
				check_one(checking, checking->table->rows[i]);
}

/*
 * Leaves out the rows that NOT NULL and CHECK forbid, be it that these have come
 * since, be it that not all of the row is in the log, and those of partitions
 * that are gone.  Where triggers alter what
 * is written nobody can tell before.
 */
static void
check_constraints(AlPlanTable *table)
{
	TriggerDesc *triggers = table->rel->trigdesc;
	Checking	checking = {.table = table};
	bool		all;

	if (table->nrows == 0 ||
		(RelationGetDescr(table->rel)->constr == NULL &&
		 table->rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE) ||
		(triggers != NULL && (triggers->trig_insert_before_row || triggers->trig_update_before_row)))
		return;
	checking.slot = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsHeapTuple);
	checking.estate = CreateExecutorState();
	checking.info = makeNode(ResultRelInfo);
	InitResultRelInfo(checking.info, table->rel, 0, NULL, 0);
	if (table->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		read_bounds(&checking);
	all = al_plan_try(check, &checking) == NULL;
	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];
		const char *missing;
		char	   *message;
		bool		all_known;

		if (!to_be_checked(row))
			continue;
		missing = missing_value(row, &all_known);
		if (missing != NULL)
			al_plan_leave_out(row, psprintf("column \"%s\" must not be NULL", missing));
		if (all || missing != NULL)
			continue;
		checking.row = row;
		message = al_plan_try(check, &checking);
		if (message != NULL)
			al_plan_leave_out(row, message);
	}
	ExecDropSingleTupleTableSlot(checking.slot);
	ExecResetTupleTable(checking.estate->es_tupleTable, false);
	FreeExecutorState(checking.estate);
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
	check_constraints(table);
}
