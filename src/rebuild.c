/*
 * rebuild.c
 *		audit_log.rebuild(NULL::mine): a table's rows made from its log alone,
 *		forward from where the log is complete.  The proof of the log.
 *
 * Order: a record's changes by different database transactions never
 * interleave, since the row's lock is kept until the end; so transactions are
 * taken by their highest change id, and within one the changes by (command,
 * id).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

#define FETCH_ROWS 1000

/* a row under its record id, or under its own content where there is no key */
typedef struct Record
{
	const char *id;				/* hash key: pointer to the text */
	Jsonb	   *row;			/* NULL: gone */
	int64		count;			/* without a key: so many equal rows */
} Record;

typedef struct Rebuild
{
	char	   *name;			/* for messages */
	bool		keyed;
	HTAB	   *records;
	MemoryContext cxt;
} Rebuild;

static void
refuse(const Rebuild *rebuild, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("table %s cannot be rebuilt from its log", rebuild->name),
			 errdetail_internal("%s", detail),
			 errhint("audit_log.enable(…, baseline => true) logs every row as it stands now.")));
}

static Record *
find_record(Rebuild *rebuild, const char *id, bool enter)
{
	bool		found;
	Record	   *record = hash_search(rebuild->records, &id,
									 enter ? HASH_ENTER : HASH_FIND, &found);

	if (enter && !found)
	{
		record->id = MemoryContextStrdup(rebuild->cxt, id);
		record->row = NULL;
		record->count = 0;
	}
	return record;
}

static void
set_row(Rebuild *rebuild, Record *record, Jsonb *row)
{
	MemoryContext old = MemoryContextSwitchTo(rebuild->cxt);

	if (record->row)
		pfree(record->row);
	record->row = row ? (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(row)) : NULL;
	MemoryContextSwitchTo(old);
}

/* ---- with a key ---- */

static void
replay_keyed(Rebuild *rebuild, const char *action, const char *id,
			 const char *old_id, Jsonb *changes)
{
	Record	   *record;

	if (id == NULL)
		refuse(rebuild, "A change has no record id: it was made while the table had no key.");
	if (strcmp(action, "INSERT") == 0 || strcmp(action, "SNAPSHOT") == 0)
	{
		record = find_record(rebuild, id, true);
		if (record->row != NULL)
			refuse(rebuild, psprintf("Record %s is inserted twice.", id));
		set_row(rebuild, record, changes);
		return;
	}

	record = find_record(rebuild, old_id ? old_id : id, false);
	if (record == NULL || record->row == NULL)
		refuse(rebuild, psprintf("Record %s is changed, but was never logged as a whole.",
								 old_id ? old_id : id));
	if (strcmp(action, "DELETE") == 0)
		set_row(rebuild, record, NULL);
	else
	{
		Jsonb	   *row = al_patch_apply(record->row, changes, false);

		if (old_id != NULL)
		{
			set_row(rebuild, record, NULL);
			record = find_record(rebuild, id, true);
			if (record->row != NULL)
				refuse(rebuild, psprintf("Record %s takes the id of another one.", id));
		}
		set_row(rebuild, record, row);
	}
}

/* ---- without ---- */

/* The object without its members that are null. */
static Jsonb *
without_nulls(Jsonb *object)
{
	StringInfoData buf;
	AlJsonFrame frame;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	int			room = JB_ROOT_COUNT(object);
	AlValue    *keys = palloc(sizeof(AlValue) * Max(room, 1));
	AlValue    *values = palloc(sizeof(AlValue) * Max(room, 1));
	int			n = 0;

	it = JsonbIteratorInit(&object->root);
	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY)
	{
		al_jsonbuild_from_jsonb(&keys[n], &v);
		(void) JsonbIteratorNext(&it, &v, true);
		al_jsonbuild_from_jsonb(&values[n], &v);
		if (values[n].kind != AL_NULL)
			n++;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < n; i++)
		al_jsonbuild_key(&frame, keys[i].string, keys[i].len);
	for (int i = 0; i < n; i++)
		al_jsonbuild_value(&frame, &values[i]);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* The row itself as id: NULL columns left out, so that all forms agree. */
static char *
row_id(Jsonb *row, Jsonb **stripped)
{
	*stripped = without_nulls(row);
	return JsonbToCString(NULL, &(*stripped)->root, VARSIZE(*stripped));
}

static void
add_equal(Rebuild *rebuild, Jsonb *row)
{
	Jsonb	   *stripped;
	Record	   *record = find_record(rebuild, row_id(row, &stripped), true);

	if (record->count++ == 0)
		set_row(rebuild, record, stripped);
}

static void
remove_equal(Rebuild *rebuild, Jsonb *row)
{
	Jsonb	   *stripped;
	char	   *id = row_id(row, &stripped);
	Record	   *record = find_record(rebuild, id, false);

	if (record == NULL || record->count == 0)
		refuse(rebuild, psprintf("A row is changed, but was never logged as a whole: %.200s", id));
	if (--record->count == 0)
		set_row(rebuild, record, NULL);
}

/* Every column is in the delta of a table without key, as [old, new]. */
static void
replay_keyless(Rebuild *rebuild, const char *action, Jsonb *changes)
{
	if (strcmp(action, "DELETE") == 0)
		remove_equal(rebuild, changes);
	else if (strcmp(action, "UPDATE") == 0)
	{
		AlJsonFrame frame;
		StringInfoData buf;
		Jsonb	   *empty;

		initStringInfo(&buf);
		al_jsonbuild_init(&buf);
		al_jsonbuild_object(&frame, &buf, 0);
		al_jsonbuild_close(&frame, NULL);
		empty = al_jsonbuild_finish(&buf);
		remove_equal(rebuild, al_patch_apply(empty, changes, true));
		add_equal(rebuild, al_patch_apply(empty, changes, false));
	}
	else
		add_equal(rebuild, changes);
}

/* ---- reading the log ---- */

/* settings that do not say which rows and columns are captured */
#define INDIFFERENT_SETTINGS \
	"ARRAY['require', 'user_column', 'always', 'versioned', 'version_table', 'version_columns', 'describe']"

static const char from_sql[] =
"SELECT t.id, e.first_change_id, e.key_columns IS NOT NULL,"
"  (SELECT pg_catalog.format('State %s of %s: %s%s.', s.id, s.timestamp, s.kind,"
"     ' (' || (s.detail ->> 'reason') || ')')"
"     FROM audit_log.table_state s WHERE s.table_id = t.id AND s.id > e.id"
"      AND s.kind <> 'renamed'"
"      AND NOT (s.kind = 'partition attached' AND (s.detail ->> 'empty')::boolean)"
"      AND NOT (s.kind = 'settings' AND s.settings - " INDIFFERENT_SETTINGS
"               = e.settings - " INDIFFERENT_SETTINGS ")"
"    ORDER BY s.id LIMIT 1),"
"  pg_catalog.array_to_string(ARRAY(SELECT k FROM pg_catalog.jsonb_object_keys(e.settings) k"
"    WHERE k IN ('exclude', 'include', 'mask', 'condition', 'actions')), ', ')"
" FROM audit_log.tracked_table t"
" LEFT JOIN LATERAL (SELECT * FROM audit_log.table_state s WHERE s.table_id = t.id"
"   AND s.kind = 'enabled' AND (s.detail ->> 'covered')::boolean ORDER BY s.id DESC LIMIT 1) e ON true"
" WHERE t.id = audit_log._table_id($1)";

static const char log_sql[] =
"SELECT c.action_type::pg_catalog.text, c.record_id, c.old_record_id, c.changes"
" FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id"
" WHERE c.table_id = $1 AND c.id >= $2 AND c.id >> 8 >= $2 >> 8 AND c.action_type <> 'TRUNCATE'"
" ORDER BY pg_catalog.max(c.id) OVER (PARTITION BY t.xid, t.started_at), c.command, c.id";

static void
replay_tuple(Rebuild *rebuild, HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		changes = SPI_getbinval(tuple, desc, 4, &isnull);
	char	   *action = SPI_getvalue(tuple, desc, 1);

	if (isnull)
		refuse(rebuild, "A change has no content.");
	if (rebuild->keyed)
		replay_keyed(rebuild, action, SPI_getvalue(tuple, desc, 2),
					 SPI_getvalue(tuple, desc, 3), DatumGetJsonbP(changes));
	else
		replay_keyless(rebuild, action, DatumGetJsonbP(changes));
}

/* Reads where the log is complete from, and refuses where it nowhere is. */
static void
find_start(Rebuild *rebuild, Oid relid, int32 *table_id, int64 *first_id)
{
	Oid			types[] = {REGCLASSOID};
	Datum		args[] = {ObjectIdGetDatum(relid)};
	bool		isnull;
	HeapTuple	tuple;
	TupleDesc	desc;
	char	   *text;

	if (SPI_execute_with_args(from_sql, 1, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.tracked_table");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is not audited", rebuild->name),
				 errhint("Run audit_log.enable() on it.")));
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	*table_id = DatumGetInt32(SPI_getbinval(tuple, desc, 1, &isnull));
	*first_id = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	if (isnull)
		refuse(rebuild, "Rows that were there when its audit began were not logged.");
	rebuild->keyed = DatumGetBool(SPI_getbinval(tuple, desc, 3, &isnull));
	text = SPI_getvalue(tuple, desc, 4);
	if (text != NULL)
		refuse(rebuild, text);
	text = SPI_getvalue(tuple, desc, 5);
	if (text != NULL && text[0] != '\0')
		refuse(rebuild, psprintf("Its audit has the setting %s, so not all is captured.", text));
}

static void
replay_log(Rebuild *rebuild, int32 table_id, int64 first_id)
{
	Oid			types[] = {INT4OID, INT8OID};
	Datum		args[] = {Int32GetDatum(table_id), Int64GetDatum(first_id)};
	Portal		portal = SPI_cursor_open_with_args(NULL, log_sql, 2, types, args,
												   NULL, true, CURSOR_OPT_NO_SCROLL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "audit_log replay",
												  ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(scratch);

			CHECK_FOR_INTERRUPTS();
			replay_tuple(rebuild, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextSwitchTo(old);
			MemoryContextReset(scratch);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);
}

static void
replay(Rebuild *rebuild, Oid relid)
{
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		int32		table_id;
		int64		first_id;

		SPI_connect();
		find_start(rebuild, relid, &table_id, &first_id);
		replay_log(rebuild, table_id, first_id);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/* ---- the result ---- */

static void
put_records(Rebuild *rebuild, ReturnSetInfo *rsinfo, AlDecoder *decoder)
{
	HASH_SEQ_STATUS seq;
	Record	   *record;
	int			natts = rsinfo->setDesc->natts;
	Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext,
												  "audit_log record",
												  ALLOCSET_DEFAULT_SIZES);

	hash_seq_init(&seq, rebuild->records);
	while ((record = hash_seq_search(&seq)) != NULL)
	{
		MemoryContext old;

		if (record->row == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(scratch);
		al_decode_columns(decoder, record->row, NULL, values, nulls);
		for (int64 i = 0; i < Max(record->count, 1); i++)
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	MemoryContextDelete(scratch);
}

static void
return_records(Rebuild *rebuild, ReturnSetInfo *rsinfo)
{
	AlDecoder  *decoder = al_decode_prepare(rsinfo->setDesc, CurrentMemoryContext);
	AlFixed		saved;

	/* once for all rows */
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		put_records(rebuild, rsinfo, decoder);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

/* The table whose row type the argument has. */
static Oid
argument_table(FunctionCallInfo fcinfo)
{
	Oid			type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the argument must be a NULL of the table's row type"),
				 errhint("Call it as audit_log.rebuild(NULL::mine).")));
	return relid;
}

PG_FUNCTION_INFO_V1(audit_log_rebuild);
Datum
audit_log_rebuild(PG_FUNCTION_ARGS)
{
	Oid			relid = argument_table(fcinfo);
	Rebuild		rebuild = {0};

	if (!al_own_may_read(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the log of table \"%s\"", get_rel_name(relid)),
				 errdetail("The log of a table is for those who may SELECT all its columns, with no row security in between.")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	rebuild.name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
											  get_rel_name(relid));
	rebuild.cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log rebuild",
										ALLOCSET_DEFAULT_SIZES);
	rebuild.records = al_texthash_create("audit_log records", 1024, sizeof(Record), rebuild.cxt);
	replay(&rebuild, relid);
	return_records(&rebuild, (ReturnSetInfo *) fcinfo->resultinfo);
	MemoryContextDelete(rebuild.cxt);
	return (Datum) 0;
}
