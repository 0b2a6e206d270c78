/*
 * writer.c
 *		Writes rows into audit_log.change and audit_log.transaction: the only
 *		code that inserts there.
 *
 * Changes are collected in a buffer of fixed size and written by heap
 * multi-insert, in the shape of COPY (copyfrom.c), when the statement ends,
 * the buffer is full, or the transaction is about to commit.
 *
 * A row must be written under the (sub)transaction that made the change, or a
 * rollback would leave it, or take it away alone.  So each entry carries its
 * subtransaction, and a flush writes those of the current one only: what an
 * outer level has buffered stays until that level is current again.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

#define AL_BUFFER_ENTRIES 1000
#define AL_BUFFER_BYTES (2 * 1024 * 1024)

/* larger rows are written at once instead of being copied into the buffer */
#define AL_BUFFER_LARGE (256 * 1024)

static AlEntry *buffer = NULL;	/* in buffer_cxt */
static int	buffer_used = 0;
static int	buffer_room = 0;
static Size buffer_bytes = 0;
static MemoryContext buffer_cxt = NULL;

/* ---- one row, one relation ---- */

typedef struct Target
{
	Relation	rel;
	ResultRelInfo *info;
	EState	   *estate;
	Oid			user;			/* who writes, and in which context */
	int			security;
} Target;

static void
target_open(Target *target, Oid relid, int natts)
{
	target->rel = table_open(relid, RowExclusiveLock);
	if (RelationGetNumberOfAttributes(target->rel) != natts)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the columns of the log",
						AL_SCHEMA, RelationGetRelationName(target->rel)),
				 errhint("Run SELECT * FROM audit_log.check().")));

	/*
	 * What the log's indexes evaluate is evaluated as the log's owner: nothing
	 * that can be revoked stands between a change and its log.  An error
	 * restores the user with the (sub)transaction.
	 */
	GetUserIdAndSecContext(&target->user, &target->security);
	SetUserIdAndSecContext(target->rel->rd_rel->relowner,
						   target->security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	target->estate = CreateExecutorState();
	target->info = makeNode(ResultRelInfo);
	InitResultRelInfo(target->info, target->rel, 1, NULL, 0);
	ExecOpenIndices(target->info, false);
}

static void
target_close(Target *target)
{
	ExecCloseIndices(target->info);
	FreeExecutorState(target->estate);
	SetUserIdAndSecContext(target->user, target->security);
	/* the lock stays until the transaction ends */
	table_close(target->rel, NoLock);
}

static void
target_index(Target *target, TupleTableSlot *slot)
{
	if (target->info->ri_NumIndices == 0)
		return;
	list_free(AL_INSERT_INDEX_TUPLES(target->info, slot, target->estate));
	ResetPerTupleExprContext(target->estate);
}

/* ---- transaction rows ---- */

/*
 * The id of the transaction row under which a change by this user belongs;
 * writes a further row where none in force serves.
 */
int64
al_writer_transaction(const char *user)
{
	int64		id = al_session_row_id(user);
	Datum		values[Natts_al_transaction];
	bool		nulls[Natts_al_transaction];
	Target		target;
	TupleTableSlot *slot;

	if (id != 0)
		return id;

	id = al_session_next_id();
	al_session_fill_row(user, values, nulls);
	values[Anum_al_transaction_id - 1] = Int64GetDatum(id);

	target_open(&target, al_catalog_get()->transaction, Natts_al_transaction);
	slot = MakeSingleTupleTableSlot(RelationGetDescr(target.rel), &TTSOpsHeapTuple);
	ExecStoreHeapTuple(heap_form_tuple(RelationGetDescr(target.rel), values, nulls),
					   slot, true);
	table_tuple_insert(target.rel, slot, GetCurrentCommandId(true), 0, NULL);
	target_index(&target, slot);
	ExecDropSingleTupleTableSlot(slot);
	target_close(&target);

	al_session_row_written(id, user);
	return id;
}

/* ---- changes ---- */

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

/*
 * The same, locked.  ATTACH locks only the default partition against us: once
 * that lock is ours, the row may belong into a partition that has come.
 */
static Oid
lock_partition(Relation parent, TimestampTz timestamp,
			   TimestampTz *from, TimestampTz *to)
{
	Oid			partition = find_partition(parent, timestamp, from, to);
	Oid			locked;

	do
	{
		locked = partition;
		LockRelationOid(locked, RowExclusiveLock);
		partition = find_partition(parent, timestamp, from, to);
	} while (partition != locked);
	return partition;
}

static void
fill_slot(TupleTableSlot *slot, const AlEntry *entry, int64 id, const AlCatalog *catalog)
{
	Datum	   *values = slot->tts_values;
	bool	   *nulls = slot->tts_isnull;

	ExecClearTuple(slot);
	memset(nulls, 0, sizeof(bool) * Natts_al_change);
	values[Anum_al_change_id - 1] = Int64GetDatum(id);
	values[Anum_al_change_transaction_id - 1] = Int64GetDatum(entry->transaction_id);
	values[Anum_al_change_command - 1] = Int32GetDatum((int32) entry->command);
	values[Anum_al_change_timestamp - 1] = TimestampTzGetDatum(entry->timestamp);
	values[Anum_al_change_action_type - 1] =
		ObjectIdGetDatum(catalog->action[entry->action]);
	values[Anum_al_change_table_id - 1] = Int32GetDatum(entry->table_id);
	values[Anum_al_change_record_id - 1] = PointerGetDatum(entry->record_id);
	nulls[Anum_al_change_record_id - 1] = entry->record_id == NULL;
	values[Anum_al_change_old_record_id - 1] = PointerGetDatum(entry->old_record_id);
	nulls[Anum_al_change_old_record_id - 1] = entry->old_record_id == NULL;
	values[Anum_al_change_changes - 1] = PointerGetDatum(entry->changes);
	nulls[Anum_al_change_changes - 1] = entry->changes == NULL;
	ExecStoreVirtualTuple(slot);
}

/* Writes n entries that belong to one partition; ids ascend from first_id. */
static void
write_batch(Oid partition, const AlEntry **entries, int n, int64 first_id)
{
	const AlCatalog *catalog = al_catalog_get();
	Target		target;
	TupleTableSlot **slots = palloc(sizeof(TupleTableSlot *) * n);
	BulkInsertState bistate = n > 100 ? GetBulkInsertState() : NULL;

	target_open(&target, partition, Natts_al_change);
	for (int i = 0; i < n; i++)
	{
		slots[i] = MakeSingleTupleTableSlot(RelationGetDescr(target.rel), &TTSOpsVirtual);
		fill_slot(slots[i], entries[i], first_id + i, catalog);
	}
	table_multi_insert(target.rel, slots, n, GetCurrentCommandId(true), 0, bistate);
	for (int i = 0; i < n; i++)
		target_index(&target, slots[i]);
	for (int i = 0; i < n; i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	if (bistate)
		FreeBulkInsertState(bistate);
	target_close(&target);
}

static void
write_entries(const AlEntry **entries, int n)
{
	const AlCatalog *catalog = al_catalog_get();
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log flush",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Relation	parent = table_open(catalog->change, RowExclusiveLock);
	int64		id = al_sequence_take(catalog->change_id_seq, n);
	bool		pushed = false;

	/* toasting wants a snapshot, which a commit does not have */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}

	for (int done = 0; done < n;)
	{
		TimestampTz from;
		TimestampTz to;
		Oid			partition = lock_partition(parent, entries[done]->timestamp,
											   &from, &to);
		int			end = done + 1;

		while (end < n && (entries[end]->timestamp == entries[done]->timestamp ||
						   (entries[end]->timestamp >= from &&
							entries[end]->timestamp < to)))
			end++;
		write_batch(partition, entries + done, end - done, id + done);
		done = end;
	}

	if (pushed)
		PopActiveSnapshot();
	table_close(parent, NoLock);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static Size
entry_bytes(const AlEntry *entry)
{
	Size		bytes = 0;

	if (entry->record_id)
		bytes += VARSIZE_ANY(entry->record_id);
	if (entry->old_record_id)
		bytes += VARSIZE_ANY(entry->old_record_id);
	if (entry->changes)
		bytes += VARSIZE_ANY(entry->changes);
	return bytes;
}

static void *
copy_varlena(void *value)
{
	void	   *copy;

	if (value == NULL)
		return NULL;
	copy = MemoryContextAlloc(buffer_cxt, VARSIZE_ANY(value));
	memcpy(copy, value, VARSIZE_ANY(value));
	return copy;
}

/* Takes a change over; what entry points to is copied or written at once. */
void
al_writer_add(const AlEntry *entry)
{
	Size		bytes = entry_bytes(entry);
	AlEntry    *place;

	if (buffer_used >= AL_BUFFER_ENTRIES || buffer_bytes + bytes > AL_BUFFER_BYTES)
		al_writer_flush();
	if (bytes > AL_BUFFER_LARGE)
	{
		al_writer_flush();		/* ids follow the order of capture */
		write_entries(&entry, 1);
		return;
	}

	if (buffer_cxt == NULL)
		buffer_cxt = AllocSetContextCreate(TopTransactionContext, "audit_log buffer",
										   ALLOCSET_DEFAULT_SIZES);
	if (buffer_used == buffer_room)
	{
		buffer_room = buffer_room ? buffer_room * 2 : 16;
		buffer = buffer ?
			repalloc(buffer, sizeof(AlEntry) * buffer_room) :
			MemoryContextAlloc(buffer_cxt, sizeof(AlEntry) * buffer_room);
	}
	place = &buffer[buffer_used];
	*place = *entry;
	place->record_id = copy_varlena(entry->record_id);
	place->old_record_id = copy_varlena(entry->old_record_id);
	place->changes = copy_varlena(entry->changes);
	place->subid = GetCurrentSubTransactionId();
	buffer_bytes += bytes;
	buffer_used++;
}

/* Drops the entries of subid from the buffer. */
static void
forget_entries(SubTransactionId subid)
{
	int			kept = 0;
	Size		bytes = 0;

	for (int i = 0; i < buffer_used; i++)
		kept += buffer[i].subid != subid;
	if (kept == 0)
	{
		/* the usual case: all at once */
		MemoryContextReset(buffer_cxt);
		buffer = NULL;
		buffer_used = buffer_room = 0;
		buffer_bytes = 0;
		return;
	}

	kept = 0;
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid != subid)
		{
			bytes += entry_bytes(&buffer[i]);
			buffer[kept++] = buffer[i];
		}
		else
		{
			if (buffer[i].record_id)
				pfree(buffer[i].record_id);
			if (buffer[i].old_record_id)
				pfree(buffer[i].old_record_id);
			if (buffer[i].changes)
				pfree(buffer[i].changes);
		}
	buffer_used = kept;
	buffer_bytes = bytes;
}

/* Writes what the current (sub)transaction has buffered. */
void
al_writer_flush(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	const AlEntry **mine;
	int			n = 0;

	if (buffer_used == 0)
		return;
	mine = palloc(sizeof(AlEntry *) * buffer_used);
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid == subid)
			mine[n++] = &buffer[i];
	if (n > 0)
	{
		write_entries(mine, n);
		forget_entries(subid);
	}
	pfree(mine);
}

/* ---- following the transaction ---- */

void
al_writer_end_transaction(void)
{
	buffer = NULL;
	buffer_cxt = NULL;			/* went with TopTransactionContext */
	buffer_used = buffer_room = 0;
	buffer_bytes = 0;
}

void
al_writer_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid == subid)
			buffer[i].subid = parent;
}

void
al_writer_abort_sub(SubTransactionId subid)
{
	if (buffer_used > 0)
		forget_entries(subid);
}
