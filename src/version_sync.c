/*
 * version_sync.c
 *		Whole version tables: initial versions, versions for what changed while
 *		none were kept, and values that ALTER TABLE has filled in.
 *
 * The callers hold a lock that keeps writers out.  No function of users is run
 * here: keys are compared as the primary key does it, values by their images.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplesort.h"

#include "audit_log.h"

/* whoever waits for a long table is told after so many rows, and then from time to time */
#define PROGRESS_ROWS 100000
#define PROGRESS_SECONDS 5

/* one pass over a table and its partitions */
typedef struct Pass
{
	AlVersions *versions;		/* of the relation at hand */
	Relation	rel;			/* the version table */
	Relation	index;
	AlVersionSearch search;
	TupleTableSlot *slot;		/* of the version table */
	AlEntry		entry;			/* what is written belongs to */
	int64		rows;			/* read */
	int64		written;
	TimestampTz progress;		/* when last reported */
	Tuplesortstate *current;	/* places of versions whose records are there */
	Bitmapset  *columns;		/* of the version table, to be refreshed */
} Pass;

static AlTable *
versioned(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture);
	AlTable    *table = trigger ? al_table_get(rel, trigger) : NULL;

	if (table == NULL || !table->settings->versioned)
		elog(ERROR, "table \"%s\" is not versioned", RelationGetRelationName(rel));
	return table;
}

static void
open_versions(Pass *pass, Relation rel)
{
	pass->versions = al_version_of(versioned(rel));
	pass->rel = table_open(pass->versions->relid, RowExclusiveLock);
	pass->index = index_open(pass->versions->index, RowExclusiveLock);
	al_version_begin_search(&pass->search, pass->versions, pass->rel, pass->index);
	pass->slot = table_slot_create(pass->rel, NULL);
}

static void
close_versions(Pass *pass)
{
	ExecDropSingleTupleTableSlot(pass->slot);
	al_version_end_search(&pass->search);
	index_close(pass->index, NoLock);
	table_close(pass->rel, NoLock);
}

static void
report_progress(Pass *pass, Relation rel)
{
	TimestampTz now;

	if (++pass->rows % 1000 != 0 || pass->rows < PROGRESS_ROWS)
		return;
	now = GetCurrentTimestamp();
	if (pass->rows > PROGRESS_ROWS &&
		!TimestampDifferenceExceeds(pass->progress, now, PROGRESS_SECONDS * 1000))
		return;
	pass->progress = now;
	ereport(NOTICE,
			(errmsg("audit_log: %lld rows compared with their versions so far, now of \"%s.%s\"",
					(long long) pass->rows, get_namespace_name(RelationGetNamespace(rel)),
					RelationGetRelationName(rel))));
}

/* What is written belongs to a transaction row of its own, made when needed. */
static const AlEntry *
own_entry(Pass *pass)
{
	AlEntry    *entry = &pass->entry;

	if (entry->transaction_id == 0)
	{
		al_session_force_new();
		entry->transaction_id = al_writer_transaction(al_session_user(NULL));
		entry->command = GetCurrentCommandId(true);
	}
	entry->timestamp = GetCurrentTimestamp();
	pass->written++;
	return entry;
}

/* The version's place as a number that ascends as a scan goes. */
static int64
place(ItemPointer tid)
{
	return ((int64) ItemPointerGetBlockNumber(tid) << 16) | ItemPointerGetOffsetNumber(tid);
}

static bool
same_values(Pass *pass, TupleTableSlot *row)
{
	AlVersions *versions = pass->versions;

	slot_getallattrs(pass->slot);
	slot_getallattrs(row);
	for (int i = 0; i < versions->desc->natts; i++)
	{
		AttrNumber	source = versions->source[i];
		Form_pg_attribute att = TupleDescAttr(versions->desc, i);

		if (source == 0)
			continue;
		if (pass->slot->tts_isnull[i] != row->tts_isnull[source - 1])
			return false;
		if (!row->tts_isnull[source - 1] &&
			!datum_image_eq(pass->slot->tts_values[i], row->tts_values[source - 1],
							att->attbyval, att->attlen))
			return false;
	}
	return true;
}

static void
fetch_version(Pass *pass, AlVersionRecord *record)
{
	if (!table_tuple_fetch_row_version(pass->rel, &record->tid, SnapshotSelf, pass->slot))
		elog(ERROR, "version of table \"%s\" has gone", RelationGetRelationName(pass->rel));
}

/* A row that is there: its newest version must say what it is. */
static void
sync_row(Pass *pass, TupleTableSlot *row)
{
	AlVersionRecord record;
	Datum		key[INDEX_MAX_KEYS];

	al_version_key(pass->versions, row, key);
	al_version_search(&pass->search, key, &record);
	if (record.found)
	{
		tuplesort_putdatum(pass->current, Int64GetDatum(place(&record.tid)), false);
		fetch_version(pass, &record);
		if (record.operation != AL_DELETED && same_values(pass, row))
			return;
	}
	al_version_put(pass->versions, &record, true, key, row, NULL, own_entry(pass));
}

/* The columns that ALTER TABLE has filled, written into the row's open version. */
static void
refresh_row(Pass *pass, TupleTableSlot *row)
{
	AlVersions *versions = pass->versions;
	AlVersionRecord record;
	Datum		key[INDEX_MAX_KEYS];
	int			natts = versions->desc->natts;
	Datum	   *values;
	bool	   *nulls;
	AlEntry		entry = {0};
	HeapTuple	tuple;

	al_version_key(versions, row, key);
	al_version_search(&pass->search, key, &record);
	if (!record.found || record.operation == AL_DELETED)
		return;
	fetch_version(pass, &record);
	if (same_values(pass, row))
		return;
	values = palloc(sizeof(Datum) * natts);
	nulls = palloc(sizeof(bool) * natts);
	for (int i = 0; i < natts; i++)
	{
		AttrNumber	source = versions->source[i];
		bool		refreshed = source != 0 && bms_is_member(i + 1, pass->columns);

		values[i] = refreshed ? row->tts_values[source - 1] : pass->slot->tts_values[i];
		nulls[i] = refreshed ? row->tts_isnull[source - 1] : pass->slot->tts_isnull[i];
	}
	tuple = heap_form_tuple(versions->desc, values, nulls);
	/* in the place of the one that is there */
	entry.transaction_id = record.id;
	entry.timestamp = record.valid_from;
	al_version_put(versions, &record, true, key, NULL, tuple, &entry);
	pass->written++;
}

/*
 * Every row of one relation that has storage, as committed now: the
 * transaction's own snapshot may be older.
 */
static void
pass_relation(Pass *pass, Relation rel, void (*visit) (Pass *, TupleTableSlot *))
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, snapshot);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log version pass",
											  ALLOCSET_DEFAULT_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, row))
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		CHECK_FOR_INTERRUPTS();
		visit(pass, row);
		report_progress(pass, rel);
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	ExecDropSingleTupleTableSlot(row);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	MemoryContextDelete(cxt);
}

static void
pass_table(Pass *pass, Oid relid, void (*visit) (Pass *, TupleTableSlot *))
{
	List	   *relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, ShareRowExclusiveLock, NULL) : list_make1_oid(relid);
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), ShareRowExclusiveLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
		{
			open_versions(pass, rel);
			pass_relation(pass, rel, visit);
			close_versions(pass);
		}
		table_close(rel, NoLock);
	}
	al_version_flush();
}

/*
 * Versions that were current before, of records that are not there: each gets
 * one that says so.  The scan goes by place, as current does.
 */
static void
end_absent(Pass *pass, Snapshot before)
{
	AlVersions *versions = pass->versions;
	TableScanDesc scan = table_beginscan_strat(pass->rel, before, 0, NULL, true, false);
	Datum		value;
	bool		isnull;
	bool		more;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log version pass",
											  ALLOCSET_DEFAULT_SIZES);

	tuplesort_performsort(pass->current);
	more = AL_TUPLESORT_GETDATUM(pass->current, &value, &isnull);
	while (table_scan_getnextslot(scan, ForwardScanDirection, pass->slot))
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		HeapTuple	tuple = ExecFetchSlotHeapTuple(pass->slot, false, NULL);
		int64		here = place(&pass->slot->tts_tid);

		CHECK_FOR_INTERRUPTS();
		report_progress(pass, pass->rel);
		while (more && DatumGetInt64(value) < here)
			more = AL_TUPLESORT_GETDATUM(pass->current, &value, &isnull);
		if (!(more && DatumGetInt64(value) == here) &&
			heap_attisnull(tuple, versions->own[AL_VERSION_END_TRANSACTION], versions->desc) &&
			al_version_value(versions, pass->slot, AL_VERSION_OPERATION) != AL_DELETED)
		{
			AlVersionRecord record;
			Datum		key[INDEX_MAX_KEYS];

			al_version_record(versions, pass->slot, &record);
			for (int i = 0; i < versions->nkeys; i++)
				key[i] = heap_getattr(tuple, versions->keys[i].attnum, versions->desc, &isnull);
			al_version_put(versions, &record, false, key, NULL, tuple, own_entry(pass));
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(cxt);
	}
	table_endscan(scan);
	MemoryContextDelete(cxt);
	al_version_flush();
}

/* audit_log._sync_versions(target regclass) RETURNS bigint */
PG_FUNCTION_INFO_V1(audit_log_sync_versions);
Datum
audit_log_sync_versions(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	root = table_open(relid, ShareRowExclusiveLock);
	AlTable    *table;
	Pass		pass = {0};
	Snapshot	before;

	table = versioned(root);
	if (al_register_pausing() && table->table_id == 0)
		al_register_state(table, NULL, NULL);
	if (al_register_pausing() && al_register_paused(table->table_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" is paused in this transaction",
						table->schema, table->name),
				 errhint("Run audit_log.enable() in the next transaction.")));
	al_version_of(table);
	before = RegisterSnapshot(GetLatestSnapshot());
	pass.current = tuplesort_begin_datum(INT8OID, Int8LessOperator, InvalidOid, false,
										 work_mem, NULL, TUPLESORT_NONE);
	pass_table(&pass, relid, sync_row);
	open_versions(&pass, root);
	end_absent(&pass, before);
	close_versions(&pass);
	tuplesort_end(pass.current);
	UnregisterSnapshot(before);
	table_close(root, NoLock);
	if (pass.entry.transaction_id != 0)
		al_session_force_new();
	PG_RETURN_INT64(pass.written);
}

/* audit_log._refresh_versions(target regclass, columns name[]) RETURNS bigint */
PG_FUNCTION_INFO_V1(audit_log_refresh_versions);
Datum
audit_log_refresh_versions(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Relation	root = table_open(relid, ShareRowExclusiveLock);
	AlVersions *versions = al_version_of(versioned(root));
	Pass		pass = {0};
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
		for (int k = 0; k < versions->desc->natts; k++)
			if (!TupleDescAttr(versions->desc, k)->attisdropped &&
				namestrcmp(&TupleDescAttr(versions->desc, k)->attname,
						   NameStr(*DatumGetName(elems[i]))) == 0)
				pass.columns = bms_add_member(pass.columns, k + 1);
	pass_table(&pass, relid, refresh_row);
	table_close(root, NoLock);
	PG_RETURN_INT64(pass.written);
}

/* ids beyond this are no transactions of anybody's */
#define MAX_ADOPTED_ID (INT64CONST(1) << 53)

/* audit_log._pass_id(id bigint) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_pass_id);
Datum
audit_log_pass_id(PG_FUNCTION_ARGS)
{
	int64		id = PG_GETARG_INT64(0);

	if (id > MAX_ADOPTED_ID)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("transaction id %lld is too high to be adopted", (long long) id)));
	al_session_pass_id(id);
	PG_RETURN_VOID();
}
