/*
 * rewrite.c
 *		Writes what a plan is about: by statements over many rows, run as the
 *		caller, with his rights and his triggers.
 *
 * All statements stand in one level of triggers, which is ended when the rows
 * of all tables are written: so foreign keys, cycles among them included, are
 * checked against what there is then, and their actions find nothing left to
 * do in the tables of the plan.  (So ri_triggers.c runs its own.)
 *
 * First rows are deleted, then some make way for others, then rows are
 * updated, and last inserted; a row that keeps existing is updated, since what
 * refers to it would go with it otherwise.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

/* rows of one statement: so that progress is seen, and plans stay those for few rows */
#define BATCH_ROWS 50000

/* ---- user triggers ---- */

typedef struct HeldTrigger
{
	Oid			oid;
	Oid			relid;
	char		enabled;
} HeldTrigger;

static void
set_trigger(Oid relid, Oid trigger, char enabled)
{
	Relation	catalog = table_open(TriggerRelationId, RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(catalog, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		tuple = heap_copytuple(tuple);
		((Form_pg_trigger) GETSTRUCT(tuple))->tgenabled = enabled;
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
		CacheInvalidateRelcacheByRelid(relid);
	}
	systable_endscan(scan);
	table_close(catalog, RowExclusiveLock);
}

static bool
is_users(const Trigger *trigger)
{
	const AlCatalog *catalog = al_catalog_get();

	return !trigger->tgisinternal && trigger->tgfoid != catalog->capture &&
		trigger->tgfoid != catalog->capture_flush && trigger->tgfoid != catalog->capture_truncate;
}

/*
 * Switches the user's triggers of a relation off, by their catalog entries: no
 * other session ever sees that, so it needs no lock against those that read or
 * write (ALTER TABLE would take one, and refuse while constraints are deferred).
 */
static List *
hold_triggers_of(Oid relid, List *held)
{
	Relation	rel = table_open(relid, NoLock);

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];
		HeldTrigger *one;

		if (!is_users(trigger) || trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		one = palloc(sizeof(HeldTrigger));
		one->oid = trigger->tgoid;
		one->relid = relid;
		one->enabled = trigger->tgenabled;
		held = lappend(held, one);
	}
	table_close(rel, NoLock);
	return held;
}

static List *
hold_triggers(AlPlan *plan)
{
	List	   *held = NIL;
	ListCell   *lc;

	foreach(lc, plan->tables)
	{
		ListCell   *member;

		foreach(member, find_all_inheritors(((AlPlanTable *) lfirst(lc))->relid, NoLock, NULL))
		{
			/* inheritance children are tables of their own */
			if (lfirst_oid(member) != ((AlPlanTable *) lfirst(lc))->relid &&
				!get_rel_relispartition(lfirst_oid(member)))
				continue;
			held = hold_triggers_of(lfirst_oid(member), held);
		}
	}
	foreach(lc, held)
	{
		HeldTrigger *one = lfirst(lc);

		set_trigger(one->relid, one->oid, TRIGGER_DISABLED);
	}
	CommandCounterIncrement();
	return held;
}

static void
release_triggers(List *held)
{
	ListCell   *lc;

	CommandCounterIncrement();
	foreach(lc, held)
	{
		HeldTrigger *one = lfirst(lc);

		set_trigger(one->relid, one->oid, one->enabled);
	}
	CommandCounterIncrement();
}

/* ---- identity columns ---- */

static bool
is_always_identity(const AlPlanTable *table, int attnum)
{
	return TupleDescAttr(RelationGetDescr(table->rel), attnum - 1)->attidentity == ATTRIBUTE_IDENTITY_ALWAYS;
}

/*
 * No UPDATE sets a column GENERATED ALWAYS AS IDENTITY, and DELETE and INSERT
 * would take along, by actions of foreign keys, what refers to the row.  So for
 * one statement it is BY DEFAULT, which like held triggers no other session sees.
 */
static void
set_identity(AlPlanTable *table, Bitmapset *columns, char identity)
{
	Relation	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	int			attnum = -1;

	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		HeapTuple	tuple = SearchSysCacheCopyAttNum(table->relid, attnum);

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for column %d of relation %u", attnum, table->relid);
		((Form_pg_attribute) GETSTRUCT(tuple))->attidentity = identity;
		CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
		heap_freetuple(tuple);
	}
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
}

static Bitmapset *
identities(const AlPlanTable *table, Bitmapset *columns)
{
	Bitmapset  *found = NULL;
	int			attnum = -1;

	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		if (is_always_identity(table, attnum))
			found = bms_add_member(found, attnum);
	return found;
}

/* ---- statements ---- */

static const char *
only(const AlPlanTable *table)
{
	return table->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static char *
column_name(const AlPlanTable *table, int attnum)
{
	return pstrdup(quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(table->rel),
														  attnum - 1)->attname)));
}

static char *
delete_statement(AlRowset *rowset, Bitmapset *columns)
{
	AlPlanTable *table = rowset->table;

	(void) columns;
	return psprintf("DELETE FROM %s%s AS t USING %s AS r WHERE %s", only(table), table->name,
					rowset->name, al_rowset_same_row(rowset, "t", "r"));
}

static char *
update_statement(AlRowset *rowset, Bitmapset *columns)
{
	AlPlanTable *table = rowset->table;
	StringInfoData set;
	int			attnum = -1;

	initStringInfo(&set);
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		char	   *name = column_name(table, attnum);

		appendStringInfo(&set, "%s%s = r.%s", set.len > 0 ? ", " : "", name, name);
	}
	return psprintf("UPDATE %s%s AS t SET %s FROM %s AS r WHERE %s", only(table), table->name,
					set.data, rowset->name, al_rowset_same_row(rowset, "t", "r"));
}

static char *
park_statement(AlRowset *rowset, Bitmapset *columns)
{
	AlPlanTable *table = rowset->table;
	StringInfoData set;
	int			attnum = -1;

	initStringInfo(&set);
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		appendStringInfo(&set, "%s%s = %s", set.len > 0 ? ", " : "",
						 column_name(table, attnum), table->parking[attnum - 1]);
	return psprintf("UPDATE %s%s AS t SET %s FROM %s AS r WHERE %s", only(table), table->name,
					set.data, rowset->name, al_rowset_same_row(rowset, "t", "r"));
}

static char *
insert_statement(AlRowset *rowset, Bitmapset *columns)
{
	AlPlanTable *table = rowset->table;
	StringInfoData names;
	StringInfoData values;
	int			attnum = -1;

	/* a row of defaults for each */
	if (bms_is_empty(columns))
		return psprintf("INSERT INTO %s SELECT FROM %s AS r", table->name, rowset->name);
	initStringInfo(&names);
	initStringInfo(&values);
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		char	   *name = column_name(table, attnum);

		appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", name);
		appendStringInfo(&values, "%sr.%s", values.len > 0 ? ", " : "", name);
	}
	return psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS r",
					table->name, names.data, values.data, rowset->name);
}

/* ---- rows to statements ---- */

/* one kind of statement: the rows it is for, and the columns it sets */
typedef struct Phase
{
	bool		(*has) (const AlPlanRow *row);
	Bitmapset  *(*columns) (const AlPlanRow *row);
	char	   *(*statement) (AlRowset *rowset, Bitmapset *columns);
} Phase;

static bool
is_deleted(const AlPlanRow *row)
{
	return row->action == AL_PLAN_DELETE || row->replace;
}

static bool
is_parked(const AlPlanRow *row)
{
	return !row->replace && !bms_is_empty(row->park);
}

static bool
is_updated(const AlPlanRow *row)
{
	return row->action == AL_PLAN_UPDATE && !row->replace;
}

static bool
is_inserted(const AlPlanRow *row)
{
	return row->action == AL_PLAN_INSERT || row->replace;
}

static Bitmapset *
no_columns(const AlPlanRow *row)
{
	(void) row;
	return NULL;
}

static Bitmapset *
parked_columns(const AlPlanRow *row)
{
	return row->park;
}

static Bitmapset *
updated_columns(const AlPlanRow *row)
{
	/* what was parked gets its value, also where that is the former one */
	return bms_is_empty(row->park) ? row->columns : bms_union(row->columns, row->park);
}

static Bitmapset *
inserted_columns(const AlPlanRow *row)
{
	const AlPlanTable *table = row->table;
	TupleDesc	desc = RelationGetDescr(table->rel);
	Bitmapset  *columns = NULL;

	if (!row->replace)
		return row->columns;
	/* with all that the log has not, but the row had */
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped && !bms_is_member(i + 1, table->generated))
			columns = bms_add_member(columns, i + 1);
	return columns;
}

static const Phase phases[] = {
	{is_deleted, no_columns, delete_statement},
	{is_parked, parked_columns, park_statement},
	{is_updated, updated_columns, update_statement},
	{is_inserted, inserted_columns, insert_statement},
};

typedef struct WriteItem
{
	AlPlanRow  *row;
	Bitmapset  *columns;
} WriteItem;

/* rows that set the same columns side by side, else in the plan's order */
static int
compare_items(const void *a, const void *b)
{
	const WriteItem *x = (const WriteItem *) a;
	const WriteItem *y = (const WriteItem *) b;
	int			cmp = bms_compare(x->columns, y->columns);

	if (cmp != 0)
		return cmp;
	return x->row->no < y->row->no ? -1 : x->row->no > y->row->no;
}

static void
run_batch(AlPlanTable *table, const Phase *phase, const WriteItem *items, int n)
{
	AlRowset   *rowset = al_rowset_make(table, "audit_log_rows");
	Bitmapset  *always = phase->statement == update_statement ?
		identities(table, items[0].columns) : NULL;

	for (int i = 0; i < n; i++)
		al_rowset_add(rowset, items[i].row, false, items[i].columns);
	al_rowset_register(rowset);
	if (!bms_is_empty(always))
		set_identity(table, always, ATTRIBUTE_IDENTITY_BY_DEFAULT);
	al_run(phase->statement(rowset, items[0].columns), true);
	if (!bms_is_empty(always))
		set_identity(table, always, ATTRIBUTE_IDENTITY_ALWAYS);
	al_rowset_free(rowset);
	al_progress_add(n);
}

static AlRowset *
all_aims(AlPlanTable *table)
{
	AlRowset   *rowset = al_rowset_make(table, "audit_log_aims");
	Bitmapset  *all = bms_make_singleton(0);

	for (int i = 0; i < table->nrows; i++)
		if (table->rows[i]->target != NULL && !table->rows[i]->left_out)
			al_rowset_add(rowset, table->rows[i], false, all);
	al_rowset_register(rowset);
	return rowset;
}

static void
run_phase(AlPlanTable *table, const Phase *phase)
{
	WriteItem	   *items = palloc_extended(sizeof(WriteItem) * Max(table->nrows, 1), MCXT_ALLOC_HUGE);
	AlRowset   *aims = NULL;
	int			n = 0;

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		if (row->left_out || !phase->has(row))
			continue;
		items[n].row = row;
		items[n++].columns = phase->columns(row);
	}
	if (n > 0 && phase->statement == park_statement)
		aims = all_aims(table);
	qsort(items, n, sizeof(WriteItem), compare_items);
	for (int from = 0; from < n;)
	{
		int			to = from + 1;

		while (to < n && to - from < BATCH_ROWS &&
			   bms_equal(items[to].columns, items[from].columns))
			to++;
		CHECK_FOR_INTERRUPTS();
		run_batch(table, phase, items + from, to - from);
		from = to;
	}
	if (aims != NULL)
		al_rowset_free(aims);
	pfree(items);
}

static void
run_phases(AlPlan *plan)
{
	for (int i = 0; i < (int) lengthof(phases); i++)
	{
		ListCell   *lc;

		foreach(lc, plan->tables)
			run_phase(lfirst(lc), &phases[i]);
	}
}

static int64
rows_to_write(const AlPlan *plan)
{
	int64		n = 0;
	ListCell   *lc;

	foreach(lc, plan->tables)
	{
		const AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
			n += !table->rows[i]->left_out && table->rows[i]->action != AL_PLAN_NONE;
	}
	return n;
}

static void
fire_triggers(void)
{
	EState	   *estate = CreateExecutorState();

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	AfterTriggerEndQuery(estate);
	PopActiveSnapshot();
	ExecCloseResultRelations(estate);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
}

/* ---- errors ---- */

static char *
constraint_id(const char *schema, const char *table, const char *constraint)
{
	return quote_qualified_identifier(quote_qualified_identifier(schema, table), constraint);
}

static void
add_constraint(List **names, Oid relid, const char *constraint)
{
	*names = lappend(*names, constraint_id(get_namespace_name(get_rel_namespace(relid)),
										   get_rel_name(relid), constraint));
}

/* The one of the whole table that a partition's constraint is part of. */
static Oid
parent_constraint(Oid constraint)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Oid			parent = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		parent = ((Form_pg_constraint) GETSTRUCT(tuple))->conparentid;
		ReleaseSysCache(tuple);
	}
	return parent;
}

static List *
checked_of(Relation rel, List *names)
{
	ListCell   *lc;

	/* a trigger that alters rows may be why they do not fit */
	if (rel->trigdesc != NULL &&
		(rel->trigdesc->trig_insert_before_row || rel->trigdesc->trig_update_before_row))
		return names;
	foreach(lc, RelationGetIndexList(rel))
		/* a key that only one partition has is not looked at */
		if (!rel->rd_rel->relispartition || get_rel_relispartition(lfirst_oid(lc)))
			add_constraint(&names, RelationGetRelid(rel), get_rel_name(lfirst_oid(lc)));
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];
		int			type = RI_FKey_trigger_type(trigger->tgfoid);
		char	   *name;

		if (type == RI_TRIGGER_NONE || !OidIsValid(trigger->tgconstraint))
			continue;
		/* nor is a foreign key to or from a single partition */
		if (rel->rd_rel->relispartition && !OidIsValid(parent_constraint(trigger->tgconstraint)))
			continue;
		name = get_constraint_name(trigger->tgconstraint);
		if (name != NULL)
			add_constraint(&names, type == RI_TRIGGER_PK ? trigger->tgconstrrelid :
						   RelationGetRelid(rel), name);
	}
	return names;
}

/*
 * The constraints that were looked at before anything is written: what breaks
 * one of them has been committed by others since.
 */
static List *
checked_constraints(AlPlan *plan)
{
	List	   *names = NIL;
	ListCell   *lc;

	/* an action of a foreign key on what is written may be the reason, too */
	foreach(lc, plan->tables)
		if (((AlPlanTable *) lfirst(lc))->again)
			return NIL;
	foreach(lc, plan->tables)
	{
		AlPlanTable *table = lfirst(lc);
		ListCell   *member;

		foreach(member, find_all_inheritors(table->relid, NoLock, NULL))
		{
			Relation	rel;

			if (lfirst_oid(member) != table->relid && !get_rel_relispartition(lfirst_oid(member)))
				continue;
			rel = table_open(lfirst_oid(member), NoLock);
			names = checked_of(rel, names);
			table_close(rel, NoLock);
		}
	}
	return names;
}

static bool
is_concurrent(List *checked, const ErrorData *error)
{
	char	   *id;
	ListCell   *lc;

	if (error->sqlerrcode != ERRCODE_UNIQUE_VIOLATION &&
		error->sqlerrcode != ERRCODE_EXCLUSION_VIOLATION &&
		error->sqlerrcode != ERRCODE_FOREIGN_KEY_VIOLATION)
		return false;
	if (error->schema_name == NULL || error->table_name == NULL || error->constraint_name == NULL)
		return false;
	id = constraint_id(error->schema_name, error->table_name, error->constraint_name);
	foreach(lc, checked)
		if (strcmp(lfirst(lc), id) == 0)
			return true;
	return false;
}

/* What came in between makes the transaction one that may be tried again. */
static void
rethrow(List *checked, MemoryContext cxt)
{
	ErrorData  *error;

	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	FlushErrorState();
	if (is_concurrent(checked, error))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to concurrent changes"),
				 errdetail("Meanwhile others have committed what is in the way: %s.", error->message),
				 errhint("The transaction might succeed if retried.")));
	ReThrowError(error);
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline void
run_guarded(AlPlan *plan, List *checked, MemoryContext cxt)
{
	AfterTriggerBeginQuery();
	PG_TRY();
	{
		run_phases(plan);
		al_progress_begin(AL_PROGRESS_TRIGGERS, rows_to_write(plan));
		fire_triggers();
	}
	PG_CATCH();
	{
		rethrow(checked, cxt);
	}
	PG_END_TRY();
}

/*
 * The caller is connected to SPI, has looked at rights, locked the tables, and
 * said what is taken back.
 */
void
al_rewrite(AlPlan *plan, bool user_triggers)
{
	List	   *held = user_triggers ? NIL : hold_triggers(plan);

	al_progress_begin(AL_PROGRESS_WRITING, rows_to_write(plan));
	run_guarded(plan, checked_constraints(plan), CurrentMemoryContext);
	release_triggers(held);
}
