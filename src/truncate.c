/*
 * truncate.c
 *		Whole tables: the rows that TRUNCATE removes and its event, and the
 *		rows present when tracking begins.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/*
 * Relations whose TRUNCATE has begun and whose event is not logged yet: from
 * BEFORE to AFTER of one statement.
 */
typedef struct Truncated
{
	Oid			relid;
	Oid			root;
	int			trigger_depth;
	SubTransactionId subid;
} Truncated;

static List *truncated = NIL;	/* of Truncated * */

/* ---- whole tables ---- */

#define PROGRESS_SECONDS 5

static void
report_progress(const AlTable *table, int64 rows, TimestampTz *last)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(*last, now, PROGRESS_SECONDS * 1000))
		return;
	*last = now;
	ereport(NOTICE,
			(errmsg("audit_log: %lld rows of \"%s.%s\" logged so far",
					(long long) rows, table->schema, table->name)));
}

static void
log_scanned_row(AlTable *table, TupleTableSlot *slot, AlAction action,
				CommandId command)
{
	AlRowMemory memory;

	al_entry_memory_enter(&memory);
	PG_TRY();
	{
		al_entry_log(table, action, action == AL_DELETE ? slot : NULL,
					 action == AL_DELETE ? NULL : slot, command);
	}
	PG_FINALLY();
	{
		al_entry_memory_leave(&memory);
	}
	PG_END_TRY();
}

/*
 * Logs every row of one relation that has storage, as seen by a snapshot taken
 * now: the transaction's own may be older than rows that are there.  The caller
 * holds a lock that keeps writers out.
 */
static int64
log_all_rows(AlTable *table, Relation rel, AlAction action)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, snapshot);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	CommandId	command = GetCurrentCommandId(true);
	TimestampTz last = GetCurrentTimestamp();
	int64		rows = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!al_entry_condition(table, rel, NULL, slot))
			continue;
		log_scanned_row(table, slot, action, command);
		if (++rows % 1000 == 0)
			report_progress(table, rows, &last);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);

	/* their values may be in a TOAST table that is about to be emptied */
	al_version_flush();
	return rows;
}

/*
 * The entry of a relation's row trigger, registered; NULL where it has none
 * that fires.
 */
static AlTable *
tracked(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture);
	AlTable    *table;

	if (trigger == NULL || !al_table_trigger_fires(trigger))
		return NULL;
	table = al_table_get(rel, trigger);
	if (table->table_id == 0)
		al_register_table(table);
	return table;
}

/*
 * audit_log._baseline(table regclass) RETURNS bigint: logs each row of a table
 * and its partitions as SNAPSHOT; returns how many.  For enable(), which holds
 * the lock.
 */
PG_FUNCTION_INFO_V1(audit_log_baseline);
Datum
audit_log_baseline(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	int64		rows = 0;
	List	   *relids;
	ListCell   *lc;

	/* ordinary inheritance children are tables of their own */
	relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, ShareRowExclusiveLock, NULL) : list_make1_oid(relid);
	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
		{
			AlTable    *table = tracked(rel);

			if (table == NULL)
				elog(ERROR, "table \"%s\" has no audit trigger",
					 RelationGetRelationName(rel));
			rows += log_all_rows(table, rel, AL_SNAPSHOT);
		}
		table_close(rel, NoLock);
	}
	al_writer_flush();
	PG_RETURN_INT64(rows);
}

/* ---- TRUNCATE ---- */

static bool
has_truncate_trigger(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_TRUNCATE_TRIGGER,
										   al_catalog_get()->capture_truncate);

	return trigger != NULL && al_table_trigger_fires(trigger);
}

static void
note_truncated(const AlTable *table)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Truncated  *t = palloc(sizeof(Truncated));

	t->relid = table->relid;
	t->root = table->root;
	t->trigger_depth = al_entry_depth();
	t->subid = GetCurrentSubTransactionId();
	truncated = lappend(truncated, t);
	MemoryContextSwitchTo(old);
}

static bool
is_truncated(Oid relid)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->relid == relid)
			return true;
	return false;
}

/*
 * A partition whose own trigger is missing would lose its rows: its root's
 * TRUNCATE logs them.  Noted as truncated, so that a partitioned table between
 * the two, whose trigger fires too, does not log them again.
 */
static void
log_partitions_without_trigger(Relation root)
{
	List	   *relids = find_all_inheritors(RelationGetRelid(root), NoLock, NULL);
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION && !has_truncate_trigger(rel) &&
			!is_truncated(RelationGetRelid(rel)))
		{
			AlTable    *table = tracked(rel);

			if (table != NULL)
			{
				log_all_rows(table, rel, AL_DELETE);
				note_truncated(table);
			}
		}
		table_close(rel, NoLock);
	}
}

PG_FUNCTION_INFO_V1(audit_log_capture_truncate);
Datum
audit_log_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = al_entry_protocol(fcinfo, "audit_log.capture_truncate", false, false);
	Relation	rel = data->tg_relation;
	AlActivity	activity = {.action = "TRUNCATE",.rel = rel,
	.schema = get_namespace_name(RelationGetNamespace(rel))};
	ErrorContextCallback callback = {.callback = al_entry_report,.arg = &activity,
	.previous = error_context_stack};
	AlTable    *table;

	error_context_stack = &callback;
	table = tracked(rel);
	if (table != NULL && !al_register_paused(table->table_id))
	{
		if (table->settings->on_truncate == AL_TRUNCATE_FORBID)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("TRUNCATE of table \"%s.%s\" is forbidden", table->schema, table->name),
					 errdetail("The table's audit has the setting on_truncate with \"forbid\"."),
					 errhint("Use DELETE, or audit_log.enable() with another on_truncate.")));
		if (table->settings->on_truncate == AL_TRUNCATE_ROWS && al_entry_wanted(table, AL_DELETE))
		{
			if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
				log_partitions_without_trigger(rel);
			else
				log_all_rows(table, rel, AL_DELETE);
		}
		note_truncated(table);
	}
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}

static Jsonb *
partition_object(Oid relid)
{
	char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												  get_rel_name(relid));
	AlValue		value = {.kind = AL_STRING,.string = name,.len = strlen(name)};
	StringInfoData buf;
	AlJsonFrame frame;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, 1);
	al_jsonbuild_key(&frame, "partition", strlen("partition"));
	al_jsonbuild_value(&frame, &value);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* The event of one relation's TRUNCATE; a partition's bears its name. */
static void
log_truncate_event(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	AlTable    *table = tracked(rel);

	if (table != NULL && al_entry_wanted(table, AL_TRUNCATE))
	{
		AlEntry		entry;

		al_entry_attribute(&entry, table, AL_TRUNCATE, GetCurrentCommandId(true), NULL,
						   NULL, NULL);
		if (table->root != relid)
			entry.changes = partition_object(relid);
		al_writer_add(&entry);
		if (table->settings->on_truncate == AL_TRUNCATE_EVENT)
			al_register_state(table, "gap", "{\"reason\": \"on_truncate is event\"}");
	}
	table_close(rel, NoLock);
}

static bool
ancestor_truncated(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	List	   *ancestors = rel->rd_rel->relispartition ?
		get_partition_ancestors(relid) : NIL;
	ListCell   *lc;
	bool		found = false;

	table_close(rel, NoLock);
	foreach(lc, ancestors)
		found |= is_truncated(lfirst_oid(lc));
	return found;
}

/*
 * After TRUNCATE: one event for the root if it was emptied, else one for each
 * partition that was named.  The first trigger of the statement that fires
 * for a root does it for all relations under it.
 */
void
al_truncate_finish(Oid root, int min_depth)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	List	   *ended = NIL;
	List	   *events = NIL;
	ListCell   *lc;

	/* a statement further out goes on, and outlives a rollback of this one */
	foreach(lc, truncated)
	{
		Truncated  *t = lfirst(lc);

		if (t->root == root && t->trigger_depth >= min_depth && t->subid == subid)
			ended = lappend(ended, t);
	}
	foreach(lc, ended)
	{
		Truncated  *t = lfirst(lc);

		if (!ancestor_truncated(t->relid))
			events = list_append_unique_oid(events, t->relid);
	}
	foreach(lc, ended)
		truncated = list_delete_ptr(truncated, lfirst(lc));
	foreach(lc, events)
		log_truncate_event(lfirst_oid(lc));
}

/* A row written while its table is being truncated would go without a trace. */
void
al_truncate_refuse_changes(const AlTable *table)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->relid == table->relid)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot change table \"%s.%s\" from a trigger of its own TRUNCATE",
							table->schema, table->name),
					 errdetail("The rows that TRUNCATE removes are in the log already."),
					 errhint("Make the change before TRUNCATE, or after it.")));
}

/* ---- following the transaction ---- */

bool
al_truncate_pending(void)
{
	return truncated != NIL;
}

/* Before a commit: events whose AFTER trigger did not come. */
void
al_truncate_finish_all(void)
{
	while (truncated != NIL)
		al_truncate_finish(((Truncated *) linitial(truncated))->root, 0);
}

void
al_truncate_end_transaction(void)
{
	truncated = NIL;			/* went with TopTransactionContext */
}

void
al_truncate_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->subid == subid)
			((Truncated *) lfirst(lc))->subid = parent;
}

void
al_truncate_abort_sub(SubTransactionId subid)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->subid == subid)
			truncated = foreach_delete_current(truncated, lc);
}
