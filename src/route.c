/*
 * route.c
 *		Which partition of audit_log.change a moment belongs to.
 *
 * The answer found last is kept for the life of the backend; the relcache
 * callback (table.c) takes it back when the partitions change.
 */
#include "postgres.h"

#include "access/table.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/* the partition found last, while nothing has changed */
static struct
{
	bool		valid;
	Oid			parent;
	Oid			partition;
	TimestampTz from;
	TimestampTz to;
} route;

/*
 * The partition for a timestamp, and the times between which it serves.  The
 * caller holds a lock on the parent, so that no partition goes.
 */
static Oid
find_partition(Relation parent, TimestampTz timestamp,
			   TimestampTz *from, TimestampTz *to)
{
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionBoundInfo bounds = desc->boundinfo;
	Datum		value = TimestampTzGetDatum(timestamp);
	bool		equal;
	int			offset = -1;
	int			index = -1;

	*from = *to = timestamp;	/* the default partition: for this row only */
	if (bounds != NULL && bounds->ndatums > 0)
	{
		offset = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
											   bounds, 1, &value, &equal);
		index = bounds->indexes[offset + 1];
	}
	if (index >= 0)
	{
		if (offset >= 0 && bounds->kind[offset][0] == PARTITION_RANGE_DATUM_VALUE &&
			offset + 1 < bounds->ndatums &&
			bounds->kind[offset + 1][0] == PARTITION_RANGE_DATUM_VALUE)
		{
			*from = DatumGetTimestampTz(bounds->datums[offset][0]);
			*to = DatumGetTimestampTz(bounds->datums[offset + 1][0]);
		}
	}
	else
		index = bounds ? bounds->default_index : -1;
	if (index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.change\" has no partition for %s",
						AL_SCHEMA, timestamptz_to_str(timestamp)),
				 errhint("Attach the default partition again, or run CALL audit_log.maintain().")));
	if (!desc->is_leaf[index])
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a partition of table \"%s.change\" is partitioned itself", AL_SCHEMA)));
	return desc->oids[index];
}

/* Called by the relcache callback: InvalidOid is any relation. */
void
al_route_forget(Oid relid)
{
	if (relid == InvalidOid || relid == route.parent)
		route.valid = false;
}

/*
 * The partition of audit_log.change for a timestamp, locked, and the times
 * between which it serves.  ATTACH locks only the default partition against
 * us: once that lock is ours, the row may belong into a partition that has
 * come.
 */
Oid
al_route_lock(TimestampTz timestamp, TimestampTz *from, TimestampTz *to)
{
	Oid			change = al_catalog_get()->change;
	Relation	parent;
	Oid			partition;
	Oid			locked;

	LockRelationOid(change, RowExclusiveLock);
	if (route.valid && timestamp >= route.from && timestamp < route.to)
	{
		*from = route.from;
		*to = route.to;
		partition = route.partition;
		LockRelationOid(partition, RowExclusiveLock);
		if (route.valid)		/* taking locks reads invalidations */
			return partition;
	}

	parent = table_open(change, NoLock);
	partition = find_partition(parent, timestamp, from, to);
	do
	{
		locked = partition;
		LockRelationOid(locked, RowExclusiveLock);
		/* before the look, so that what changes meanwhile is not missed */
		route.parent = change;
		route.from = route.to;	/* serves no time yet */
		route.valid = true;
		partition = find_partition(parent, timestamp, from, to);
	} while (partition != locked);
	route.partition = partition;
	route.from = *from;
	route.to = *to;
	table_close(parent, NoLock);
	return partition;
}
