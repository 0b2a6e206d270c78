/*
 * present.c
 *		The rows of a plan as they stand now, locked where they are to be
 *		written, so that they stay so.
 *
 * Lives as long as a call; results go to the plan's memory.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

#define FETCH_ROWS 1000

/* ---- record ids to keys ---- */

static Oid
key_type(const AlPlanTable *table, int n)
{
	return TupleDescAttr(RelationGetDescr(table->rel), table->keys[n] - 1)->atttypid;
}

/* The texts of a record id, one for each key column; false where it has not so many. */
static bool
split_id(const AlPlanTable *table, const char *id, AlValue *out)
{
	Jsonb	   *json;
	AlJsonWalk	walk;
	AlValue		root;
	int			n = 0;

	if (table->nkeys == 1)
	{
		al_translate_key_text(key_type(table, 0), unconstify(char *, id), strlen(id), &out[0]);
		return true;
	}
	json = al_jsontext_try(id, strlen(id));
	if (json == NULL || !JB_ROOT_IS_ARRAY(json) || JB_ROOT_IS_SCALAR(json) ||
		(int) JB_ROOT_COUNT(json) != table->nkeys)
		return false;
	al_jsonbuild_from_root(&root, json);
	al_jsonwalk_begin(&walk, root.container);
	while (al_jsonwalk_next(&walk))
	{
		if (walk.value.kind != AL_STRING)
			return false;
		al_translate_key_text(key_type(table, n), pnstrdup(walk.value.string, walk.value.len),
							  walk.value.len, &out[n]);
		n++;
	}
	return true;
}

/*
 * The key columns' values, by attribute number from 0, the others NULL; false
 * where the id is none of such a key.  Under AL_FIXED_ALL.
 */
static bool
read_key(AlPlanTable *table, const char *id, Datum *values, bool *nulls)
{
	AlValue    *key = palloc(sizeof(AlValue) * table->nkeys);

	memset(nulls, true, sizeof(bool) * RelationGetDescr(table->rel)->natts);
	if (!split_id(table, id, key))
		return false;
	for (int i = 0; i < table->nkeys; i++)
	{
		int			attno = table->keys[i] - 1;

		values[attno] = al_decode_value(table->decoder, attno, &key[i], true, &nulls[attno]);
	}
	return true;
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline bool
read_key_fixed(AlPlanTable *table, const char *id, Datum *values, bool *nulls)
{
	volatile bool read = false;
	AlFixed		saved;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		read = read_key(table, id, values, nulls);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return read;
}

/* What key is the id of, in whatever text its types read ('007')?  NULL: of none. */
char *
al_present_record_id(AlPlanTable *table, const char *id)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	TupleTableSlot *slot;
	text	   *volatile result = NULL;
	AlFixed		saved;

	if (table->nkeys == 0 || !read_key_fixed(table, id, values, nulls))
		return NULL;
	slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(heap_form_tuple(desc, values, nulls), slot, false);
	al_fixed_enter(&saved, table->table->need);
	PG_TRY();
	{
		result = al_row_record_id(table->table, slot);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	ExecDropSingleTupleTableSlot(slot);
	return text_to_cstring(result);
}

/* ---- rows to the plan ---- */

typedef struct Taker
{
	AlPlan	   *plan;
	AlPlanTable *table;
	TupleTableSlot *slot;
	MemoryContext scratch;
} Taker;

/* The columns of the table as the select list of name. */
static char *
select_list(AlPlanTable *table, const char *name)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !bms_is_member(att->attnum, table->virtual))
			appendStringInfo(&buf, ", %s.%s", name, quote_identifier(NameStr(att->attname)));
	}
	return buf.data;
}

/* A result of which the columns from first on are select_list(). */
static HeapTuple
make_tuple(AlPlanTable *table, HeapTuple from, TupleDesc from_desc, int first)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	Datum	   *values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	Datum	   *from_values = palloc(sizeof(Datum) * from_desc->natts);
	bool	   *from_nulls = palloc(sizeof(bool) * from_desc->natts);

	heap_deform_tuple(from, from_desc, from_values, from_nulls);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		nulls[i] = true;
		if (att->attisdropped || bms_is_member(att->attnum, table->virtual))
			continue;
		values[i] = from_values[first - 1];
		nulls[i] = from_nulls[first - 1];
		first++;
	}
	return heap_form_tuple(desc, values, nulls);
}

/* What the log would say of the row; in CurrentMemoryContext. */
static void
describe(Taker *taker, HeapTuple tuple, AlEntry *entry)
{
	ExecStoreHeapTuple(tuple, taker->slot, false);
	al_row_whole(taker->table->table, taker->slot, entry);
	ExecClearTuple(taker->slot);
}

/* Columns no, tableoid, ctid, and the table's: is it the record that is looked for? */
static bool
take_found(Taker *taker, HeapTuple result, TupleDesc desc)
{
	bool		isnull;
	AlPlanTable *table = taker->table;
	AlPlanRow  *row = table->rows[DatumGetInt32(SPI_getbinval(result, desc, 1, &isnull))];
	HeapTuple	tuple = make_tuple(table, result, desc, 4);
	AlEntry		entry;
	MemoryContext old;

	describe(taker, tuple, &entry);
	/* what an index takes for equal need not be the same record */
	if (strcmp(text_to_cstring(entry.record_id), row->id) != 0)
		return false;
	old = MemoryContextSwitchTo(taker->plan->cxt);
	tuple = heap_copytuple(tuple);
	tuple->t_self = *(ItemPointer) DatumGetPointer(SPI_getbinval(result, desc, 3, &isnull));
	al_plan_set_present(row, tuple, DatumGetObjectId(SPI_getbinval(result, desc, 2, &isnull)),
						(Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(entry.changes)));
	MemoryContextSwitchTo(old);
	return true;
}

/* Columns tableoid, ctid, and the table's: is it one of those that are looked for? */
static bool
take_scanned(Taker *taker, HeapTuple result, TupleDesc desc)
{
	bool		isnull;
	HeapTuple	tuple = make_tuple(taker->table, result, desc, 3);
	AlEntry		entry;
	Jsonb	   *stripped;
	AlPlanRow  *row;
	MemoryContext old;

	describe(taker, tuple, &entry);
	row = al_plan_find_row(taker->table, al_plan_image_id(entry.changes, &stripped));
	while (row != NULL && row->present)
		row = row->same_id;
	if (row == NULL)
		return false;
	old = MemoryContextSwitchTo(taker->plan->cxt);
	tuple = heap_copytuple(tuple);
	tuple->t_self = *(ItemPointer) DatumGetPointer(SPI_getbinval(result, desc, 2, &isnull));
	al_plan_set_present(row, tuple, DatumGetObjectId(SPI_getbinval(result, desc, 1, &isnull)),
						(Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(entry.changes)));
	MemoryContextSwitchTo(old);
	return true;
}

/* ---- looking ---- */

static const char *
only(const AlPlanTable *table)
{
	return table->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static AlRowset *
fill_keys(AlPlanTable *table)
{
	AlRowset   *rowset = al_rowset_make(table, "audit_log_keys");
	int			natts = RelationGetDescr(table->rel)->natts;
	Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	MemoryContext old = MemoryContextSwitchTo(table->scratch);

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		CHECK_FOR_INTERRUPTS();
		if (row->id == NULL || row->gone || row->left_out)
			continue;
		if (read_key(table, row->id, values, nulls))
			al_rowset_add_key(rowset, row, values, nulls);
		else
			al_plan_leave_out(row, "the table has another key now");
		MemoryContextReset(table->scratch);
	}
	MemoryContextSwitchTo(old);
	return rowset;
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline AlRowset *
wanted_keys(AlPlanTable *table)
{
	AlRowset   *volatile rowset = NULL;
	AlFixed		saved;

	/* once for all keys */
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		rowset = fill_keys(table);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return rowset;
}

static int64
take_each(Taker *taker, uint64 n, bool (*take) (Taker *taker, HeapTuple result, TupleDesc desc))
{
	int64		taken = 0;

	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(taker->scratch);

		taken += take(taker, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
		MemoryContextSwitchTo(old);
		MemoryContextReset(taker->scratch);
		if (i % FETCH_ROWS == FETCH_ROWS - 1)
			al_progress_add(FETCH_ROWS);
	}
	return taken;
}

/* What the last statement has found; how many of it are the plan's. */
static pg_noinline int64
take_result(Taker *taker, uint64 n, bool (*take) (Taker *taker, HeapTuple result, TupleDesc desc))
{
	volatile int64 taken = 0;
	AlFixed		saved;

	al_fixed_enter(&saved, taker->table->table->need);
	PG_TRY();
	{
		taken = take_each(taker, n, take);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	SPI_freetuptable(SPI_tuptable);
	return taken;
}

/* Whoever may only DELETE cannot lock rows by a statement of his own. */
static bool
may_lock(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_UPDATE) == ACLCHECK_OK ||
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_UPDATE, ACLMASK_ANY) == ACLCHECK_OK;
}

static void
find_by_key(Taker *taker, bool lock)
{
	AlPlanTable *table = taker->table;
	AlRowset   *rowset = wanted_keys(table);
	StringInfoData sql;
	uint64		n;

	al_rowset_register(rowset);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT r.%s, t.tableoid, t.ctid%s FROM %s r, %s%s t WHERE %s%s",
					 rowset->no, select_list(table, "t"), rowset->name, only(table), table->name,
					 al_rowset_same_row(rowset, "t", "r"),
					 lock ? " FOR NO KEY UPDATE OF t" : "");
	n = lock && !may_lock(table->relid) ?
		al_run_as(table->rel->rd_rel->relowner, sql.data) : al_run(sql.data, false);
	(void) take_result(taker, n, take_found);
	al_rowset_free(rowset);
}

/* The whole table is read, since its rows have nothing to find them by. */
static void
find_by_image(Taker *taker)
{
	AlPlanTable *table = taker->table;
	Portal		portal;
	int64		wanted = 0;
	StringInfoData sql;

	for (int i = 0; i < table->nrows; i++)
		wanted += table->rows[i]->id != NULL && !table->rows[i]->gone;
	if (wanted == 0)
		return;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT t.tableoid, t.ctid%s FROM %s%s t", select_list(table, "t"),
					 only(table), table->name);
	PushActiveSnapshot(al_run_snapshot());
	portal = SPI_cursor_open_with_args(NULL, sql.data, 0, NULL, NULL, NULL, true,
									   CURSOR_OPT_NO_SCROLL);
	while (wanted > 0)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		wanted -= take_result(taker, SPI_processed, take_scanned);
	}
	SPI_cursor_close(portal);
	PopActiveSnapshot();
}

/*
 * Finds the rows of a table's plan by their ids, and says of each whether it is
 * there.  lock: they are to stay as they are, until the transaction ends; of a
 * table without key the caller has locked the whole.
 */
void
al_present_find(AlPlan *plan, AlPlanTable *table, bool lock)
{
	Taker		taker = {.plan = plan,.table = table};

	for (int i = 0; i < table->nrows; i++)
		table->rows[i]->present = false;
	taker.slot = MakeSingleTupleTableSlot(RelationGetDescr(table->rel), &TTSOpsHeapTuple);
	taker.scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log present row",
										  ALLOCSET_DEFAULT_SIZES);
	if (table->nkeys > 0)
		find_by_key(&taker, lock);
	else
		find_by_image(&taker);
	MemoryContextDelete(taker.scratch);
	ExecDropSingleTupleTableSlot(taker.slot);
}
