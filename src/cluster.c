/*
 * cluster.c
 *		Which cluster the log is written in.
 *
 * A mark remembers a snapshot, that is xids, and xids are a cluster's own: a
 * dump restored elsewhere brings rows whose xids say nothing there, or worse,
 * name later transactions.  So the first row of audit_log.transaction that is
 * written in another cluster than the rows before it, or the first mark made
 * there, writes a row of audit_log.cluster too.  That is looked at once a
 * backend, before the first id is taken: a backend that finds the row takes
 * ids above the row's, one that does not writes a row of its own.
 *
 * A cluster is known by its system identifier and its timeline: a copy of the
 * files that was promoted gives out the same xids as the original.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/* the catalog's table in which this backend has found, or written, the row */
static Oid	noted = InvalidOid;
static bool wrote = false;		/* in this transaction */

static int64
cluster_value(HeapTuple tuple, TupleDesc desc, int anum)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, anum, desc, &isnull);

	return anum == Anum_al_cluster_timeline ? DatumGetInt32(value) : DatumGetInt64(value);
}

/* Is the newest row this cluster's? */
static bool
is_current(Oid relid, int64 system, int32 timeline)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, snapshot);
	int64		newest = -1;
	bool		current = false;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		shouldfree;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, &shouldfree);
		int64		first = cluster_value(tuple, RelationGetDescr(rel),
										  Anum_al_cluster_first_transaction_id);

		if (first < newest)
			continue;
		newest = first;
		current = cluster_value(tuple, RelationGetDescr(rel),
								Anum_al_cluster_system_identifier) == system &&
			cluster_value(tuple, RelationGetDescr(rel), Anum_al_cluster_timeline) == timeline;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return current;
}

static void
check_cluster(Relation rel)
{
	if (RelationGetNumberOfAttributes(rel) != Natts_al_cluster)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the columns of the log",
						AL_SCHEMA, RelationGetRelationName(rel)),
				 errhint("Run SELECT * FROM audit_log.check().")));
}

static void
write_row(Oid relid, int64 system, int32 timeline, int64 first_transaction_id)
{
	const AlCatalog *catalog = al_catalog_get();
	Datum		values[Natts_al_cluster];
	bool		nulls[Natts_al_cluster] = {0};
	AlTarget   *target;

	values[Anum_al_cluster_system_identifier - 1] = Int64GetDatum(system);
	values[Anum_al_cluster_timeline - 1] = Int32GetDatum(timeline);
	values[Anum_al_cluster_first_transaction_id - 1] =
		Int64GetDatum(first_transaction_id);
	values[Anum_al_cluster_first_change_id - 1] =
		Int64GetDatum(al_sequence_last(catalog->change_id_seq) + 1);
	values[Anum_al_cluster_timestamp - 1] = TimestampTzGetDatum(GetCurrentTimestamp());

	target = al_target_open(relid, check_cluster);
	al_target_add(target, heap_form_tuple(al_target_desc(target), values, nulls));
	al_target_write(target);
	al_target_close(target);
}

/* Called before an id of audit_log.transaction is taken. */
void
al_cluster_note(void)
{
	Oid			relid = al_catalog_get()->cluster;
	int64		system;
	int32		timeline;

	if (noted == relid || !OidIsValid(relid))
		return;
	system = (int64) GetSystemIdentifier();
	timeline = (int32) GetWALInsertionTimeLine();
	if (!is_current(relid, system, timeline))
	{
		write_row(relid, system, timeline,
				  al_sequence_last(al_catalog_get()->transaction_id_seq) + 1);
		wrote = true;
	}
	noted = relid;
}

/* At the end of a transaction, and where a subtransaction is rolled back. */
void
al_cluster_end_transaction(bool commit)
{
	if (wrote && !commit)
		noted = InvalidOid;
	wrote = false;
}

/* A level that is rolled back may have been the one that wrote. */
void
al_cluster_abort_sub(void)
{
	if (wrote)
		noted = InvalidOid;
}

/* audit_log._take_transaction_id() RETURNS bigint: for rows that are written by SQL */
PG_FUNCTION_INFO_V1(audit_log_take_transaction_id);
Datum
audit_log_take_transaction_id(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	al_cluster_note();
	PG_RETURN_INT64(al_sequence_take(al_catalog_get()->transaction_id_seq, 1));
}

/*
 * audit_log._note_cluster() RETURNS void: for the update from a version that
 * noted no clusters, while others write.  The rows of those who are under way
 * are of this cluster; of what is older nobody knows.
 */
PG_FUNCTION_INFO_V1(audit_log_note_cluster);
Datum
audit_log_note_cluster(PG_FUNCTION_ARGS)
{
	const AlCatalog *catalog = al_catalog_get();
	int64		first = al_sequence_last(catalog->transaction_id_seq) + 1;
	Relation	rel = table_open(catalog->transaction, AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	SnapshotData dirty;
	TableScanDesc scan;

	InitDirtySnapshot(dirty);
	scan = AL_TABLE_BEGINSCAN(rel, &dirty);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		int64		id = DatumGetInt64(slot_getattr(slot, Anum_al_transaction_id, &isnull));

		if (TransactionIdIsValid(dirty.xmin) && id < first)
			first = id;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);
	write_row(get_relname_relid("cluster", catalog->schema), (int64) GetSystemIdentifier(),
			  (int32) GetWALInsertionTimeLine(), first);
	PG_RETURN_VOID();
}
