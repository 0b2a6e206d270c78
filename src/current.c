/*
 * current.c
 *		A table as it is, for those who look back from it: who may, whether their
 *		snapshot shows it whole, its rows.
 *
 * Nothing is kept.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "audit_log.h"

/* ---- rights ---- */

void
al_current_check_rights(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is a partition", RelationGetRelationName(rel)),
				 errhint("Ask for the whole table: %s.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(al_table_root(rel))),
													get_rel_name(al_table_root(rel))))));
	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a table", RelationGetRelationName(rel))));
	if (!al_own_may_read(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the log of table \"%s\"", RelationGetRelationName(rel)),
				 errdetail("The log of a table is for those who may SELECT all its columns, with no row security in between.")));
}

/* ---- one snapshot ---- */

/*
 * $1 the table, $2 its partitions and itself as they are.  pg_relation_filenode()
 * tells what is now, pg_class what the snapshot sees; a partition that was made
 * since holds nothing that it sees.
 */
static const char torn_sql[] =
"WITH RECURSIVE m (relid, kind) AS ("
"  SELECT c.oid, c.relkind FROM pg_catalog.pg_class c WHERE c.oid = $1"
"  UNION ALL"
"  SELECT c.oid, c.relkind FROM m JOIN pg_catalog.pg_inherits i ON i.inhparent = m.relid AND NOT i.inhdetachpending"
"   JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE m.kind = 'p')"
" SELECT c.oid FROM pg_catalog.pg_class c"
" WHERE c.relkind = 'r' AND (c.oid = ANY ($2) OR c.oid IN (SELECT relid FROM m))"
"   AND (c.oid <> ALL ($2) OR c.oid NOT IN (SELECT relid FROM m)"
"        OR pg_catalog.pg_relation_filenode(c.oid) IS DISTINCT FROM c.relfilenode)"
" LIMIT 1";

static bool
is_torn(Relation root)
{
	List	   *relids = root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(RelationGetRelid(root), NoLock, NULL) :
		list_make1_oid(RelationGetRelid(root));
	Datum	   *elems = palloc(sizeof(Datum) * list_length(relids));
	Oid			types[] = {OIDOID, OIDARRAYOID};
	Datum		values[2];
	bool		torn;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, relids)
		elems[n++] = ObjectIdGetDatum(lfirst_oid(lc));
	values[0] = ObjectIdGetDatum(RelationGetRelid(root));
	values[1] = PointerGetDatum(construct_array(elems, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	SPI_connect();
	if (SPI_execute_with_args(torn_sql, 2, types, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_class");
	torn = SPI_processed > 0;
	SPI_finish();
	return torn;
}

/*
 * A table that was emptied or rewritten, or whose partitions came or went, after
 * the snapshot was taken, does not show what the snapshot saw, and the log, as
 * the snapshot has it, does not tell of it.  That may be so although the table
 * is locked now: the statement's snapshot is older than the lock.  To be called
 * when the table has been read.
 */
void
al_current_check_snapshot(Relation root)
{
	AlOwn		saved;
	volatile bool torn = false;

	al_own_enter(&saved);
	PG_TRY();
	{
		torn = is_torn(root);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	if (torn)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not read table \"%s\" by this snapshot", RelationGetRelationName(root)),
				 errdetail("It was emptied or rewritten, or partitions came or went, after the snapshot was taken."),
				 errhint("Try again, with a new snapshot.")));
}

/*
 * What the log says of a record cannot be told of two rows: one is this
 * transaction's own, in the place of one that was removed since the snapshot was
 * taken.
 */
void
al_current_twice(Relation root, const char *record_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("could not read table \"%s\" by this snapshot", RelationGetRelationName(root)),
			 errdetail("It shows two rows of record %s: this transaction's own, and one that was removed after the snapshot was taken.",
					   record_id),
			 errhint("Try again, with a new snapshot.")));
}

/* ---- how it is captured ---- */

/* The lists of names in the settings by which the table is captured now. */
static AlSettings *
settings_of(const AlStates *states)
{
	AlSettings *settings = palloc0(sizeof(AlSettings));
	static const char *const keys[] = {"exclude", "include", "mask"};
	List	  **lists[] = {&settings->exclude, &settings->include, &settings->mask};
	AlJsonWalk	walk;

	if (states->n == 0)
		return settings;
	al_jsonwalk_begin(&walk, &states->states[states->n - 1].settings->root);
	while (al_jsonwalk_next(&walk))
		for (int i = 0; i < (int) lengthof(keys); i++)
		{
			AlJsonWalk	names;

			if (strlen(keys[i]) != (size_t) walk.keylen || memcmp(keys[i], walk.key, walk.keylen) != 0)
				continue;
			al_jsonwalk_begin(&names, walk.value.container);
			while (al_jsonwalk_next(&names))
				*lists[i] = lappend(*lists[i], pnstrdup(names.value.string, names.value.len));
		}
	return settings;
}

AlTable *
al_current_table(Relation root, const AlStates *states)
{
	return al_table_of(root, settings_of(states));
}

/* ---- rows ---- */

static void
scan_relation(Relation rel, Relation root, AlCurrentCallback callback, void *arg)
{
	TupleConversionMap *map = rel == root ? NULL :
		convert_tuples_by_name(RelationGetDescr(rel), RelationGetDescr(root));
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TupleTableSlot *as_root = map ?
		MakeSingleTupleTableSlot(RelationGetDescr(root), &TTSOpsVirtual) : NULL;
	TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, GetActiveSnapshot());
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log row",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		callback(map ? execute_attr_map_slot(map->attrMap, slot, as_root) : slot, arg);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	if (as_root)
		ExecDropSingleTupleTableSlot(as_root);
}

void
al_current_scan(Relation root, AlCurrentCallback callback, void *arg)
{
	List	   *relids;
	ListCell   *lc;

	if (root->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
	{
		scan_relation(root, root, callback, arg);
		return;
	}
	relids = find_all_inheritors(RelationGetRelid(root), AccessShareLock, NULL);
	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
			scan_relation(rel, root, callback, arg);
		table_close(rel, NoLock);
	}
}

static char *
fetch_sql(const AlTable *table, Relation root, Oid *types)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT * FROM %s%s",
					 root->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(root)),
												RelationGetRelationName(root)));
	for (int i = 0; i < table->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(RelationGetDescr(root), table->keys[i]->attnum - 1);
		Oid			operator = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR)->eq_opr;
		HeapTuple	tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(operator));

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "key column \"%s\" has no equality operator", table->keys[i]->name);
		types[i] = att->atttypid;
		appendStringInfo(&sql, "%s %s OPERATOR(%s.%s) $%d", i == 0 ? " WHERE" : " AND",
						 quote_identifier(NameStr(att->attname)),
						 quote_identifier(get_namespace_name(((Form_pg_operator) GETSTRUCT(tuple))->oprnamespace)),
						 NameStr(((Form_pg_operator) GETSTRUCT(tuple))->oprname), i + 1);
		ReleaseSysCache(tuple);
	}
	return sql.data;
}

/*
 * Several rows may be equal by the type's own word (citext in a key of another
 * operator class): the id decides.  Of a hash in the place of a masked key the
 * whole table is read.
 */
static bool
fetch(Relation root, const AlTable *table, const char *record_id, TupleTableSlot *slot)
{
	Oid		   *types = palloc(sizeof(Oid) * table->nkeys);
	char	   *sql = fetch_sql(table, root, types);
	MemoryContext cxt = CurrentMemoryContext;
	Datum	   *values = NULL;
	HeapTuple	found = NULL;
	TupleConversionMap *map = NULL;
	Portal		portal;

	if (table->key_masked)
		*strstr(sql, " WHERE") = '\0';
	else
		values = al_translate_keys(table, RelationGetDescr(root), record_id);

	SPI_connect();
	portal = SPI_cursor_open_with_args(NULL, sql, values ? table->nkeys : 0, types, values, NULL,
									   true, CURSOR_OPT_NO_SCROLL);
	while (found == NULL)
	{
		SPI_cursor_fetch(portal, true, 100);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			SPITupleTable *rows = SPI_tuptable;
			MemoryContext old = MemoryContextSwitchTo(cxt);
			HeapTuple	tuple;

			/* the query's rows lack columns that the relation has dropped */
			if (map == NULL)
				map = convert_tuples_by_name(rows->tupdesc, RelationGetDescr(root));
			tuple = map ? execute_attr_map_tuple(rows->vals[i], map) : heap_copytuple(rows->vals[i]);
			ExecForceStoreHeapTuple(tuple, slot, false);
			if (strcmp(text_to_cstring(al_row_record_id(table, slot)), record_id) != 0)
			{
				ExecClearTuple(slot);
				heap_freetuple(tuple);
			}
			else if (found != NULL)
				al_current_twice(root, record_id);
			else
				found = tuple;
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	if (found != NULL)
		ExecForceStoreHeapTuple(found, slot, true);
	else
		ExecClearTuple(slot);
	return found != NULL;
}

bool
al_current_fetch(Relation root, const AlTable *table, const char *record_id, TupleTableSlot *slot)
{
	AlFixed		saved;
	volatile bool found = false;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		found = fetch(root, table, record_id, slot);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return found;
}

/* The row as rows_as_of() shows it: al_row_object() under the settings it needs. */
Jsonb *
al_current_object(const AlTable *table, TupleTableSlot *slot)
{
	AlFixed		saved;
	Jsonb	   *volatile object = NULL;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		object = al_row_object(table, slot);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return object;
}
