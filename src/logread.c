/*
 * logread.c
 *		Changes read out of the log again, in the order in which they were made
 *		or against it.
 *
 * Order (design.md, section 2): a record's changes by different database
 * transactions never interleave, since the row's lock is kept until the end; so
 * transactions are taken by their highest change id, and within one the changes
 * by (command, id).  That holds for each record, whatever else is read with it.
 *
 * The log is read as its owner, under the caller's snapshot; who calls has
 * looked at the rights of whoever asked.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "audit_log.h"

#define FETCH_ROWS 1000
#define MAX_ARGS 6

typedef struct Request
{
	int			n;
	Oid			types[MAX_ARGS];
	Datum		values[MAX_ARGS];
} Request;

static void
add_arg(Request *request, Oid type, Datum value)
{
	Assert(request->n < MAX_ARGS);
	request->types[request->n] = type;
	request->values[request->n++] = value;
}

static Datum
id_array(const int64 *ids, int n)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elems[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(elems, n, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---- one row ---- */

/* what every query here gives first */
#define CHANGE_COLUMNS \
	"c.id, c.transaction_id, c.command, c.timestamp, c.action_type::pg_catalog.text," \
	" c.table_id, c.record_id, c.old_record_id, c.changes"
#define NCHANGE_COLUMNS 9
/* and what some give behind */
#define MORE_COLUMNS 2

static AlAction
action_of(const char *label)
{
	for (int i = 0; i < AL_ACTIONS; i++)
		if (strcmp(al_catalog_action_label(i), label) == 0)
			return i;
	elog(ERROR, "unknown action \"%s\" in the log", label);
}

static char *
text_of(Datum value, bool isnull)
{
	return isnull ? NULL : TextDatumGetCString(value);
}

/* In the current memory, but for what the tuple itself holds. */
static void
read_change(HeapTuple tuple, TupleDesc desc, AlLogChange *change)
{
	Datum		values[NCHANGE_COLUMNS + MORE_COLUMNS];
	bool		nulls[NCHANGE_COLUMNS + MORE_COLUMNS];

	Assert(desc->natts <= (int) lengthof(values));
	heap_deform_tuple(tuple, desc, values, nulls);
	change->id = DatumGetInt64(values[0]);
	change->transaction_id = DatumGetInt64(values[1]);
	change->command = (CommandId) DatumGetInt32(values[2]);
	change->timestamp = DatumGetTimestampTz(values[3]);
	change->action = action_of(text_of(values[4], nulls[4]));
	change->table_id = DatumGetInt32(values[5]);
	change->record_id = text_of(values[6], nulls[6]);
	change->old_record_id = text_of(values[7], nulls[7]);
	change->changes = nulls[8] ? NULL : DatumGetJsonbP(values[8]);
}

/* ---- whole tables, whole transactions ---- */

typedef struct Reading
{
	const char *sql;
	Request		request;
	const AlMoment *after;		/* NULL: no changes are passed over */
	AlLogCallback callback;
	void	   *arg;
} Reading;

static void
read_all(Reading *reading)
{
	Portal		portal = SPI_cursor_open_with_args(NULL, reading->sql, reading->request.n,
												   reading->request.types,
												   reading->request.values, NULL, true,
												   CURSOR_OPT_NO_SCROLL);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log change",
												  ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			SPITupleTable *rows = SPI_tuptable;
			MemoryContext old = MemoryContextSwitchTo(scratch);
			AlLogChange change;

			CHECK_FOR_INTERRUPTS();
			read_change(rows->vals[i], rows->tupdesc, &change);
			if (reading->after == NULL ||
				al_moment_is_later(reading->after, change.table_id, change.id,
								   change.transaction_id, change.command, change.timestamp))
				reading->callback(&change, reading->arg);
			MemoryContextSwitchTo(old);
			MemoryContextReset(scratch);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	MemoryContextDelete(scratch);
	SPI_cursor_close(portal);
}

static void
read_as_owner(Reading *reading)
{
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		al_fixed_maintenance();
		read_all(reading);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * Changes in their order: of the database transactions first, found from few
 * columns, so that whole changes are sorted once only.  which says of
 * audit_log.change n what is read.  Each has its transaction: FULL, for a join
 * that is never a nested loop, which, chosen for the few rows that old
 * statistics promise, would read the log anew for each change.
 */
#define IN_ORDER(which, direction) \
	"WITH c AS NOT MATERIALIZED (" which ")" \
	" SELECT " CHANGE_COLUMNS \
	" FROM c FULL JOIN (SELECT l.transaction_id," \
	"   pg_catalog.max(l.id) OVER (PARTITION BY t.xid, t.started_at) AS last" \
	"  FROM (SELECT c.transaction_id, pg_catalog.max(c.id) AS id FROM c GROUP BY c.transaction_id) l" \
	"  JOIN audit_log.transaction t ON t.id = l.transaction_id) o ON o.transaction_id = c.transaction_id" \
	" ORDER BY o.last " direction ", c.command " direction ", c.id " direction

#define NEWEST_FIRST "DESC"
#define OLDEST_FIRST "ASC"

#define OF_TABLE "SELECT * FROM audit_log.change n WHERE n.table_id = $1"

static const char all_sql[] = IN_ORDER(OF_TABLE, OLDEST_FIRST);

static const char table_sql[] = IN_ORDER(OF_TABLE, NEWEST_FIRST);

/*
 * $2 the mark's highest id; $3 rows of which changes below it count too.  By
 * blocks of 256 ids, as the index has them: al_moment_is_later() parts a block.
 */
static const char table_mark_sql[] =
IN_ORDER(OF_TABLE " AND n.id >> 8 >= $2 >> 8"
		 " UNION ALL " OF_TABLE " AND n.id >> 8 < $2 >> 8 AND n.transaction_id = ANY ($3)", NEWEST_FIRST);

static const char table_time_sql[] =
IN_ORDER(OF_TABLE " AND n.timestamp > $2"
		 " UNION ALL " OF_TABLE " AND n.timestamp <= $2 AND n.transaction_id = ANY ($3)", NEWEST_FIRST);

/* rows whose changes are to be looked at one by one */
static Datum
doubtful_rows(const AlMoment *moment)
{
	int64	   *ids = palloc(sizeof(int64) * (moment->nlater + moment->nown + 1));
	int			n = 0;

	for (int i = 0; i < moment->nlater; i++)
		ids[n++] = moment->later[i];
	for (int i = 0; i < moment->nown; i++)
		ids[n++] = moment->own[i];
	return id_array(ids, n);
}

void
al_logread_table(int32 table_id, const AlMoment *after, AlLogCallback callback, void *arg)
{
	Reading		reading = {.sql = table_sql,.after = after,.callback = callback,.arg = arg};

	add_arg(&reading.request, INT4OID, Int32GetDatum(table_id));
	if (after != NULL)
	{
		reading.sql = after->mark ? table_mark_sql : table_time_sql;
		if (after->mark)
			add_arg(&reading.request, INT8OID, Int64GetDatum(after->change_id));
		else
			add_arg(&reading.request, TIMESTAMPTZOID, TimestampTzGetDatum(after->timestamp));
		add_arg(&reading.request, INT8ARRAYOID, doubtful_rows(after));
	}
	read_as_owner(&reading);
}

void
al_logread_all(int32 table_id, AlLogCallback callback, void *arg)
{
	Reading		reading = {.sql = all_sql,.callback = callback,.arg = arg};

	add_arg(&reading.request, INT4OID, Int32GetDatum(table_id));
	read_as_owner(&reading);
}

static const char transactions_sql[] =
IN_ORDER("SELECT * FROM audit_log.change n WHERE n.transaction_id = ANY ($1)", NEWEST_FIRST);

static Datum
listed_ids(List *list)
{
	int64	   *ids = palloc(sizeof(int64) * Max(list_length(list), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, list)
		ids[n++] = *(int64 *) lfirst(lc);
	return id_array(ids, n);
}

void
al_logread_transactions(List *transaction_ids, AlLogCallback callback, void *arg)
{
	Reading		reading = {.sql = transactions_sql,.callback = callback,.arg = arg};

	add_arg(&reading.request, INT8ARRAYOID, listed_ids(transaction_ids));
	read_as_owner(&reading);
}

/* ---- single records ---- */

/* a change kept, with what it is ordered by */
typedef struct KeptChange
{
	int64		id;				/* hash key */
	AlLogChange change;
	uint64		xid;
	TimestampTz started_at;
	int64		group;			/* highest id of its database transaction */
} KeptChange;

typedef struct Collection
{
	int32		table_id;
	HTAB	   *changes;		/* of KeptChange */
	List	   *ids;			/* char *: looked up, or still to be */
	MemoryContext cxt;
} Collection;

/* the literal lets the planner choose the index for short keys, or for long ones */
static const char record_sql[] =
"SELECT " CHANGE_COLUMNS ", t.xid, t.started_at"
" FROM (SELECT * FROM audit_log.change a WHERE a.table_id = $1 AND a.record_id = $2"
"  UNION ALL SELECT * FROM audit_log.change b WHERE b.table_id = $1 AND b.old_record_id = $2) c"
" JOIN audit_log.transaction t ON t.id = c.transaction_id";

static void
want_id(Collection *collection, const char *id)
{
	ListCell   *lc;

	if (id == NULL)
		return;
	foreach(lc, collection->ids)
		if (strcmp(lfirst(lc), id) == 0)
			return;
	collection->ids = lappend(collection->ids, pstrdup(id));
}

static char *
copy_text(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

static void
collect_record(Collection *collection, const char *id)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[] = {Int32GetDatum(collection->table_id), CStringGetTextDatum(id)};
	SPITupleTable *rows;

	if (SPI_execute_with_args(record_sql, 2, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.change");
	rows = SPI_tuptable;
	for (uint64 i = 0; i < rows->numvals; i++)
	{
		HeapTuple	tuple = rows->vals[i];
		bool		isnull;
		bool		found;
		AlLogChange change;
		KeptChange *kept;
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		read_change(tuple, rows->tupdesc, &change);
		kept = hash_search(collection->changes, &change.id, HASH_ENTER, &found);
		if (found)
			continue;
		kept->xid = U64FromFullTransactionId(DatumGetFullTransactionId(SPI_getbinval(tuple, rows->tupdesc, NCHANGE_COLUMNS + 1, &isnull)));
		kept->started_at = DatumGetTimestampTz(SPI_getbinval(tuple, rows->tupdesc, NCHANGE_COLUMNS + 2, &isnull));
		kept->group = change.id;
		old = MemoryContextSwitchTo(collection->cxt);
		change.record_id = copy_text(change.record_id);
		change.old_record_id = copy_text(change.old_record_id);
		if (change.changes != NULL)
			change.changes = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(change.changes));
		kept->change = change;
		if (change.old_record_id != NULL)
		{
			want_id(collection, change.record_id);
			want_id(collection, change.old_record_id);
		}
		MemoryContextSwitchTo(old);
	}
	SPI_freetuptable(rows);
}

static void
collect_as_owner(Collection *collection)
{
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		/* ids are added meanwhile */
		for (int i = 0; i < list_length(collection->ids); i++)
			collect_record(collection, list_nth(collection->ids, i));
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

static int
compare_transactions(const void *a, const void *b)
{
	const KeptChange *x = *(KeptChange *const *) a;
	const KeptChange *y = *(KeptChange *const *) b;

	if (x->xid != y->xid)
		return x->xid < y->xid ? -1 : 1;
	if (x->started_at != y->started_at)
		return x->started_at < y->started_at ? -1 : 1;
	return 0;
}

static int
compare_order(const void *a, const void *b)
{
	const KeptChange *x = *(KeptChange *const *) a;
	const KeptChange *y = *(KeptChange *const *) b;

	if (x->group != y->group)
		return x->group < y->group ? -1 : 1;
	if (x->change.command != y->change.command)
		return x->change.command < y->change.command ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static void
set_groups(KeptChange **sorted, int n)
{
	qsort(sorted, n, sizeof(KeptChange *), compare_transactions);
	for (int start = 0, end; start < n; start = end)
	{
		int64		highest = 0;

		for (end = start; end < n && compare_transactions(&sorted[start], &sorted[end]) == 0; end++)
			highest = Max(highest, sorted[end]->id);
		for (int i = start; i < end; i++)
			sorted[i]->group = highest;
	}
}

void
al_logread_records(int32 table_id, List *record_ids, const AlMoment *after,
				   bool newest_first, AlLogCallback callback, void *arg)
{
	Collection	collection = {.table_id = table_id};
	HASHCTL		ctl = {.keysize = sizeof(int64),.entrysize = sizeof(KeptChange)};
	HASH_SEQ_STATUS seq;
	KeptChange *kept;
	KeptChange **sorted;
	MemoryContext old;
	int			n = 0;
	ListCell   *lc;

	collection.cxt = ctl.hcxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log records",
													  ALLOCSET_DEFAULT_SIZES);
	collection.changes = hash_create("audit_log changes", 64, &ctl,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	old = MemoryContextSwitchTo(collection.cxt);
	foreach(lc, record_ids)
		want_id(&collection, lfirst(lc));
	collect_as_owner(&collection);

	sorted = palloc(sizeof(KeptChange *) * (hash_get_num_entries(collection.changes) + 1));
	hash_seq_init(&seq, collection.changes);
	while ((kept = hash_seq_search(&seq)) != NULL)
		if (after == NULL ||
			al_moment_is_later(after, table_id, kept->id, kept->change.transaction_id,
							   kept->change.command, kept->change.timestamp))
			sorted[n++] = kept;
	set_groups(sorted, n);
	qsort(sorted, n, sizeof(KeptChange *), compare_order);
	MemoryContextSwitchTo(old);

	for (int i = 0; i < n; i++)
		callback(&sorted[newest_first ? n - 1 - i : i]->change, arg);
	MemoryContextDelete(collection.cxt);
}

/* ---- one change, the rows of one transaction ---- */

static const char change_sql[] =
"SELECT " CHANGE_COLUMNS " FROM audit_log.change c WHERE c.id = $1";

/* into the caller's memory */
static bool
find_change(int64 change_id, AlLogChange *change, MemoryContext cxt)
{
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(change_id)};
	MemoryContext old;

	if (SPI_execute_with_args(change_sql, 1, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.change");
	if (SPI_processed == 0)
		return false;
	old = MemoryContextSwitchTo(cxt);
	read_change(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, change);
	if (change->changes != NULL)
		change->changes = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(change->changes));
	MemoryContextSwitchTo(old);
	return true;
}

bool
al_logread_change(int64 change_id, AlLogChange *change)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool found = false;
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		found = find_change(change_id, change, cxt);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return found;
}

static const char rows_sql[] =
"WITH RECURSIVE r AS ("
"  SELECT t.id, t.xid, t.started_at FROM audit_log.transaction t WHERE t.id = $1"
"  UNION"
"  SELECT n.id, n.xid, n.started_at FROM audit_log.transaction n JOIN r"
"   ON n.xid = r.xid AND n.started_at = r.started_at"
"   AND (n.continues = r.id OR $2 AND n.undoes IS NULL))"
" SELECT id FROM r ORDER BY id";

static const char xid_sql[] =
"SELECT pg_catalog.string_agg(id::pg_catalog.text, ', ' ORDER BY id)"
" FROM audit_log.transaction WHERE xid = $1";

static List *
find_rows(int64 transaction_id, bool same_xid, MemoryContext cxt)
{
	Oid			types[] = {INT8OID, BOOLOID};
	Datum		values[] = {Int64GetDatum(transaction_id), BoolGetDatum(same_xid)};
	Oid			xid_types[] = {XID8OID};
	Datum		xid_values[] = {FullTransactionIdGetDatum(FullTransactionIdFromU64((uint64) transaction_id))};
	MemoryContext old;
	List	   *ids = NIL;
	char	   *rows;

	if (SPI_execute_with_args(rows_sql, 2, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.transaction");
	if (SPI_processed > 0)
	{
		old = MemoryContextSwitchTo(cxt);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			int64	   *id = palloc(sizeof(int64));
			bool		isnull;

			*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
			ids = lappend(ids, id);
		}
		MemoryContextSwitchTo(old);
		return ids;
	}

	if (SPI_execute_with_args(xid_sql, 1, xid_types, xid_values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.transaction");
	rows = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("transaction %lld is not in the log", (long long) transaction_id),
			 rows ? errhint("%lld is an xid of the server: the log has what it did under id %s.",
							(long long) transaction_id, rows) :
			 errhint("Ids are those of audit_log.transactions.")));
}

List *
al_logread_transaction_rows(int64 transaction_id, bool same_xid)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *volatile ids = NIL;
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		ids = find_rows(transaction_id, same_xid, cxt);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return ids;
}

/* The ids of the tables that transaction rows have changes of. */
List *
al_logread_table_ids(List *transaction_ids)
{
	Oid			types[] = {INT8ARRAYOID};
	Datum		args[] = {listed_ids(transaction_ids)};
	MemoryContext cxt = CurrentMemoryContext;
	List	   *volatile result = NIL;
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		if (SPI_execute_with_args("SELECT DISTINCT c.table_id FROM audit_log.change c WHERE c.transaction_id = ANY ($1)",
								  1, types, args, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not read audit_log.change");
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);
			bool		isnull;

			result = lappend_int(result, DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[i],
																	 SPI_tuptable->tupdesc, 1, &isnull)));
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return result;
}
