/*
 * version.c
 *		Writes version tables (design.md, section 6): from the same change, under
 *		the same transaction row and at the same times as the log.
 *
 * Each row of mine_version says what a record was from one transaction row
 * until the next.  A change is looked up before it is attributed, since the ids
 * of a record's versions rise; then it waits in a buffer, as the log's entries
 * do (writer.c), and with the same rule: a version is written under the
 * (sub)transaction that made the change.
 *
 * The record's row is locked by whoever changes it, so its newest version is
 * nobody else's to change: it is read as committed by now, and by ourselves
 * (SnapshotSelf), whatever the isolation level.
 *
 * Several changes of a record under one transaction row make one version, of
 * their net effect; the row written for the first is overwritten by the next.
 * A statement run from inside another is delivered before it: a change that a
 * later command of ours had overtaken by then makes no version.  Its new row
 * says so itself; of a deleted row its key does, which has come again.  All
 * others come in the order of their commands.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "catalog/pg_am.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

#define AL_VERSION_ENTRIES 1000
#define AL_VERSION_BYTES (2 * 1024 * 1024)
#define AL_VERSION_BUCKETS 2048 /* power of two */

/* a version to be written */
typedef struct Change
{
	AlVersions *versions;
	int64		transaction_id;
	TimestampTz timestamp;
	bool		present;		/* afterwards */
	AlVersionRecord record;		/* before */
	HeapTuple	row;			/* its own columns still NULL */
	SubTransactionId subid;
	SubTransactionId written;	/* the subtransaction further in that needed it
								 * written already, or its surviving parent */
	uint32		hash;
	int			next;			/* in the same bucket, -1: none */
} Change;

static Change *buffer = NULL;	/* in buffer_cxt */
static int	buffer_used = 0;
static int	buffer_room = 0;
static Size buffer_bytes = 0;
static MemoryContext buffer_cxt = NULL;
static int	buckets[AL_VERSION_BUCKETS];	/* newest of each, valid while
											 * buffer_used > 0 */
static bool merged = false;		/* a subtransaction's changes joined ours: one
								 * record may be there twice */
static uint64 flushes = 1;

/* keys that came to a table: a deleted one may be among them again */
typedef struct Arrivals
{
	Oid			root;
	CommandId	latest;
} Arrivals;

static List *arrivals = NIL;	/* in TopTransactionContext */

/* ---- what is known of a version table ---- */

static void
refuse(const AlTable *table, const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write versions of table \"%s.%s\"", table->schema, table->name),
			 errdetail("Version table \"%s.%s\" %s.", table->schema, name, detail),
			 errhint("Run audit_log.enable() on \"%s.%s\": it makes or completes its version table.",
					 table->schema, table->name)));
}

/* The version table's oid, locked. */
static Oid
lock_version_table(const AlTable *table, const char *name)
{
	Oid			nspid = get_rel_namespace(table->root);
	Oid			relid;
	Oid			locked = InvalidOid;

	while ((relid = get_relname_relid(name, nspid)) != locked || !OidIsValid(relid))
	{
		if (OidIsValid(locked))
			UnlockRelationOid(locked, RowExclusiveLock);
		if (!OidIsValid(relid))
			refuse(table, name, "does not exist");
		LockRelationOid(relid, RowExclusiveLock);
		locked = relid;
	}
	return relid;
}

static AttrNumber
find_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att->attnum;
	}
	return InvalidAttrNumber;
}

static void
fill_own_columns(AlVersions *versions, const AlTable *table, const char *name)
{
	static const Oid types[AL_VERSION_COLUMNS] =
	{INT8OID, INT8OID, INT2OID, TIMESTAMPTZOID, TIMESTAMPTZOID};

	for (int i = 0; i < AL_VERSION_COLUMNS; i++)
	{
		const char *column = al_settings_version_column(table->settings, i);

		versions->own[i] = find_column(versions->desc, column);
		if (versions->own[i] == InvalidAttrNumber ||
			TupleDescAttr(versions->desc, versions->own[i] - 1)->atttypid != types[i])
			refuse(table, name, psprintf("has no column \"%s\" of type %s", column,
										 format_type_be(types[i])));
	}
}

/* Values are copied as they are, so the types must be the same but for domains. */
static void
fill_sources(AlVersions *versions, const AlTable *table, Relation rel, const char *name)
{
	TupleDesc	source = RelationGetDescr(rel);

	versions->source = palloc0(sizeof(AttrNumber) * Max(versions->desc->natts, 1));
	for (int i = 0; i < table->ncolumns; i++)
	{
		const AlColumn *column = &table->columns[i];
		AttrNumber	attnum = find_column(versions->desc, column->name);
		Oid			type = TupleDescAttr(source, column->attnum - 1)->atttypid;
		Oid			have;

		if (attnum == InvalidAttrNumber)
			refuse(table, name, psprintf("has no column \"%s\"", column->name));
		have = TupleDescAttr(versions->desc, attnum - 1)->atttypid;
		if (have != type && have != getBaseType(type))
			refuse(table, name, psprintf("has column \"%s\" of another type", column->name));
		if (column->masked)
			continue;
		versions->source[attnum - 1] = column->attnum;
		versions->last_source = Max(versions->last_source, column->attnum);
	}
}

/*
 * The primary key of the version table: the table's own key, in any order, then
 * transaction_id, so that the newest version of a record comes first backward.
 */
static bool
fill_keys(AlVersions *versions, const AlTable *table, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisprimary || !form->indisvalid || form->indnkeyatts != table->nkeys + 1 ||
		index->rd_rel->relam != BTREE_AM_OID ||
		form->indkey.values[table->nkeys] != versions->own[AL_VERSION_TRANSACTION])
		return false;
	versions->nkeys = table->nkeys;
	versions->keys = palloc0(sizeof(AlVersionKey) * table->nkeys);
	for (int i = 0; i < table->nkeys; i++)
	{
		AlVersionKey  *key = &versions->keys[i];
		Form_pg_attribute att;
		bool		found = false;
		Oid			operator;

		key->attnum = form->indkey.values[i];
		att = TupleDescAttr(versions->desc, key->attnum - 1);
		for (int k = 0; k < table->nkeys; k++)
			found |= strcmp(table->keys[k]->name, NameStr(att->attname)) == 0;
		key->source = versions->source[key->attnum - 1];
		if (!found || key->source == 0)
			return false;
		key->byval = att->attbyval;
		key->len = att->attlen;
		operator = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
									   index->rd_opcintype[i], BTEqualStrategyNumber);
		if (!OidIsValid(operator))
			return false;
		fmgr_info_cxt(get_opcode(operator), &key->equal, CurrentMemoryContext);
		key->collation = index->rd_indcollation[i];
	}
	versions->index = RelationGetRelid(index);
	versions->image_keys = _bt_allequalimage(index, false);
	return true;
}

/*
 * Ids that are given out from here on are higher than those of its versions,
 * also where they were restored without the log.  Asked of an index that leads
 * with the id; without one each change is looked up before it gets its own.
 */
static void
pass_ids(AlVersions *versions, Relation rel, Relation index)
{
	TupleTableSlot *slot;
	IndexScanDesc scan;

	if (versions->ids_passed || index->rd_rel->relam != BTREE_AM_OID ||
		!index->rd_index->indisvalid || RelationGetIndexPredicate(index) != NIL ||
		index->rd_index->indkey.values[0] != versions->own[AL_VERSION_TRANSACTION])
		return;
	slot = table_slot_create(rel, NULL);
	scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotAny, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		al_session_pass_id(al_version_value(versions, ExecFetchSlotHeapTuple(slot, false, NULL),
											AL_VERSION_TRANSACTION));
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	versions->ids_passed = true;
}

/* The tracked relation's version table; its lock is held from here on. */
AlVersions *
al_version_of(AlTable *table)
{
	AlVersions *versions;
	const char *name;
	MemoryContext cxt;
	MemoryContext old;
	Relation	rel;
	Relation	source;
	List	   *indexes;
	ListCell   *lc;
	bool		found = false;

	if (table->versions != NULL)
		return table->versions;

	/* goes with an error, stays with the table */
	cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log version table",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	name = table->settings->version_table ? table->settings->version_table :
		psprintf("%s_version", table->name);
	if (table->nkeys == 0 || table->key_masked)
		refuse(table, name, "has no key to be kept by: the table has none, or one that is masked");
	versions = palloc0(sizeof(AlVersions));
	versions->relid = lock_version_table(table, name);
	rel = table_open(versions->relid, NoLock);
	if (rel->rd_rel->relkind != RELKIND_RELATION || RelationUsesLocalBuffers(rel) ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		refuse(table, name, "is not an ordinary table");
	versions->desc = CreateTupleDescCopy(RelationGetDescr(rel));
	fill_own_columns(versions, table, name);
	source = table_open(table->relid, NoLock);
	fill_sources(versions, table, source, name);
	table_close(source, NoLock);
	indexes = RelationGetIndexList(rel);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), RowExclusiveLock);

		found = found || fill_keys(versions, table, index);
		pass_ids(versions, rel, index);
		index_close(index, NoLock);
	}
	table_close(rel, NoLock);
	if (!found)
		refuse(table, name, "has no primary key of the table's key columns and the transaction's id");
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(cxt, table->cxt);

	table->version_relid = versions->relid;
	table->versions = versions;
	return versions;
}

/* ---- looking records up ---- */

int64
al_version_value(const AlVersions *versions, HeapTuple tuple, AlVersionColumn column)
{
	bool		isnull;
	Datum		value = heap_getattr(tuple, versions->own[column], versions->desc, &isnull);

	if (isnull)
		return 0;
	return column == AL_VERSION_OPERATION ? DatumGetInt16(value) : DatumGetInt64(value);
}

/* What one version says of its record; slot holds it as it stands on its page. */
void
al_version_record(const AlVersions *versions, TupleTableSlot *slot, AlVersionRecord *record)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);

	record->found = true;
	record->tid = slot->tts_tid;
	record->id = al_version_value(versions, tuple, AL_VERSION_TRANSACTION);
	record->operation = al_version_value(versions, tuple, AL_VERSION_OPERATION);
	record->valid_from = al_version_value(versions, tuple, AL_VERSION_FROM);
	record->ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
	record->command = record->ours ? HeapTupleHeaderGetCmin(tuple->t_data) : 0;
	record->before = record->operation == AL_UPDATED;
	record->looked = flushes;
}

/* One search after the other in the primary key of a version table. */
typedef struct Search
{
	const AlVersions *versions;
	IndexScanDesc scan;
	TupleTableSlot *slot;		/* holds what was found */
} Search;

static void
begin_search(Search *search, const AlVersions *versions, Relation rel, Relation index)
{
	search->versions = versions;
	search->slot = table_slot_create(rel, NULL);
	search->scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotSelf, versions->nkeys);
}

static void
end_search(Search *search)
{
	index_endscan(search->scan);
	ExecDropSingleTupleTableSlot(search->slot);
}

/* The newest version of the record with this key: in the slot, if there is one. */
static void
find_version(Search *search, const Datum *key, AlVersionRecord *record)
{
	const AlVersions *versions = search->versions;
	ScanKeyData scankeys[INDEX_MAX_KEYS];

	for (int i = 0; i < versions->nkeys; i++)
		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   versions->keys[i].collation,
							   versions->keys[i].equal.fn_oid, key[i]);
	memset(record, 0, sizeof(AlVersionRecord));
	record->looked = flushes;
	index_rescan(search->scan, scankeys, versions->nkeys, NULL, 0);
	if (!index_getnext_slot(search->scan, BackwardScanDirection, search->slot))
	{
		ExecClearTuple(search->slot);
		return;
	}
	al_version_record(versions, search->slot, record);
	/* what a delete version of ours has overwritten, the one before it tells */
	if (record->ours && record->operation == AL_DELETED)
	{
		TupleTableSlot *before = table_slot_create(search->scan->heapRelation, NULL);

		if (index_getnext_slot(search->scan, BackwardScanDirection, before))
			record->before =
				al_version_value(versions, ExecFetchSlotHeapTuple(before, false, NULL),
								 AL_VERSION_OPERATION) != AL_DELETED;
		ExecDropSingleTupleTableSlot(before);
	}
}

void
al_version_find(const AlVersions *versions, Relation rel, Relation index,
				const Datum *key, AlVersionRecord *record)
{
	Search		search;

	begin_search(&search, versions, rel, index);
	find_version(&search, key, record);
	end_search(&search);
}

void
al_version_key(const AlVersions *versions, TupleTableSlot *slot, Datum *key)
{
	for (int i = 0; i < versions->nkeys; i++)
	{
		bool		isnull;

		key[i] = slot_getattr(slot, versions->keys[i].source, &isnull);
		Assert(!isnull);
	}
}

static bool
same_key(AlVersions *versions, const Datum *a, const Datum *b)
{
	for (int i = 0; i < versions->nkeys; i++)
	{
		AlVersionKey  *key = &versions->keys[i];

		if (!datum_image_eq(a[i], b[i], key->byval, key->len) &&
			(versions->image_keys ||
			 !DatumGetBool(FunctionCall2Coll(&key->equal, key->collation, a[i], b[i]))))
			return false;
	}
	return true;
}

/*
 * Looks at the records that a change touches: whether they are two, and, where
 * their ids are wanted, what versions they have.  Otherwise that is left to the
 * flush, which has the relations open.
 */
void
al_version_look(AlTable *table, AlAction action, TupleTableSlot *old,
				TupleTableSlot *new, bool ids, AlVersionLook *look)
{
	AlVersions *versions = al_version_of(table);
	Datum		key[INDEX_MAX_KEYS];
	Datum		newkey[INDEX_MAX_KEYS];

	memset(look, 0, sizeof(AlVersionLook));
	al_version_key(versions, old ? old : new, key);
	if (action == AL_UPDATE)
	{
		al_version_key(versions, new, newkey);
		look->key_changed = !same_key(versions, key, newkey);
	}
	if (ids || !versions->ids_passed)
	{
		Relation	rel = table_open(versions->relid, RowExclusiveLock);
		Relation	index = index_open(versions->index, RowExclusiveLock);
		Search		search;

		begin_search(&search, versions, rel, index);
		find_version(&search, key, &look->record[0]);
		if (look->key_changed)
			find_version(&search, newkey, &look->record[1]);
		look->newest = Max(look->record[0].id, look->record[1].id);
		end_search(&search);
		index_close(index, NoLock);
		table_close(rel, NoLock);
	}
}

/* ---- overtaken changes ---- */

/* Has a later command of ours changed or deleted the row that a change made? */
static bool
row_is_past(TupleTableSlot *slot)
{
	/* on its page, where it stands as it is now */
	HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;

	return !(row->t_infomask & HEAP_XMAX_INVALID) &&
		!HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask) &&
		TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(row));
}

static void
note_arrival(const AlTable *table, CommandId command)
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
			form->indnkeyatts == versions->nkeys &&
			RelationGetIndexPredicate(index) == NIL;

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

/* Was a row with this key inserted by a command of ours after that one? */
static bool
came_into(Relation rel, const AlVersions *versions, const Datum *key, CommandId command)
{
	int			places[INDEX_MAX_KEYS];
	ScanKeyData scankeys[INDEX_MAX_KEYS];
	Relation	index = open_key_index(rel, versions, places);
	TupleTableSlot *slot;
	IndexScanDesc scan;
	bool		found = false;

	if (index == NULL)
		return false;
	for (int i = 0; i < versions->nkeys; i++)
	{
		Oid			operator = get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
												   index->rd_opcintype[i], BTEqualStrategyNumber);

		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i], get_opcode(operator), key[places[i]]);
	}
	slot = table_slot_create(rel, NULL);
	scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotAny, versions->nkeys);
	index_rescan(scan, scankeys, versions->nkeys, NULL, 0);
	while (!found && index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		HeapTupleHeader row = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;

		found = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(row)) &&
			HeapTupleHeaderGetCmin(row) > command;
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return found;
}

/* Had a key that this command took away come again before that was delivered? */
static bool
key_came_again(const AlTable *table, const AlVersions *versions, const Datum *key,
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

/* ---- writing ---- */

typedef struct Writing
{
	AlVersions *versions;
	AlTarget   *target;
	Relation	rel;
	Relation	index;
	Search		search;
	int			nrows;			/* in the target, to be inserted */
} Writing;

static void
insert_rows(Writing *writing)
{
	if (writing->nrows > 0)
		al_target_insert(writing->target, writing->nrows);
	writing->nrows = 0;
}

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
	int			columns[2] = {versions->own[AL_VERSION_END_TRANSACTION], versions->own[AL_VERSION_TO]};
	Datum		values[2] = {Int64GetDatum(transaction_id), TimestampTzGetDatum(until)};
	bool		nulls[2] = {false, false};
	HeapTuple	tuple = heap_modify_tuple_by_cols(ExecFetchSlotHeapTuple(slot, false, NULL),
												  versions->desc, 2, columns, values, nulls);

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

	if (record->looked == flushes && !record->found)
		return;
	if (record->looked == flushes &&
		table_tuple_fetch_row_version(writing->rel, &record->tid, SnapshotSelf,
									  writing->search.slot))
		return;
	for (int i = 0; i < versions->nkeys; i++)
		key[i] = heap_getattr(change->row, versions->keys[i].attnum, versions->desc, &isnull);
	find_version(&writing->search, key, record);
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
	row = heap_modify_tuple_by_cols(change->row, versions->desc, 4, columns, values, nulls);
	if (again)
		replace_row(writing, record, row);
	else
	{
		if (record->found)
			close_version(writing, record, change->transaction_id, from);
		al_target_store(writing->target, writing->nrows++, row);
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
	begin_search(&writing.search, changes[0]->versions, writing.rel, writing.index);
	for (int i = 0; i < n; i++)
	{
		/* of partitions, with the same columns at the same places */
		writing.versions = changes[i]->versions;
		if (repeated)
		{
			insert_rows(&writing);
			changes[i]->record.looked = 0;
		}
		write_change(&writing, changes[i]);
	}
	end_search(&writing.search);
	insert_rows(&writing);
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
	flushes++;
	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* ---- the buffer ---- */

static void
link_change(int i)
{
	int		   *bucket = &buckets[buffer[i].hash & (AL_VERSION_BUCKETS - 1)];

	if (i == 0)
		memset(buckets, -1, sizeof(buckets));
	buffer[i].next = *bucket;
	*bucket = i;
}

/* Drops the changes of subid, and those written for good, from the buffer. */
static void
forget_changes(SubTransactionId subid)
{
	int			kept = 0;
	int			n = buffer_used;

	for (int i = 0; i < n; i++)
		kept += buffer[i].subid != subid && buffer[i].subid != buffer[i].written;
	if (kept == 0)
	{
		if (buffer_cxt != NULL)
			MemoryContextReset(buffer_cxt);
		buffer = NULL;
		buffer_used = buffer_room = 0;
		buffer_bytes = 0;
		merged = false;
		return;
	}
	if (kept == n)
		return;
	buffer_bytes = 0;
	buffer_used = 0;
	for (int i = 0; i < n; i++)
		if (buffer[i].subid != subid && buffer[i].subid != buffer[i].written)
		{
			buffer[buffer_used] = buffer[i];
			link_change(buffer_used);
			buffer_bytes += buffer[buffer_used].row->t_len;
			buffer_used++;
		}
		else
			heap_freetuple(buffer[i].row);
}

/* Writes what the current (sub)transaction has buffered. */
void
al_version_flush(void)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	Change	  **mine;
	int			n = 0;

	if (buffer_used == 0)
		return;
	mine = palloc(sizeof(Change *) * buffer_used);
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid == subid)
			mine[n++] = &buffer[i];
	if (n > 0)
	{
		write_all(mine, n, merged);
		forget_changes(subid);
	}
	pfree(mine);
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

	if (buffer_used == 0)
		return NULL;
	for (int i = buckets[hash & (AL_VERSION_BUCKETS - 1)]; i >= 0; i = buffer[i].next)
	{
		Change	   *change = &buffer[i];
		Datum		other[INDEX_MAX_KEYS];
		bool		isnull;

		if (change->hash != hash || change->versions->relid != versions->relid)
			continue;
		for (int k = 0; k < versions->nkeys; k++)
			other[k] = heap_getattr(change->row, versions->keys[k].attnum, versions->desc, &isnull);
		if (!same_key(versions, key, other))
			continue;
		if (change->subid == subid)
		{
			/* the newest comes first */
			if (mine == NULL)
				mine = change;
		}
		else if (change->written == InvalidSubTransactionId)
		{
			Change	   *again = change;

			change->record.looked = 0;
			write_all(&again, 1, false);
			change->record.looked = 0;
			change->written = subid;
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
	uint64		looked = record->looked;
	uint32		hash = 0;
	Change	   *change = NULL;
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
	if (change == NULL && (buffer_used >= AL_VERSION_ENTRIES || buffer_bytes > AL_VERSION_BYTES))
	{
		uint64		before = flushes;

		al_version_flush();
		if (looked == before)	/* this record was not among them */
			looked = flushes;
	}

	if (buffer_cxt == NULL)
		buffer_cxt = AllocSetContextCreate(TopTransactionContext, "audit_log version buffer",
										   ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(buffer_cxt);
	if (change != NULL)
	{
		buffer_bytes -= change->row->t_len;
		heap_freetuple(change->row);
	}
	else
	{
		if (buffer_used == buffer_room)
		{
			buffer_room = buffer_room ? buffer_room * 2 : 16;
			buffer = buffer ? repalloc(buffer, sizeof(Change) * buffer_room) :
				palloc(sizeof(Change) * buffer_room);
		}
		change = &buffer[buffer_used];
		change->transaction_id = entry->transaction_id;
		change->timestamp = entry->timestamp;
		change->record = *record;
		change->record.looked = looked;
		change->subid = GetCurrentSubTransactionId();
		change->written = InvalidSubTransactionId;
		change->hash = hash;
		link_change(buffer_used++);
	}
	change->versions = versions;
	change->present = present;
	change->row = row ? heap_copytuple(row) : make_row(versions, slot);
	buffer_bytes += change->row->t_len;
	MemoryContextSwitchTo(old);

	/* where equal keys may look different, the next one could not be told */
	if (!versions->image_keys)
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
		note_arrival(table, entry->command);
	if (action == AL_DELETE || look->key_changed)
	{
		al_version_key(versions, old, key);
		if (!key_came_again(table, versions, key, entry->command))
			al_version_put(versions, &look->record[0], false, key, old, NULL, entry);
	}
	if (action != AL_DELETE && !row_is_past(new))
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
	buffer = NULL;
	buffer_cxt = NULL;			/* went with TopTransactionContext */
	buffer_used = buffer_room = 0;
	buffer_bytes = 0;
	merged = false;
	arrivals = NIL;
}

void
al_version_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	for (int i = 0; i < buffer_used; i++)
	{
		if (buffer[i].subid == subid)
		{
			buffer[i].subid = parent;
			merged = true;
		}
		if (buffer[i].written == subid)
			buffer[i].written = parent;
	}
	if (buffer_used > 0)
		forget_changes(InvalidSubTransactionId);
}

void
al_version_abort_sub(SubTransactionId subid)
{
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].written == subid)
			buffer[i].written = InvalidSubTransactionId;
	if (buffer_used > 0)
		forget_changes(subid);
}
