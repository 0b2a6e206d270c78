/*
 * version.c
 *		What is known of a table's version table (design.md, section 6), and the
 *		search for a record's newest version.
 *
 * Each row of mine_version says what a record was from one transaction row
 * until the next.  A change is looked at before it is attributed, since the ids
 * of a record's versions rise; version_write.c then writes what it has made.
 *
 * The record's row is locked by whoever changes it, so its newest version is
 * nobody else's to change: it is read as committed by now, and by ourselves
 * (SnapshotSelf), whatever the isolation level.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "audit_log.h"

uint64		al_version_writes = 1;	/* how often version_write.c has written */

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

/*
 * We write it with its owner's rights: it must be our own, or, restored without
 * its owner, one that the table's owner might write himself.
 */
static void
check_owner(const AlTable *table, Oid owner, const char *name)
{
	HeapTuple	tuple;
	bool		allowed = owner == al_catalog_get()->owner;

	if (allowed)
		return;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table->root));
	if (HeapTupleIsValid(tuple))
	{
		allowed = has_privs_of_role(((Form_pg_class) GETSTRUCT(tuple))->relowner, owner);
		ReleaseSysCache(tuple);
	}
	if (!allowed)
		refuse(table, name, "belongs to somebody else");
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

	/* the predicate is not to be looked into: that evaluates parts of it */
	if (versions->ids_passed || index->rd_rel->relam != BTREE_AM_OID ||
		!index->rd_index->indisvalid ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL) ||
		index->rd_index->indkey.values[0] != versions->own[AL_VERSION_TRANSACTION] ||
		(index->rd_indoption[0] & INDOPTION_DESC) != 0)
		return;
	slot = table_slot_create(rel, NULL);
	scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotAny, 0);
	index_rescan(scan, NULL, 0, NULL, 0);
	if (index_getnext_slot(scan, BackwardScanDirection, slot))
		al_session_pass_id(al_version_value(versions, slot, AL_VERSION_TRANSACTION));
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
	check_owner(table, rel->rd_rel->relowner, name);
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
al_version_value(const AlVersions *versions, TupleTableSlot *slot, AlVersionColumn column)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, versions->own[column], &isnull);

	if (isnull)
		return 0;
	return column == AL_VERSION_OPERATION ? DatumGetInt16(value) : DatumGetInt64(value);
}

/* What one version says of its record; slot holds it as it stands on its page. */
void
al_version_record(const AlVersions *versions, TupleTableSlot *slot, AlVersionRecord *record)
{
	HeapTupleHeader tuple = ExecFetchSlotHeapTuple(slot, false, NULL)->t_data;

	record->found = true;
	record->tid = slot->tts_tid;
	record->id = al_version_value(versions, slot, AL_VERSION_TRANSACTION);
	record->operation = al_version_value(versions, slot, AL_VERSION_OPERATION);
	record->valid_from = al_version_value(versions, slot, AL_VERSION_FROM);
	record->ours = TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple));
	record->command = record->ours ? HeapTupleHeaderGetCmin(tuple) : 0;
	record->before = record->operation == AL_UPDATED;
	record->looked = al_version_writes;
}

void
al_version_begin_search(AlVersionSearch *search, const AlVersions *versions, Relation rel, Relation index)
{
	search->versions = versions;
	search->cxt = CurrentMemoryContext;
	search->slot = table_slot_create(rel, NULL);
	search->scan = AL_INDEX_BEGINSCAN(rel, index, SnapshotSelf, versions->nkeys);
}

void
al_version_end_search(AlVersionSearch *search)
{
	index_endscan(search->scan);
	ExecDropSingleTupleTableSlot(search->slot);
}

/* The newest version of the record with this key: in the slot, if there is one. */
void
al_version_search(AlVersionSearch *search, const Datum *key, AlVersionRecord *record)
{
	const AlVersions *versions = search->versions;
	ScanKeyData scankeys[INDEX_MAX_KEYS];

	/* what the index keeps from one search to the next lives as long as the scan */
	MemoryContext old = MemoryContextSwitchTo(search->cxt);

	for (int i = 0; i < versions->nkeys; i++)
		ScanKeyEntryInitialize(&scankeys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   versions->keys[i].collation,
							   versions->keys[i].equal.fn_oid, key[i]);
	memset(record, 0, sizeof(AlVersionRecord));
	record->looked = al_version_writes;
	index_rescan(search->scan, scankeys, versions->nkeys, NULL, 0);
	if (!index_getnext_slot(search->scan, BackwardScanDirection, search->slot))
	{
		ExecClearTuple(search->slot);
		MemoryContextSwitchTo(old);
		return;
	}
	al_version_record(versions, search->slot, record);
	/* what a delete version of ours has overwritten, the one before it tells */
	if (record->ours && record->operation == AL_DELETED)
	{
		TupleTableSlot *before = table_slot_create(search->scan->heapRelation, NULL);

		if (index_getnext_slot(search->scan, BackwardScanDirection, before))
			record->before =
				al_version_value(versions, before, AL_VERSION_OPERATION) != AL_DELETED;
		ExecDropSingleTupleTableSlot(before);
	}
	MemoryContextSwitchTo(old);
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

/* Are two keys the same record's? */
bool
al_version_same_key(AlVersions *versions, const Datum *a, const Datum *b)
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
		look->key_changed = !al_version_same_key(versions, key, newkey);
	}
	if (ids || !versions->ids_passed)
	{
		Relation	rel = table_open(versions->relid, RowExclusiveLock);
		Relation	index = index_open(versions->index, RowExclusiveLock);
		AlVersionSearch search;

		al_version_begin_search(&search, versions, rel, index);
		al_version_search(&search, key, &look->record[0]);
		if (look->key_changed)
			al_version_search(&search, newkey, &look->record[1]);
		look->newest = Max(look->record[0].id, look->record[1].id);
		al_version_end_search(&search);
		index_close(index, NoLock);
		table_close(rel, NoLock);
	}
}
