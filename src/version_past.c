/*
 * version_past.c
 *		Changes that a later command of the same transaction has overtaken.
 *
 * A statement run from inside another (trigger, function) is delivered before
 * it.  What it has changed again by then is past, and makes no version: a new
 * row says so itself; of a deleted row its key does, which has come again.  All
 * other changes of a record come in the order of their commands.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "executor/tuptable.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* keys that came to a table: a deleted one may be among them again */
typedef struct Arrivals
{
	Oid			root;
	CommandId	latest;
} Arrivals;

static List *arrivals = NIL;	/* in TopTransactionContext */

/* Has a later command of ours changed, deleted or moved the row in the slot? */
static bool
is_replaced(TupleTableSlot *slot)
{
	/* on its page, where it stands as it is now */
	HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;

	return !(row->t_infomask & HEAP_XMAX_INVALID) &&
		!HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(row));
}

/*
 * Has a later command of ours overtaken the row that a change made?  Only one
 * that is logged has: an UPDATE that changes nothing tracked makes no version
 * in the place of this one.
 */
bool
al_version_past_row(const AlTable *table, TupleTableSlot *slot)
{
	Relation	rel;
	TupleTableSlot *slots[2];
	bool		past = false;

	if (!is_replaced(slot))
		return false;			/* the usual way */

	rel = table_open(table->relid, AccessShareLock);
	slots[0] = table_slot_create(rel, NULL);
	slots[1] = table_slot_create(rel, NULL);
	for (int i = 0; !past && is_replaced(slot); i = 1 - i)
	{
		HeapTuple	row = ExecFetchSlotHeapTuple(slot, false, NULL);
		ItemPointerData next = row->t_data->t_ctid;
		AlEntry		difference = {0};

		past = HeapTupleHeaderIndicatesMovedPartitions(row->t_data) ||
			ItemPointerEquals(&next, &slot->tts_tid) ||
			!table_tuple_fetch_row_version(rel, &next, SnapshotAny, slots[i]) ||
			al_row_difference(table, slot, slots[i], &difference);
		slot = slots[i];
	}
	ExecDropSingleTupleTableSlot(slots[0]);
	ExecDropSingleTupleTableSlot(slots[1]);
	table_close(rel, NoLock);
	return past;
}

/* A key has come to the table: by INSERT, or by UPDATE of a key. */
void
al_version_past_arrival(const AlTable *table, CommandId command)
{
	MemoryContext old;
	Arrivals   *arrived;
	ListCell   *lc;

	foreach(lc, arrivals)
	{
		arrived = lfirst(lc);
		if (arrived->root == table->root)
		{
			arrived->latest = Max(arrived->latest, command);
			return;
		}
	}
	old = MemoryContextSwitchTo(TopTransactionContext);
	arrived = palloc(sizeof(Arrivals));
	arrived->root = table->root;
	arrived->latest = command;
	arrivals = lappend(arrivals, arrived);
	MemoryContextSwitchTo(old);
}

/*
 * The index of a relation that holds the table's key, and which of the
 * versions' key columns each of its columns is.
 */
static Relation
open_key_index(Relation rel, const AlVersions *versions, int *places)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Form_pg_index form = index->rd_index;
		bool		usable = form->indisunique && form->indimmediate && form->indisvalid &&
			index->rd_rel->relam == BTREE_AM_OID && form->indnkeyatts == versions->nkeys &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL);

		for (int i = 0; usable && i < versions->nkeys; i++)
		{
			AttrNumber	attnum = form->indkey.values[i];

			places[i] = -1;
			for (int k = 0; attnum > 0 && k < versions->nkeys; k++)
				if (strcmp(NameStr(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attname),
						   NameStr(TupleDescAttr(versions->desc, versions->keys[k].attnum - 1)->attname)) == 0)
					places[i] = k;
			usable = places[i] >= 0;
		}
		if (usable)
			return index;
		index_close(index, AccessShareLock);
	}
	return NULL;
}

/* Is it a row with this key, inserted by a command of ours after that one? */
static bool
came(TupleTableSlot *slot, const AttrNumber *attnums, AlVersions *versions, const Datum *key,
	 CommandId command)
{
	HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;
	Datum		other[INDEX_MAX_KEYS];

	if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row)) ||
		HeapTupleHeaderGetCmin(row) <= command)
		return false;
	/* the index may call keys equal that are two for the versions */
	for (int i = 0; i < versions->nkeys; i++)
	{
		bool		isnull;

		other[i] = slot_getattr(slot, attnums[i], &isnull);
	}
	return al_version_same_key(versions, key, other);
}

/*
 * The same of all rows of a relation.  Looked for by the B-tree that holds the
 * key; where there is none (an index of WITHOUT OVERLAPS is no B-tree), in all of it.
 */
static bool
came_into(Relation rel, AlVersions *versions, const Datum *key, CommandId command)
{
	int			places[INDEX_MAX_KEYS];
	AttrNumber	attnums[INDEX_MAX_KEYS];
	ScanKeyData scankeys[INDEX_MAX_KEYS];
	Relation	index = open_key_index(rel, versions, places);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	bool		found = false;

	for (int i = 0; i < versions->nkeys; i++)
		attnums[i] = get_attnum(RelationGetRelid(rel),
								NameStr(TupleDescAttr(versions->desc, versions->keys[i].attnum - 1)->attname));
	if (index != NULL)
	{
		IndexScanDesc scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotAny, versions->nkeys);

		for (int i = 0; i < versions->nkeys; i++)
		{
			Oid			operator = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
													   index->rd_opcintype[i], BTEqualStrategyNumber);

			ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
								   index->rd_indcollation[i], get_opcode(operator), key[places[i]]);
		}
		index_rescan(scan, scankeys, versions->nkeys, NULL, 0);
		while (!found && index_getnext_slot(scan, ForwardScanDirection, slot))
			found = came(slot, attnums, versions, key, command);
		index_endscan(scan);
		index_close(index, AccessShareLock);
	}
	else
	{
		TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, SnapshotAny);

		while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
			found = came(slot, attnums, versions, key, command);
		table_endscan(scan);
	}
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* Had a key that this command took away come again before that was delivered? */
bool
al_version_past_key(const AlTable *table, AlVersions *versions, const Datum *key,
					CommandId command)
{
	CommandId	latest = 0;
	List	   *relids;
	ListCell   *lc;
	bool		found = false;

	foreach(lc, arrivals)
		if (((Arrivals *) lfirst(lc))->root == table->root)
			latest = ((Arrivals *) lfirst(lc))->latest;
	if (latest <= command)
		return false;			/* the usual way */

	relids = get_rel_relkind(table->root) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(table->root, AccessShareLock, NULL) : list_make1_oid(table->root);
	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			found = found || came_into(rel, versions, key, command);
		table_close(rel, NoLock);
	}
	return found;
}

void
al_version_past_end_transaction(void)
{
	arrivals = NIL;				/* went with TopTransactionContext */
}
