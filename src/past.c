/*
 * past.c
 *		What a table was at a moment, made from what it is by taking back, newest
 *		first, what the log says was changed since.
 *
 * Nothing is made of rows that have not changed.  Of a record that has, the walk
 * back keeps only what was different then: whole rows where a DELETE has them,
 * else the columns that UPDATEs have changed, each with its oldest value.  Where
 * a delta changed the inside of a json value it is kept until the value is at
 * hand, that of the row as it is.  So memory grows with the records changed, not
 * with the changes.
 *
 * A record is known by its id, and goes by another where its key was changed.
 * In a table without key rows are told apart by their images alone, of which
 * so many are missing or too many.
 *
 * Everything lives in a memory context of its own until al_past_end().
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "audit_log.h"

/* a record under an id */
typedef struct NamedRecord
{
	const char *id;				/* hash key: pointer to the text */
	AlPastRecord *record;
} NamedRecord;

typedef struct Walk
{
	AlPast	   *past;
	HTAB	   *records;		/* by the id where the walk stands */
} Walk;

static uint32
hash_text(const void *key, Size size)
{
	const char *text = *(const char *const *) key;

	(void) size;
	return DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text)));
}

static int
match_text(const void *a, const void *b, Size size)
{
	(void) size;
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static HTAB *
make_names(const char *name, MemoryContext cxt)
{
	HASHCTL		ctl = {.keysize = sizeof(char *),.entrysize = sizeof(NamedRecord),
	.hash = hash_text,.match = match_text,.hcxt = cxt};

	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

void
al_past_misfit(const AlPast *past, const char *detail)
{
	al_past_check_snapshot(past->rel);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the log of table %s does not fit its rows", past->states->name),
			 errdetail_internal("%s", detail),
			 errhint("Something was changed without being captured; SELECT * FROM audit_log.check() may tell why.")));
}

void
al_past_missing(const AlPast *past, const AlPastRecord *record)
{
	/* it had come into a partition that came and went */
	if (past->went && record->id_then == NULL)
		return;
	if (record->image != NULL)
		al_past_misfit(past, psprintf("A row is not there, but its last change left it: %.200s",
									  JsonbToCString(NULL, &record->image->root,
													 VARSIZE(record->image))));
	al_past_misfit(past, psprintf("Record %s is not there, but its last change left it.",
								  record->id_now));
}

/* ---- rights ---- */

void
al_past_check_rights(Relation rel)
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
al_past_check_snapshot(Relation root)
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

/* ---- record ids ---- */

/* A key column's value from the text that a record id has of it. */
static Datum
key_value(const AlColumn *column, TupleDesc desc, const char *string)
{
	Form_pg_attribute att = TupleDescAttr(desc, column->attnum - 1);
	Oid			input;
	Oid			ioparam;

	if (getBaseType(att->atttypid) == JSONBOID)
	{
		Jsonb	   *json = al_jsontext_try(string, strlen(string));

		if (json == NULL)
		{
			AlValue		value = {.kind = AL_STRING,.string = string,.len = strlen(string)};

			json = al_jsonbuild_scalar(&value);
		}
		return JsonbPGetDatum(json);
	}
	getTypeInputInfo(att->atttypid, &input, &ioparam);
	return OidInputFunctionCall(input, unconstify(char *, string), ioparam, att->atttypmod);
}

/* The key's texts of an id; an error where they are not as many as columns. */
static char **
key_texts(const AlTable *table, const char *record_id)
{
	char	  **texts = palloc(sizeof(char *) * table->nkeys);
	Jsonb	   *json;
	AlJsonWalk	walk;
	int			n = 0;

	if (table->nkeys == 1)
	{
		texts[0] = pstrdup(record_id);
		return texts;
	}
	json = al_jsontext_try(record_id, strlen(record_id));
	if (json != NULL && JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json) &&
		JB_ROOT_COUNT(json) == (uint32) table->nkeys)
	{
		al_jsonwalk_begin(&walk, &json->root);
		while (al_jsonwalk_next(&walk))
		{
			int			len;
			char	   *text;

			if (walk.value.kind == AL_NULL)
				break;
			text = al_jsonbuild_text(&walk.value, &len);
			texts[n++] = pnstrdup(text, len);
		}
	}
	if (n < table->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no record_id of table \"%s.%s\"", record_id,
						table->schema, table->name),
				 errdetail("Its key has %d columns.", table->nkeys),
				 errhint("Give a JSON array of their texts, or audit_log.record_id(row).")));
	return texts;
}

/* The key's values, in the order of table->keys; under AL_FIXED_ALL. */
static Datum *
key_values(const AlTable *table, TupleDesc desc, const char *record_id)
{
	char	  **texts = key_texts(table, record_id);
	Datum	   *values = palloc(sizeof(Datum) * table->nkeys);

	for (int i = 0; i < table->nkeys; i++)
		values[i] = key_value(table->keys[i], desc, texts[i]);
	return values;
}

static char *
normal_id(const AlTable *table, TupleDesc desc, const char *record_id)
{
	Datum	   *keys = key_values(table, desc, record_id);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	text	   *id;

	for (int i = 0; i < desc->natts; i++)
		slot->tts_isnull[i] = true;
	for (int i = 0; i < table->nkeys; i++)
	{
		slot->tts_values[table->keys[i]->attnum - 1] = keys[i];
		slot->tts_isnull[table->keys[i]->attnum - 1] = false;
	}
	ExecStoreVirtualTuple(slot);
	id = al_row_record_id(table, slot);
	ExecDropSingleTupleTableSlot(slot);
	return text_to_cstring(id);
}

char *
al_past_normal_id(const AlTable *table, Relation rel, const char *record_id)
{
	AlFixed		saved;
	char	   *volatile id = NULL;

	if (table->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" has no key", table->schema, table->name),
				 errdetail("Its records are told apart by their whole row.")));
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		id = normal_id(table, RelationGetDescr(rel), record_id);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return id;
}

/* ---- the row that bears an id ---- */

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
	bool		found = false;
	TupleConversionMap *map = NULL;
	Portal		portal;

	if (table->key_masked)
		*strstr(sql, " WHERE") = '\0';
	else
		values = key_values(table, RelationGetDescr(root), record_id);

	SPI_connect();
	portal = SPI_cursor_open_with_args(NULL, sql, values ? table->nkeys : 0, types, values, NULL,
									   true, CURSOR_OPT_NO_SCROLL);
	while (!found)
	{
		SPI_cursor_fetch(portal, true, 100);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed && !found; i++)
		{
			SPITupleTable *rows = SPI_tuptable;
			MemoryContext old = MemoryContextSwitchTo(cxt);

			/* the query's rows lack columns that the relation has dropped */
			if (map == NULL)
				map = convert_tuples_by_name(rows->tupdesc, RelationGetDescr(root));
			ExecForceStoreHeapTuple(map ? execute_attr_map_tuple(rows->vals[i], map) :
									heap_copytuple(rows->vals[i]), slot, true);
			found = strcmp(text_to_cstring(al_row_record_id(table, slot)), record_id) == 0;
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
	if (!found)
		ExecClearTuple(slot);
	return found;
}

bool
al_past_fetch(Relation root, const AlTable *table, const char *record_id, TupleTableSlot *slot)
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

/* ---- walking back, with a key ---- */

static AlPastRecord *
new_record(AlPast *past, const char *id_now)
{
	AlPastRecord *record = palloc0(sizeof(AlPastRecord));

	record->id_now = id_now;
	record->id_then = id_now;
	past->records = lappend(past->records, record);
	return record;
}

static NamedRecord *
find_name(Walk *walk, const char *id)
{
	bool		found;
	NamedRecord *named = hash_search(walk->records, &id, HASH_ENTER, &found);

	if (!found)
	{
		named->id = pstrdup(id);
		named->record = NULL;
	}
	return named;
}

static void
forget_values(AlPastRecord *record)
{
	record->nvalues = 0;
	record->whole = NULL;
	record->whole_state = NULL;
}

static AlPastValue *
find_value(AlPastRecord *record, AttrNumber attnum)
{
	int			low = 0;
	int			high = record->nvalues;

	/* in the order of attnum */
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (record->values[middle].attnum < attnum)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < record->nvalues && record->values[low].attnum == attnum)
		return &record->values[low];

	if (record->nvalues == record->room)
	{
		record->room = record->room ? record->room * 2 : 4;
		record->values = record->values ?
			repalloc(record->values, sizeof(AlPastValue) * record->room) :
			palloc(sizeof(AlPastValue) * record->room);
	}
	memmove(&record->values[low + 1], &record->values[low],
			sizeof(AlPastValue) * (record->nvalues - low));
	record->nvalues++;
	memset(&record->values[low], 0, sizeof(AlPastValue));
	record->values[low].attnum = attnum;
	return &record->values[low];
}

static Jsonb *
old_value(const AlValue *value)
{
	return value->kind == AL_NULL ? NULL : al_jsonbuild_scalar(value);
}

/* The old values of an UPDATE's delta. */
static void
take_back_delta(AlPastRecord *record, const AlState *state, Jsonb *delta)
{
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &delta->root);
	while (al_jsonwalk_next(&walk))
	{
		const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);
		AlPastValue *value;
		AlDelta		difference;

		if (column == NULL || column->attnum == 0)
			continue;
		al_deltaread_key(&walk, NULL, &difference);
		value = find_value(record, column->attnum);
		if (difference.kind != AL_DELTA_NESTED)
		{
			value->known = true;
			value->nested = NIL;
			value->masked = column->masked;
			value->value = difference.kind == AL_DELTA_ADDED ? NULL : old_value(&difference.old);
		}
		else if (value->known && value->nested == NIL && value->value != NULL &&
				 JB_ROOT_IS_OBJECT(value->value))
			value->value = al_patch_apply(value->value, al_jsonbuild_scalar(&difference.new), true);
		else
			value->nested = lappend(value->nested, al_jsonbuild_scalar(&difference.new));
	}
}

static void
take_back_keyed(Walk *walk, const AlLogChange *change, const AlState *state,
				const char *id, const char *old_id)
{
	AlPast	   *past = walk->past;
	NamedRecord *named;
	AlPastRecord *record;

	if (change->action == AL_TRUNCATE || change->action == AL_SNAPSHOT)
		return;
	if (id == NULL || change->changes == NULL)
		al_past_misfit(past, psprintf("Change %lld names no record.", (long long) change->id));

	named = find_name(walk, id);
	record = named->record;
	if (record == NULL)
	{
		record = named->record = new_record(past, change->action == AL_DELETE ? NULL : named->id);
		record->gone_now = change->action == AL_DELETE;
		if (record->gone_now)
			record->id_gone = named->id;
	}
	else if ((record->id_then != NULL) != (change->action != AL_DELETE))
		al_past_misfit(past, psprintf("By change %lld record %s %s, by the next one it %s.",
							  (long long) change->id, id,
							  record->id_then ? "was deleted" : "was there",
							  record->id_then ? "was there" : "was not"));

	if (record->change_id == 0)
		record->change_id = change->id;
	switch (change->action)
	{
		case AL_INSERT:
			forget_values(record);
			record->id_then = NULL;
			break;
		case AL_DELETE:
			forget_values(record);
			record->id_then = named->id;
			record->whole = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(change->changes));
			record->whole_state = state;
			break;
		default:
			take_back_delta(record, state, change->changes);
			if (old_id != NULL)
			{
				NamedRecord *former = find_name(walk, old_id);

				/* what is called so later on has come since, or nobody is */
				if (former->record == NULL)
				{
					AlPastRecord *nobody = new_record(past, NULL);

					nobody->gone_now = true;
					nobody->id_gone = former->id;
				}
				else if (former->record->id_then != NULL)
					al_past_misfit(past, psprintf("By change %lld record %s got another key, by the next one it was there.",
										  (long long) change->id, old_id));
				record->id_then = former->id;
				former->record = record;
				/* before that, whoever bore the new key had given it up */
				named = find_name(walk, id);
				named->record = new_record(past, NULL);
			}
			break;
	}
}

/* ---- walking back, without ---- */

/* A value of a column's former type as the log writes it of the type of today. */
static void
renew_value(const AlPast *past, AttrNumber attnum, AlValue *value)
{
	AlFixed		fixed;
	bool		isnull;
	Datum		datum;

	al_fixed_enter(&fixed, AL_FIXED_ALL);
	PG_TRY();
	{
		datum = al_decode_value(past->decoder, attnum - 1, value, true, &isnull);
		for (int i = 0; i < past->table->ncolumns; i++)
			if (past->table->columns[i].attnum == attnum)
				al_row_column(&past->table->columns[i], datum, isnull, value);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&fixed);
	}
	PG_END_TRY();
}

static void
renew_as_caller(const AlPast *past, AttrNumber attnum, AlValue *value)
{
	AlOwn		saved;

	/* types may be the user's own */
	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		renew_value(past, attnum, value);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * The object's columns that are there today and were there then, under today's
 * names, NULLs left out: so that all forms of one row agree.
 */
static Jsonb *
project(const AlPast *past, const AlState *state, Jsonb *object, bool reverse, bool delta)
{
	TupleDesc	desc = RelationGetDescr(past->rel);
	AlValue    *values = palloc0(sizeof(AlValue) * Max(past->table->ncolumns, 1));
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	int			n = 0;

	for (int i = 0; i < past->table->ncolumns; i++)
		values[i].kind = AL_NULL;
	al_jsonwalk_begin(&walk, &object->root);
	while (al_jsonwalk_next(&walk))
	{
		AttrNumber	attnum;
		const AlPastColumn *column = NULL;
		AlValue		value = walk.value;

		if (state != NULL)
		{
			column = al_states_column(state, walk.key, walk.keylen);
			attnum = column ? column->attnum : 0;
		}
		else
		{
			attnum = 0;
			for (int i = 0; i < desc->natts && attnum == 0; i++)
				if (strlen(NameStr(TupleDescAttr(desc, i)->attname)) == (size_t) walk.keylen &&
					memcmp(NameStr(TupleDescAttr(desc, i)->attname), walk.key, walk.keylen) == 0)
					attnum = i + 1;
		}
		if (attnum == 0 || bms_is_member(attnum, past->added))
			continue;
		if (delta)
		{
			AlDelta		difference;

			al_deltaread_key(&walk, NULL, &difference);
			if (difference.kind != AL_DELTA_CHANGED)
				al_past_misfit(past, "A change of a table without key does not name the whole row.");
			value = reverse ? difference.old : difference.new;
		}
		if (column != NULL && !column->same_type && !column->masked && value.kind != AL_NULL)
			renew_as_caller(past, attnum, &value);
		for (int i = 0; i < past->table->ncolumns; i++)
			if (past->table->columns[i].attnum == attnum)
				values[i] = value;
	}
	for (int i = 0; i < past->table->ncolumns; i++)
		n += values[i].kind != AL_NULL;
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < past->table->ncolumns; i++)
		if (values[i].kind != AL_NULL)
			al_jsonbuild_key(&frame, past->table->columns[i].name, past->table->columns[i].namelen);
	for (int i = 0; i < past->table->ncolumns; i++)
		if (values[i].kind != AL_NULL)
			al_jsonbuild_value(&frame, &values[i]);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

static void
count_image(Walk *walk, Jsonb *image, int64 difference, int64 change_id)
{
	char	   *id = JsonbToCString(NULL, &image->root, VARSIZE(image));
	NamedRecord *named = find_name(walk, id);

	if (named->record == NULL)
	{
		named->record = new_record(walk->past, NULL);
		named->record->id_then = NULL;
		named->record->image = image;
		named->record->change_id = change_id;
	}
	named->record->count += difference;
}

static void
take_back_keyless(Walk *walk, const AlLogChange *change, const AlState *state)
{
	AlPast	   *past = walk->past;

	if (change->action == AL_TRUNCATE || change->action == AL_SNAPSHOT)
		return;
	if (change->changes == NULL)
		al_past_misfit(past, psprintf("Change %lld has no content.", (long long) change->id));
	switch (change->action)
	{
		case AL_INSERT:
			count_image(walk, project(past, state, change->changes, false, false), -1, change->id);
			break;
		case AL_DELETE:
			count_image(walk, project(past, state, change->changes, false, false), 1, change->id);
			break;
		default:
			count_image(walk, project(past, state, change->changes, false, true), -1, change->id);
			count_image(walk, project(past, state, change->changes, true, true), 1, change->id);
			break;
	}
}

/* ---- walking back ---- */

static pg_noinline char *
normal_id_as_caller(const AlTable *table, Relation rel, const char *record_id)
{
	AlOwn		saved;
	char	   *volatile result = NULL;

	/* types may be the user's own */
	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		result = al_past_normal_id(table, rel, record_id);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return result;
}

char *
al_past_id(const AlTable *table, Relation rel, const AlState *state, const char *record_id)
{
	if (record_id == NULL || state->key_same_texts || state->key_masked || state->era != 0 ||
		table->nkeys == 0)
		return unconstify(char *, record_id);
	return normal_id_as_caller(table, rel, record_id);
}

static void
take_back(const AlLogChange *change, void *arg)
{
	Walk	   *walk = arg;
	AlPast	   *past = walk->past;
	const AlState *state = al_states_at(past->states, change->id);
	MemoryContext old = MemoryContextSwitchTo(past->cxt);

	if (state->era != 0)
		past->other_era = state;
	else if (!past->keyed)
		take_back_keyless(walk, change, state);
	else
		take_back_keyed(walk, change, state,
						al_past_id(past->table, past->rel, state, change->record_id),
						al_past_id(past->table, past->rel, state, change->old_record_id));
	MemoryContextSwitchTo(old);
}

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
al_past_table(Relation root, const AlStates *states)
{
	return al_table_of(root, settings_of(states));
}

Bitmapset *
al_past_added(Relation rel, const AlState *then)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *added = NULL;

	if (then == NULL)
		return NULL;
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			added = bms_add_member(added, i + 1);
	for (int i = 0; i < then->ncolumns; i++)
		if (then->columns[i].attnum != 0)
			added = bms_del_member(added, then->columns[i].attnum);
	return added;
}

static void
index_by_now(AlPast *past)
{
	ListCell   *lc;

	past->by_now = make_names("audit_log records now", past->cxt);
	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);
		const char *id = record->image != NULL ?
			JsonbToCString(NULL, &record->image->root, VARSIZE(record->image)) :
			record->id_now ? record->id_now : record->id_gone;
		NamedRecord *named;
		bool		found;

		if (id == NULL)
			continue;
		named = hash_search(past->by_now, &id, HASH_ENTER, &found);
		if (!found || record->id_now != NULL)
		{
			if (!found)
				named->id = id;
			named->record = record;
		}
	}
}

static void
add_era_obstacle(AlPast *past)
{
	AlObstacle *obstacle = palloc0(sizeof(AlObstacle));

	obstacle->state = past->other_era;
	obstacle->what = psprintf("Records were told apart by another key then (state %lld of %s).",
							  (long long) past->other_era->id,
							  timestamptz_to_str(past->other_era->timestamp));
	past->obstacles = lappend(past->obstacles, obstacle);
}

AlPast *
al_past_read(Relation root, const AlMoment *moment, List *record_ids, Bitmapset *without)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log past",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	AlPast	   *past = palloc0(sizeof(AlPast));
	Walk		walk = {.past = past};

	past->cxt = cxt;
	past->rel = root;
	past->moment = moment;
	past->states = al_states_read(root);
	past->table = al_past_table(root, past->states);
	past->keyed = past->table->nkeys > 0;
	past->obstacles = al_states_obstacles(past->states, moment, &past->went);
	past->added = bms_add_members(al_past_added(root, al_states_then(past->states, moment)), without);
	past->decoder = al_decode_prepare(RelationGetDescr(root), cxt);

	walk.records = make_names("audit_log records", cxt);
	MemoryContextSwitchTo(old);
	if (past->states->n > 0)
	{
		const AlState *then = al_states_then(past->states, moment);

		/* under another key, or other types of it, the record had other ids */
		if (record_ids != NIL && al_states_same_ids(past->states) &&
			then != NULL && then->era == 0)
			al_logread_records(past->states->table_id, record_ids, moment, true, take_back, &walk);
		else
			al_logread_table(past->states->table_id, moment, take_back, &walk);
	}
	MemoryContextSwitchTo(cxt);
	if (past->other_era != NULL)
		add_era_obstacle(past);
	index_by_now(past);
	MemoryContextSwitchTo(old);
	return past;
}

void
al_past_end(AlPast *past)
{
	MemoryContextDelete(past->cxt);
}

void
al_past_refuse(const AlPast *past)
{
	al_states_refuse(past->states, past->moment, past->obstacles);
}

void
al_past_refuse_unknown(const AlPast *past, Bitmapset *unknown)
{
	StringInfoData names;
	int			attnum = -1;

	if (unknown == NULL)
		return;
	initStringInfo(&names);
	while ((attnum = bms_next_member(unknown, attnum)) >= 0)
		appendStringInfo(&names, "%s%s", names.len ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(past->rel), attnum - 1)->attname)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the log cannot tell what table %s was at %s", past->states->name, past->moment->text),
			 errdetail("Columns are masked in the log: %s.", names.data),
			 errhint("audit_log.audit_logs shows what was logged.")));
}

/* ---- rows as they are ---- */

static void
scan_relation(Relation rel, Relation root, AlPastRowCallback callback, void *arg)
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
al_past_scan(Relation root, AlPastRowCallback callback, void *arg)
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

/* ---- rows ---- */

/* the row's image as records without key are known by; under the table's settings */
static Jsonb *
image_of(const AlPast *past, TupleTableSlot *slot)
{
	AlEntry		entry = {0};

	al_row_whole(past->table, slot, &entry);
	return project(past, NULL, entry.changes, false, false);
}

/*
 * Most rows have not changed, and their ids need not be written to know it: bits
 * for the hashes of the changed records' keys tell.  For types whose text leads
 * back to the same bytes.
 */
struct AlPastFilter
{
	bool		usable;
	uint32		mask;			/* number of bits, less one */
	uint8	   *bits;
};

static bool
is_plain_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case UUIDOID:
		case TEXTOID:
		case VARCHAROID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return true;
		default:
			return false;
	}
}

static uint32
key_hash(uint32 hash, const AlColumn *column, Datum value)
{
	uint32		own;

	if (column->typbyval)
	{
		unsigned char bytes[sizeof(Datum)];

		/* a Datum's further bytes are not the same wherever it comes from */
		store_att_byval(bytes, value, column->typlen);
		own = hash_bytes(bytes, column->typlen);
	}
	else if (column->typlen > 0)
		own = hash_bytes((const unsigned char *) DatumGetPointer(value), column->typlen);
	else
	{
		struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

		own = hash_bytes((const unsigned char *) VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	}
	return hash_combine(hash, own);
}

static void
make_filter(AlPast *past)
{
	AlTable    *table = past->table;
	TupleDesc	desc = RelationGetDescr(past->rel);
	MemoryContext old = MemoryContextSwitchTo(past->cxt);
	struct AlPastFilter *filter = palloc0(sizeof(struct AlPastFilter));
	HASH_SEQ_STATUS seq;
	NamedRecord *named;
	MemoryContext scratch;

	past->filter = filter;
	filter->usable = !table->key_masked;
	for (int i = 0; i < table->nkeys; i++)
		filter->usable &= is_plain_type(TupleDescAttr(desc, table->keys[i]->attnum - 1)->atttypid);
	if (filter->usable)
	{
		filter->mask = 1023;
		while (filter->mask < (1U << 27) && filter->mask / 16 < hash_get_num_entries(past->by_now))
			filter->mask = filter->mask * 2 + 1;
		filter->bits = palloc0(filter->mask / 8 + 1);
		scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log keys", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(scratch);
		hash_seq_init(&seq, past->by_now);
		while ((named = hash_seq_search(&seq)) != NULL)
		{
			Datum	   *keys = key_values(table, desc, named->id);
			uint32		hash = 0;

			for (int i = 0; i < table->nkeys; i++)
				hash = key_hash(hash, table->keys[i], keys[i]);
			hash &= filter->mask;
			filter->bits[hash / 8] |= 1 << hash % 8;
			MemoryContextReset(scratch);
		}
	}
	MemoryContextSwitchTo(old);
}

static bool
may_have_changed(AlPast *past, TupleTableSlot *now)
{
	struct AlPastFilter *filter;
	uint32		hash = 0;

	if (past->filter == NULL)
		make_filter(past);
	filter = past->filter;
	if (!filter->usable)
		return true;
	for (int i = 0; i < past->table->nkeys; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(now, past->table->keys[i]->attnum, &isnull);

		if (isnull)
			return true;
		hash = key_hash(hash, past->table->keys[i], value);
	}
	hash &= filter->mask;
	return (filter->bits[hash / 8] & 1 << hash % 8) != 0;
}

AlPastRecord *
al_past_find(AlPast *past, TupleTableSlot *now)
{
	const char *id;
	NamedRecord *named;

	if (past->keyed && !may_have_changed(past, now))
		return NULL;
	if (past->keyed)
		id = text_to_cstring(al_row_record_id(past->table, now));
	else
	{
		Jsonb	   *image = image_of(past, now);

		id = JsonbToCString(NULL, &image->root, VARSIZE(image));
	}
	named = hash_search(past->by_now, &id, HASH_FIND, NULL);
	if (named == NULL)
		return NULL;
	if (past->keyed && named->record->id_now == NULL)
		al_past_misfit(past, psprintf("Record %s is there, but its last change is that it went.", id));
	return named->record;
}

/* the value of the row as it is, or of a whole row of the log, as the log writes it */
static bool
base_value(AlPast *past, const AlPastRecord *record, TupleTableSlot *now, AttrNumber attnum,
		   AlValue *out)
{
	if (record->whole != NULL)
	{
		AlJsonWalk	walk;

		al_jsonwalk_begin(&walk, &record->whole->root);
		while (al_jsonwalk_next(&walk))
		{
			const AlPastColumn *column = al_states_column(record->whole_state, walk.key, walk.keylen);

			if (column != NULL && column->attnum == attnum)
			{
				*out = walk.value;
				return true;
			}
		}
		return false;
	}
	for (int i = 0; i < past->table->ncolumns; i++)
		if (past->table->columns[i].attnum == attnum)
		{
			bool		isnull;
			Datum		value = slot_getattr(now, attnum, &isnull);

			al_row_column(&past->table->columns[i], value, isnull, out);
			return !isnull;
		}
	return false;
}

static void
put_value(AlPast *past, TupleTableSlot *then, AttrNumber attnum, const AlValue *value,
		  bool masked, bool pg, Bitmapset **unknown)
{
	bool	   *isnull = &then->tts_isnull[attnum - 1];

	*isnull = true;
	then->tts_values[attnum - 1] = (Datum) 0;
	if (bms_is_member(attnum, past->added))
		return;
	if (masked && value->kind != AL_NULL)
	{
		*unknown = bms_add_member(*unknown, attnum);
		return;
	}
	then->tts_values[attnum - 1] = al_decode_value(past->decoder, attnum - 1, value, pg, isnull);
}

static void
put_image(AlPast *past, TupleTableSlot *then, const AlState *state, Jsonb *image,
		  Bitmapset **unknown)
{
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &image->root);
	while (al_jsonwalk_next(&walk))
	{
		AttrNumber	attnum = 0;
		bool		masked = false;

		if (state != NULL)
		{
			const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);

			if (column == NULL)
				continue;
			attnum = column->attnum;
			masked = column->masked;
		}
		else
			for (int i = 0; i < past->table->ncolumns; i++)
				if (past->table->columns[i].namelen == walk.keylen &&
					memcmp(past->table->columns[i].name, walk.key, walk.keylen) == 0)
				{
					attnum = past->table->columns[i].attnum;
					masked = past->table->columns[i].masked;
				}
		if (attnum != 0)
			put_value(past, then, attnum, &walk.value, masked, true, unknown);
	}
}

static void
put_past_value(AlPast *past, const AlPastRecord *record, TupleTableSlot *now,
			   TupleTableSlot *then, const AlPastValue *past_value, Bitmapset **unknown)
{
	AlValue		value = {.kind = AL_NULL};
	Jsonb	   *json = past_value->value;
	ListCell   *lc;

	if (past_value->known)
	{
		if (json != NULL)
			al_jsonbuild_from_root(&value, json);
	}
	else if (base_value(past, record, now, past_value->attnum, &value))
		json = al_jsonbuild_scalar(&value);
	if (past_value->nested == NIL)
	{
		put_value(past, then, past_value->attnum, &value, past_value->masked, true, unknown);
		return;
	}
	/* of another type now, but its text may be that of the object that it was */
	if (value.kind == AL_STRING)
		json = al_jsontext_try(value.string, value.len);
	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log cannot tell what table %s was at %s", past->states->name, past->moment->text),
				 errdetail("Column %s held a JSON object, of which the log has what changed inside; by now it holds something else.",
						   quote_identifier(NameStr(TupleDescAttr(then->tts_tupleDescriptor, past_value->attnum - 1)->attname))),
				 errhint("audit_log.audit_logs shows what was logged.")));
	foreach(lc, past_value->nested)
		json = al_patch_apply(json, lfirst(lc), true);
	al_jsonbuild_from_root(&value, json);
	put_value(past, then, past_value->attnum, &value, false, false, unknown);
}

/* Under AL_FIXED_ALL. */
static void
make_row(AlPast *past, const AlPastRecord *record, TupleTableSlot *now, TupleTableSlot *then,
		 Bitmapset **unknown)
{
	int			natts = then->tts_tupleDescriptor->natts;
	int			added = -1;

	if (record != NULL && (record->whole != NULL || record->image != NULL))
	{
		memset(then->tts_isnull, true, sizeof(bool) * natts);
		memset(then->tts_values, 0, sizeof(Datum) * natts);
		put_image(past, then, record->whole ? record->whole_state : NULL,
				  record->whole ? record->whole : record->image, unknown);
	}
	else
	{
		if (now == NULL || TTS_EMPTY(now))
			al_past_misfit(past, psprintf("Record %s is not there, but its last change left it.",
								  record && record->id_now ? record->id_now : "(none)"));
		slot_getallattrs(now);
		memcpy(then->tts_isnull, now->tts_isnull, sizeof(bool) * natts);
		memcpy(then->tts_values, now->tts_values, sizeof(Datum) * natts);
	}
	for (int i = 0; record != NULL && i < record->nvalues; i++)
		put_past_value(past, record, now, then, &record->values[i], unknown);
	while ((added = bms_next_member(past->added, added)) >= 0)
		then->tts_isnull[added - 1] = true;
}

bool
al_past_row(AlPast *past, const AlPastRecord *record, TupleTableSlot *now,
			TupleTableSlot *then, Bitmapset **unknown)
{
	AlFixed		saved;

	ExecClearTuple(then);
	if (record != NULL && (record->image != NULL ? record->count <= 0 : record->id_then == NULL))
		return false;
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		make_row(past, record, now, then, unknown);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	ExecStoreVirtualTuple(then);
	return true;
}

/* ---- changes under today's names ---- */

typedef struct Translated
{
	const char *name;
	int			namelen;
	AlValue		value;
} Translated;

static int
compare_translated(const void *a, const void *b)
{
	const Translated *x = a;
	const Translated *y = b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

Jsonb *
al_past_translate(const AlState *state, Relation rel, Jsonb *object)
{
	Translated *pairs = palloc(sizeof(Translated) * Max(JB_ROOT_COUNT(object), 1));
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	int			n = 0;

	al_jsonwalk_begin(&walk, &object->root);
	while (al_jsonwalk_next(&walk))
	{
		const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);

		if (column == NULL || column->attnum == 0)
			continue;
		pairs[n].name = NameStr(TupleDescAttr(RelationGetDescr(rel), column->attnum - 1)->attname);
		pairs[n].namelen = strlen(pairs[n].name);
		pairs[n++].value = walk.value;
	}
	qsort(pairs, n, sizeof(Translated), compare_translated);
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < n; i++)
		al_jsonbuild_key(&frame, pairs[i].name, pairs[i].namelen);
	for (int i = 0; i < n; i++)
		al_jsonbuild_value(&frame, &pairs[i].value);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* The row as rows_as_of() shows it: al_row_object() under the settings it needs. */
Jsonb *
al_past_object(const AlTable *table, TupleTableSlot *slot)
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
