/*
 * version_write.c
 *		Writes version tables: from the same change, under the same transaction
 *		row and at the same times as the log.
 *
 * What a change makes of its records waits in a buffer, as the log's entries do
 * (writer.c), and with the same rule: a version is written under the
 * (sub)transaction that made the change.
 *
 * Several changes of a record under one transaction row make one version, of
 * their net effect; the row written for the first is overwritten by the next.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

#define AL_VERSION_BUCKETS 2048 /* power of two */

/* a version to be written */
typedef struct Change
{
	AlBuffered	head;			/* the row's own columns are still NULL */
	AlVersions *versions;
	int64		transaction_id;
	TimestampTz timestamp;
	bool		present;		/* afterwards */
	AlVersionRecord record;		/* before */
	SubTransactionId written;	/* the subtransaction further in that needed it
								 * written already, or its surviving parent */
	uint32		hash;
	int			next;			/* in the same bucket, -1: none */
} Change;

static AlBuffer buffer = {.item_size = sizeof(Change)};
static int	buckets[AL_VERSION_BUCKETS];	/* newest of each, valid while
											 * the buffer is not empty */
static bool merged = false;		/* a subtransaction's changes joined ours: one
								 * record may be there twice */

/* ---- writing ---- */

typedef struct Writing
{
	AlVersions *versions;
	AlTarget   *target;
	Relation	rel;
	Relation	index;
	AlVersionSearch search;
} Writing;

/* Puts tuple in the place of the version found for a record. */
static void
replace_row(Writing *writing, AlVersionRecord *record, HeapTuple tuple)
{
	/* what this command has written is not its to change */
	if (record->ours && record->command >= GetCurrentCommandId(true))
		CommandCounterIncrement();
	al_target_update(writing->target, &record->tid, tuple);
}

/* Closes the version found for a record, in the slot, where the next one begins. */
static void
close_version(Writing *writing, AlVersionRecord *record, int64 transaction_id, TimestampTz until)
{
	AlVersions *versions = writing->versions;
	TupleTableSlot *slot = writing->search.slot;
	int			natts = versions->desc->natts;
	AttrNumber	end = versions->own[AL_VERSION_END_TRANSACTION] - 1;
	AttrNumber	to = versions->own[AL_VERSION_TO] - 1;
	Datum	   *values = palloc(sizeof(Datum) * natts);
	bool	   *nulls = palloc(sizeof(bool) * natts);
	HeapTuple	tuple;

	/* the slot has taken the row apart already, to look at it */
	slot_getallattrs(slot);
	memcpy(values, slot->tts_values, sizeof(Datum) * natts);
	memcpy(nulls, slot->tts_isnull, sizeof(bool) * natts);
	values[end] = Int64GetDatum(transaction_id);
	values[to] = TimestampTzGetDatum(until);
	nulls[end] = nulls[to] = false;
	tuple = heap_form_tuple(versions->desc, values, nulls);
	pfree(values);
	pfree(nulls);
	ExecClearTuple(slot);
	replace_row(writing, record, tuple);
}

/* The version that the change found; looked up again where others came since. */
static void
fetch_version(Writing *writing, Change *change)
{
	AlVersions *versions = writing->versions;
	AlVersionRecord *record = &change->record;
	Datum		key[INDEX_MAX_KEYS];
	bool		isnull;

	if (record->looked == al_version_writes && !record->found)
		return;
	if (record->looked == al_version_writes &&
		table_tuple_fetch_row_version(writing->rel, &record->tid, SnapshotSelf,
									  writing->search.slot))
		return;
	for (int i = 0; i < versions->nkeys; i++)
		key[i] = heap_getattr(change->head.tuple, versions->keys[i].attnum, versions->desc, &isnull);
	al_version_search(&writing->search, key, record);
}

static void
write_change(Writing *writing, Change *change)
{
	AlVersions *versions = writing->versions;
	AlVersionRecord *record = &change->record;
	int			columns[4] = {versions->own[AL_VERSION_TRANSACTION], versions->own[AL_VERSION_OPERATION],
	versions->own[AL_VERSION_FROM], versions->own[AL_VERSION_END_TRANSACTION]};
	Datum		values[4];
	bool		nulls[4] = {false, false, false, true};
	TimestampTz from = change->timestamp;
	bool		before = false;
	bool		again;
	HeapTuple	row;

	fetch_version(writing, change);
	if (record->found && record->id > change->transaction_id)
	{
		/* written by other hands than ours: the next try will have a higher one */
		al_session_pass_id(record->id);
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a version in table \"%s\" has a higher id than the change that follows it",
						RelationGetRelationName(writing->rel)),
				 errhint("Try again.")));
	}

	again = record->found && record->id == change->transaction_id;
	if (again)
	{
		from = record->valid_from;
		before = record->before;
	}
	else if (record->found)
	{
		from = Max(from, record->valid_from + 1);
		before = record->operation != AL_DELETED;
	}
	values[0] = Int64GetDatum(change->transaction_id);
	values[1] = Int16GetDatum(!change->present ? AL_DELETED : before ? AL_UPDATED : AL_INSERTED);
	values[2] = TimestampTzGetDatum(from);
	values[3] = (Datum) 0;
	row = heap_modify_tuple_by_cols(change->head.tuple, versions->desc, 4, columns, values, nulls);
	if (again)
		replace_row(writing, record, row);
	else
	{
		if (record->found)
			close_version(writing, record, change->transaction_id, from);
		al_target_add(writing->target, row);
	}
}

/* The columns are looked at where versions are prepared. */
static void
check_nothing(Relation rel)
{
	(void) rel;
}

/*
 * Writes n changes of one version table; one record may be there more than once
 * only where that is said.
 */
static void
write_changes(Change **changes, int n, bool repeated)
{
	Writing		writing = {.target = al_target_open(changes[0]->versions->relid, check_nothing)};

	writing.rel = al_target_relation(writing.target);
	writing.index = index_open(changes[0]->versions->index, RowExclusiveLock);
	al_version_begin_search(&writing.search, changes[0]->versions, writing.rel, writing.index);
	for (int i = 0; i < n; i++)
	{
		/* of partitions, with the same columns at the same places */
		writing.versions = changes[i]->versions;
		if (repeated)
		{
			al_target_write(writing.target);
			changes[i]->record.looked = 0;
		}
		write_change(&writing, changes[i]);
	}
	al_version_end_search(&writing.search);
	al_target_write(writing.target);
	index_close(writing.index, NoLock);
	al_target_close(writing.target);
}

static void
write_all(Change **changes, int n, bool repeated)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log versions",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Change	  **some = palloc(sizeof(Change *) * n);
	bool		pushed = false;

	/* toasting wants a snapshot, which a commit does not have */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	for (int left = n; left > 0;)
	{
		Oid			relid = changes[0]->versions->relid;
		int			taken = 0;
		int			kept = 0;

		for (int i = 0; i < left; i++)
			if (changes[i]->versions->relid == relid)
				some[taken++] = changes[i];
			else
				changes[kept++] = changes[i];
		write_changes(some, taken, repeated);
		left = kept;
	}
	al_version_writes++;
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* ---- the buffer ---- */

static void
link_change(int i)
{
	Change	   *change = al_buffer_item(&buffer, i);
	int		   *bucket = &buckets[change->hash & (AL_VERSION_BUCKETS - 1)];

	if (i == 0)
		memset(buckets, -1, sizeof(buckets));
	change->next = *bucket;
	*bucket = i;
}

/* Is the change of this (sub)transaction, or written for good? */
static bool
is_gone(const AlBuffered *head, SubTransactionId subid)
{
	return head->subid == subid || head->subid == ((const Change *) head)->written;
}

static void
forget_changes(SubTransactionId subid)
{
	if (al_buffer_drop(&buffer, is_gone, subid) > 0)
		for (int i = 0; i < buffer.used; i++)
			link_change(i);
	if (buffer.used == 0)
		merged = false;
}

/*
 * Writes what the current (sub)transaction has buffered.  It leaves the buffer
 * first: what an index evaluates may change rows, and come here again.
 */
void
al_version_flush(void)
{
	bool		repeated = merged;
	void	   *changes;
	Change	  **places;
	MemoryContext cxt;
	int			n = al_buffer_take(&buffer, &changes, &cxt);

	if (n == 0)
		return;
	forget_changes(GetCurrentSubTransactionId());
	places = palloc(sizeof(Change *) * n);
	for (int i = 0; i < n; i++)
		places[i] = &((Change *) changes)[i];
	write_all(places, n, repeated);
	pfree(places);
	MemoryContextDelete(cxt);
}

static uint32
hash_key(const AlVersions *versions, const Datum *key)
{
	uint32		hash = versions->relid;

	for (int i = 0; i < versions->nkeys; i++)
		hash = hash_combine(hash, datum_image_hash(key[i], versions->keys[i].byval,
												   versions->keys[i].len));
	return hash;
}

/*
 * The buffered change of the record that a further one may join, NULL if none.
 * One of a (sub)transaction further out cannot be joined, since this one may
 * be rolled back without it; it must come before this one all the same.  So it
 * is written here and now, and once more by its own level if this one does not
 * live.
 */
static Change *
find_change(AlVersions *versions, const Datum *key, uint32 hash)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Change	   *mine = NULL;

	if (buffer.used == 0)
		return NULL;
	for (int i = buckets[hash & (AL_VERSION_BUCKETS - 1)], next; i >= 0; i = next)
	{
		Change	   *change = al_buffer_item(&buffer, i);
		Datum		other[INDEX_MAX_KEYS];
		bool		isnull;

		next = change->next;
		if (change->hash != hash || change->versions->relid != versions->relid)
			continue;
		for (int k = 0; k < versions->nkeys; k++)
			other[k] = heap_getattr(change->head.tuple, versions->keys[k].attnum, versions->desc, &isnull);
		if (!al_version_same_key(versions, key, other))
			continue;
		if (change->head.subid == subid)
		{
			/* the newest comes first */
			if (mine == NULL)
				mine = change;
		}
		else if (change->written == InvalidSubTransactionId)
		{
			Change		copy = *change;
			Change	   *again = &copy;

			/* both before, since what an index evaluates may move the buffer */
			change->written = subid;
			change->record.looked = 0;
			copy.record.looked = 0;
			write_all(&again, 1, false);
			return find_change(versions, key, hash);
		}
	}
	return mine;
}

/* A row of the version table, its own columns NULL; in CurrentMemoryContext. */
static HeapTuple
make_row(const AlVersions *versions, TupleTableSlot *slot)
{
	int			natts = versions->desc->natts;
	Datum	   *values = palloc0(sizeof(Datum) * natts);
	bool	   *nulls = palloc(sizeof(bool) * natts);
	HeapTuple	tuple;

	slot_getsomeattrs(slot, versions->last_source);
	for (int i = 0; i < natts; i++)
	{
		AttrNumber	source = versions->source[i];

		nulls[i] = source == 0 || slot->tts_isnull[source - 1];
		if (!nulls[i])
			values[i] = slot->tts_values[source - 1];
	}
	tuple = heap_form_tuple(versions->desc, values, nulls);
	pfree(values);
	pfree(nulls);
	return tuple;
}

/*
 * One record's new state: kept for the flush, or joined to what waits there.
 * Its values are the slot's, or row's.
 */
void
al_version_put(AlVersions *versions, const AlVersionRecord *record, bool present,
			   const Datum *key, TupleTableSlot *slot, HeapTuple row, const AlEntry *entry)
{
	uint32		hash = 0;
	Change	   *change = NULL;
	HeapTuple	tuple;
	MemoryContext old;

	if (versions->image_keys)
	{
		hash = hash_key(versions, key);
		change = find_change(versions, key, hash);
	}
	if (change != NULL && change->transaction_id != entry->transaction_id)
	{
		al_version_flush();
		change = NULL;
	}

	old = MemoryContextSwitchTo(al_buffer_memory(&buffer));
	tuple = row ? heap_copytuple(row) : make_row(versions, slot);
	MemoryContextSwitchTo(old);
	if (change != NULL)
		al_buffer_replace(&buffer, &change->head, tuple);
	else
	{
		change = al_buffer_add(&buffer, tuple);
		change->transaction_id = entry->transaction_id;
		change->timestamp = entry->timestamp;
		change->record = *record;
		change->written = InvalidSubTransactionId;
		change->hash = hash;
		link_change(buffer.used - 1);
	}
	change->versions = versions;
	change->present = present;

	/*
	 * Where equal keys may look different, the next one could not be told.  A
	 * full buffer is not left to the next one either: what an index evaluates
	 * may overtake that one when it has been found to be the latest.
	 */
	if (!versions->image_keys || al_buffer_is_full(&buffer))
		al_version_flush();
}

/* The versions of a change that has been looked at and attributed. */
void
al_version_add(AlTable *table, const AlVersionLook *look, AlAction action,
			   TupleTableSlot *old, TupleTableSlot *new, const AlEntry *entry)
{
	AlVersions *versions = al_version_of(table);
	Datum		key[INDEX_MAX_KEYS];

	if (action == AL_INSERT || look->key_changed)
		al_version_past_arrival(table, entry->command);
	if (action == AL_DELETE || look->key_changed)
	{
		al_version_key(versions, old, key);
		if (!al_version_past_key(table, versions, key, entry->command))
			al_version_put(versions, &look->record[0], false, key, old, NULL, entry);
	}
	if (action != AL_DELETE && !al_version_past_row(table, new))
	{
		al_version_key(versions, new, key);
		al_version_put(versions, &look->record[look->key_changed ? 1 : 0], true,
					   key, new, NULL, entry);
	}
}

/* ---- following the transaction ---- */

void
al_version_end_transaction(void)
{
	al_buffer_begin(&buffer);	/* it went with TopTransactionContext */
	merged = false;
	al_version_past_end_transaction();
}

void
al_version_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	for (int i = 0; i < buffer.used; i++)
	{
		Change	   *change = al_buffer_item(&buffer, i);

		if (change->head.subid == subid)
		{
			change->head.subid = parent;
			merged = true;
		}
		if (change->written == subid)
			change->written = parent;
	}
	forget_changes(InvalidSubTransactionId);
}

void
al_version_abort_sub(SubTransactionId subid)
{
	for (int i = 0; i < buffer.used; i++)
	{
		Change	   *change = al_buffer_item(&buffer, i);

		if (change->written == subid)
			change->written = InvalidSubTransactionId;
	}
	forget_changes(subid);
}
