/*
 * moment.c
 *		Points in time that users name: timestamps and marks.
 *
 * What the log needs to know of one is which changes came after it.  Of a mark
 * a snapshot decides, of a timestamp the end of the database transaction: its
 * commit where track_commit_timestamp keeps it, else its last change in any
 * table.  Nearly all changes are told apart by their id, or their timestamp,
 * alone; the transactions for which that is not so, since they were under way
 * at the moment, are listed here, when the moment is read.
 *
 * xids are compared only with those of the same cluster (cluster.c).  A moment
 * lives in the memory it was read in.
 */
#include "postgres.h"

#include "access/commit_ts.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "audit_log.h"

/* ---- SPI as the owner, under the caller's snapshot ---- */

#define MAX_ARGS 9

typedef struct Request
{
	int			n;
	Oid			types[MAX_ARGS];
	Datum		values[MAX_ARGS];
} Request;

static void
add_arg(Request *query, Oid type, Datum value)
{
	Assert(query->n < MAX_ARGS);
	query->types[query->n] = type;
	query->values[query->n++] = value;
}

static uint64
run(const char *sql, Request *query)
{
	if (SPI_execute_with_args(sql, query->n, query->types, query->values, NULL,
							  true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run \"%s\"", sql);
	return SPI_processed;
}

static Datum
value_of(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

static int64
int64_of(uint64 row, int column, int64 if_null)
{
	bool		isnull;
	Datum		value = value_of(row, column, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

/* the first column of the result, in cxt */
static int64 *
take_ids(MemoryContext cxt, int *n)
{
	int64	   *ids = MemoryContextAlloc(cxt, sizeof(int64) * Max(SPI_processed, 1));

	*n = (int) SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
		ids[i] = int64_of(i, 1, 0);
	return ids;
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

/* ---- clusters ---- */

/* the part of the log whose xids are those of one cluster */
typedef struct Epoch
{
	int64		first_transaction_id;
	int64		first_change_id;
	int64		end_transaction_id; /* the next one's first */
	bool		current;		/* this cluster's */
} Epoch;

static const char epochs_sql[] =
"SELECT system_identifier, timeline, first_transaction_id, first_change_id, timestamp"
" FROM audit_log.cluster ORDER BY first_transaction_id, timestamp";

/*
 * The epoch in which this id of a transaction row belongs.  Where no id was taken
 * in one, the next one begins with the same: then it is the one that had begun
 * when the id was looked at (by the clock of its own cluster).  Epochs before that
 * are of the same cluster, before it was promoted, count with it: transactions
 * prepared then may be committed now.
 */
static Epoch
find_epoch(int64 transaction_id, TimestampTz looked_at)
{
	Epoch		epoch = {.first_transaction_id = PG_INT64_MAX,.first_change_id = PG_INT64_MAX,
	.end_transaction_id = PG_INT64_MAX};
	Request		query = {0};
	uint64		n = run(epochs_sql, &query);
	int			at = -1;
	int64		system;
	int64		timeline;
	bool		isnull;

	for (uint64 i = 0; i < n; i++)
	{
		int64		first = int64_of(i, 3, 0);

		if (first < transaction_id ||
			(first == transaction_id &&
			 (at < 0 || DatumGetTimestampTz(value_of(i, 5, &isnull)) <= looked_at)))
			at = (int) i;
		else
		{
			epoch.end_transaction_id = first;
			break;
		}
	}
	if (at < 0)
		return epoch;
	system = int64_of(at, 1, 0);
	timeline = DatumGetInt32(value_of(at, 2, &isnull));
	epoch.current = system == (int64) GetSystemIdentifier() &&
		epoch.end_transaction_id == PG_INT64_MAX;
	for (; at >= 0; at--)
	{
		int32		before = DatumGetInt32(value_of(at, 2, &isnull));

		if (int64_of(at, 1, 0) != system || before > timeline)
			break;
		timeline = before;
		epoch.first_transaction_id = int64_of(at, 3, 0);
		epoch.first_change_id = int64_of(at, 4, 0);
	}
	return epoch;
}

/* ---- marks ---- */

static const char mark_sql[] =
"SELECT timestamp, snapshot, xid, command, transaction_id, change_id"
" FROM audit_log.mark WHERE name = $1";

/*
 * Transaction rows with ids given out by then whose transaction the snapshot
 * did not see.  $1 snapshot, $2 highest id, $3 lowest, $4 the marker's xid
 */
static const char mark_later_sql[] =
"SELECT id, timestamp FROM audit_log.transaction"
" WHERE id <= $2 AND id >= $3 AND xid >= pg_catalog.pg_snapshot_xmin($1)"
" AND NOT pg_catalog.pg_visible_in_snapshot(xid, $1) AND xid <> $4 ORDER BY id";

static const char mark_own_sql[] =
"SELECT id FROM audit_log.transaction WHERE xid = $1 AND id >= $2 AND id < $3 ORDER BY id";

/*
 * TRUNCATE removes rows whatever its snapshot sees of them.  So where the
 * marking transaction had emptied a table, what others had changed there before
 * is of no account, even if the mark's snapshot did not see it.
 */
static const char mark_truncated_sql[] =
"SELECT table_id::bigint, pg_catalog.max(id) FROM audit_log.change"
" WHERE transaction_id = ANY ($1) AND action_type = 'TRUNCATE' AND command < $2 AND changes IS NULL"
" GROUP BY 1";

static const char mark_states_sql[] =
"SELECT id FROM audit_log.table_state"
" WHERE first_change_id <= $2 AND first_change_id >= $3"
" AND NOT pg_catalog.pg_visible_in_snapshot(xid, $1) AND xid <> $4 ORDER BY id";

static bool
read_mark(AlMoment *moment, text *name, MemoryContext cxt)
{
	Request		query = {0};
	Request		later = {0};
	Request		own = {0};
	Request		truncated = {0};
	Request		states = {0};
	bool		isnull;
	Datum		snapshot;
	Datum		xid;
	int64		transaction_id;
	Epoch		epoch;

	add_arg(&query, TEXTOID, PointerGetDatum(name));
	if (run(mark_sql, &query) == 0)
		return false;
	moment->mark = true;
	moment->timestamp = DatumGetTimestampTz(value_of(0, 1, &isnull));
	snapshot = value_of(0, 2, &isnull);
	xid = value_of(0, 3, &isnull);
	moment->command = (CommandId) DatumGetInt32(value_of(0, 4, &isnull));
	transaction_id = int64_of(0, 5, 0);
	moment->change_id = int64_of(0, 6, 0);

	/* the row of the mark's cluster was there before the next id was taken */
	epoch = find_epoch(transaction_id + 1, moment->timestamp);

	add_arg(&later, PG_SNAPSHOTOID, snapshot);
	add_arg(&later, INT8OID, Int64GetDatum(transaction_id));
	add_arg(&later, INT8OID, Int64GetDatum(epoch.first_transaction_id));
	add_arg(&later, XID8OID, xid);
	run(mark_later_sql, &later);
	moment->later = take_ids(cxt, &moment->nlater);
	moment->begun = moment->timestamp;
	for (uint64 i = 0; i < SPI_processed; i++)
		moment->begun = Min(moment->begun, DatumGetTimestampTz(value_of(i, 2, &isnull)));

	add_arg(&own, XID8OID, xid);
	add_arg(&own, INT8OID, Int64GetDatum(epoch.first_transaction_id));
	add_arg(&own, INT8OID, Int64GetDatum(epoch.end_transaction_id));
	run(mark_own_sql, &own);
	moment->own = take_ids(cxt, &moment->nown);

	add_arg(&truncated, INT8ARRAYOID, id_array(moment->own, moment->nown));
	add_arg(&truncated, INT4OID, Int32GetDatum((int32) moment->command));
	run(mark_truncated_sql, &truncated);
	moment->ntruncated = (int) SPI_processed;
	moment->truncated = MemoryContextAlloc(cxt, sizeof(int64) * 2 * (SPI_processed + 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		moment->truncated[2 * i] = int64_of(i, 1, 0);
		moment->truncated[2 * i + 1] = int64_of(i, 2, 0);
	}

	add_arg(&states, PG_SNAPSHOTOID, snapshot);
	add_arg(&states, INT8OID, Int64GetDatum(moment->change_id));
	add_arg(&states, INT8OID, Int64GetDatum(epoch.first_change_id));
	add_arg(&states, XID8OID, xid);
	run(mark_states_sql, &states);
	moment->later_states = take_ids(cxt, &moment->nlater_states);
	return true;
}

/* ---- timestamps ---- */

/* the newest transaction row whose first change is not later than $1 */
static const char border_sql[] =
"SELECT id FROM audit_log.transaction WHERE timestamp <= $1 ORDER BY id DESC LIMIT 1";

/*
 * All rows of the database transactions that had begun by $1 and had changes,
 * or were committed, after it.  $2 the border, $3 and $4 the epoch that this
 * cluster writes, $5 whether commit times are kept, $6 an xid before which all
 * had ended by then
 */
static const char under_way_sql[] =
"WITH begun AS ("
"  SELECT t.xid, t.started_at FROM audit_log.transaction t"
"   WHERE t.id IN (SELECT c.transaction_id FROM audit_log.change c"
"                   WHERE c.timestamp > $1 AND c.transaction_id <= $2)"
"  UNION"
"  SELECT t.xid, t.started_at FROM audit_log.transaction t WHERE t.id > $2 AND t.started_at <= $1"
"  UNION"
"  SELECT t.xid, t.started_at FROM audit_log.transaction t"
"   WHERE $5 AND t.id >= $3 AND t.id < $4 AND t.xid >= $6 AND t.timestamp <= $1"
"     AND audit_log._committed_at(t.xid) > $1"
"  UNION"
"  SELECT t.xid, t.started_at FROM audit_log.transaction t"
"   WHERE $5 AND t.id > $2 AND t.id >= $3 AND t.id < $4 AND audit_log._committed_at(t.xid) <= $1)"
" SELECT t.id, t.timestamp, $5 AND t.id >= $3 AND t.id < $4"
"   AND coalesce(audit_log._committed_at(t.xid) <= $1, false)"
" FROM audit_log.transaction t JOIN begun b ON b.xid = t.xid AND b.started_at = t.started_at"
" WHERE t.xid >= (SELECT xid FROM begun ORDER BY xid LIMIT 1)"
"   AND t.xid <= (SELECT xid FROM begun ORDER BY xid DESC LIMIT 1)"
" ORDER BY t.id";

/* a mark of this cluster made by then: before its xmin all had ended */
static const char watermark_sql[] =
"SELECT pg_catalog.pg_snapshot_xmin(snapshot) FROM audit_log.mark"
" WHERE timestamp <= $1 AND transaction_id + 1 >= $2 ORDER BY 1 DESC LIMIT 1";

static const char time_states_sql[] =
"SELECT s.id FROM audit_log.table_state s"
" WHERE s.timestamp <= $1"
"   AND (s.xid IN (SELECT t.xid FROM audit_log.transaction t WHERE t.id = ANY ($2)"
"                   AND t.started_at <= s.timestamp)"
"        OR ($5 AND s.first_change_id >= $3 AND s.xid >= $4 AND audit_log._committed_at(s.xid) > $1))"
" ORDER BY s.id";

static void
read_timestamp(AlMoment *moment, MemoryContext cxt)
{
	Datum		at = TimestampTzGetDatum(moment->timestamp);
	Request		border = {0};
	Request		watermark = {0};
	Request		under_way = {0};
	Request		states = {0};
	Epoch		epoch = find_epoch(PG_INT64_MAX, moment->timestamp);
	Datum		xmin = FullTransactionIdGetDatum(FullTransactionIdFromU64(0));
	bool		kept = track_commit_timestamp && epoch.current;
	int64		border_id;
	bool		isnull;

	add_arg(&border, TIMESTAMPTZOID, at);
	border_id = run(border_sql, &border) > 0 ? int64_of(0, 1, 0) : 0;
	if (kept)
	{
		add_arg(&watermark, TIMESTAMPTZOID, at);
		add_arg(&watermark, INT8OID, Int64GetDatum(epoch.first_transaction_id));
		if (run(watermark_sql, &watermark) > 0)
			xmin = SPI_datumTransfer(value_of(0, 1, &isnull), true, sizeof(int64));
	}

	add_arg(&under_way, TIMESTAMPTZOID, at);
	add_arg(&under_way, INT8OID, Int64GetDatum(border_id));
	add_arg(&under_way, INT8OID, Int64GetDatum(epoch.first_transaction_id));
	add_arg(&under_way, INT8OID, Int64GetDatum(epoch.end_transaction_id));
	add_arg(&under_way, BOOLOID, BoolGetDatum(kept));
	add_arg(&under_way, XID8OID, xmin);
	run(under_way_sql, &under_way);
	moment->later = MemoryContextAlloc(cxt, sizeof(int64) * Max(SPI_processed, 1));
	moment->earlier = MemoryContextAlloc(cxt, sizeof(int64) * Max(SPI_processed, 1));
	moment->begun = moment->timestamp;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64		id = int64_of(i, 1, 0);

		if (DatumGetBool(value_of(i, 3, &isnull)))
			moment->earlier[moment->nearlier++] = id;
		else
		{
			moment->later[moment->nlater++] = id;
			moment->begun = Min(moment->begun, DatumGetTimestampTz(value_of(i, 2, &isnull)));
		}
	}

	add_arg(&states, TIMESTAMPTZOID, at);
	add_arg(&states, INT8ARRAYOID, id_array(moment->later, moment->nlater));
	add_arg(&states, INT8OID, Int64GetDatum(epoch.first_change_id));
	add_arg(&states, XID8OID, xmin);
	add_arg(&states, BOOLOID, BoolGetDatum(kept));
	run(time_states_sql, &states);
	moment->later_states = take_ids(cxt, &moment->nlater_states);
}

/* ---- either ---- */

/* name: a mark's, else the moment is its timestamp */
static bool
read_moment(AlMoment *moment, text *name)
{
	MemoryContext cxt = CurrentMemoryContext;
	AlOwn		saved;
	volatile bool found = true;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (name != NULL)
			found = read_mark(moment, name, cxt);
		else
			read_timestamp(moment, cxt);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return found;
}

/*
 * The text as a timestamp, under the session's settings.  What it is not makes
 * timestamptz_in fail; it holds nothing that the error would leave behind.
 */
static bool
text_is_timestamp(const char *string, TimestampTz *timestamp)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool is = true;

	PG_TRY();
	{
		*timestamp = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
															 CStringGetDatum(string),
															 ObjectIdGetDatum(InvalidOid),
															 Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		is = false;
	}
	PG_END_TRY();
	return is;
}

AlMoment *
al_moment_of_timestamp(TimestampTz timestamp)
{
	AlMoment   *moment = palloc0(sizeof(AlMoment));

	moment->timestamp = timestamp;
	moment->text = timestamptz_to_str(timestamp);
	moment->text = pstrdup(moment->text);
	(void) read_moment(moment, NULL);
	return moment;
}

AlMoment *
al_moment_of_text(text *name)
{
	AlMoment   *moment = palloc0(sizeof(AlMoment));
	TimestampTz timestamp;

	moment->text = text_to_cstring(name);
	if (read_moment(moment, name))
		return moment;
	if (!text_is_timestamp(moment->text, &timestamp))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("\"%s\" is neither a mark nor a timestamp", moment->text),
				 errhint("SELECT * FROM audit_log.marks shows the marks there are.")));
	return al_moment_of_timestamp(timestamp);
}

AlMoment *
al_moment_argument(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the moment must not be NULL")));
	if (get_fn_expr_argtype(fcinfo->flinfo, n) == TIMESTAMPTZOID)
		return al_moment_of_timestamp(PG_GETARG_TIMESTAMPTZ(n));
	return al_moment_of_text(PG_GETARG_TEXT_PP(n));
}

static bool
has_id(const int64 *ids, int n, int64 id)
{
	int			low = 0;

	while (low < n)
	{
		int			middle = low + (n - low) / 2;

		if (ids[middle] == id)
			return true;
		if (ids[middle] < id)
			low = middle + 1;
		else
			n = middle;
	}
	return false;
}

bool
al_moment_is_later(const AlMoment *moment, int32 table_id, int64 change_id,
				   int64 transaction_id, CommandId command, TimestampTz timestamp)
{
	for (int i = 0; i < moment->ntruncated; i++)
		if (moment->truncated[2 * i] == table_id && change_id < moment->truncated[2 * i + 1])
			return false;
	if (has_id(moment->later, moment->nlater, transaction_id))
		return true;
	if (!moment->mark)
		return timestamp > moment->timestamp &&
			!has_id(moment->earlier, moment->nearlier, transaction_id);
	if (has_id(moment->own, moment->nown, transaction_id))
		return command >= moment->command;
	return change_id > moment->change_id;
}

bool
al_moment_state_is_later(const AlMoment *moment, int64 state_id, int64 first_change_id,
						 TimestampTz timestamp)
{
	if (has_id(moment->later_states, moment->nlater_states, state_id))
		return true;
	return moment->mark ? first_change_id > moment->change_id :
		timestamp > moment->timestamp;
}

/* ---- making marks ---- */

/* Could anybody, whatever his DateStyle, mean a timestamp by this name? */
static bool
may_be_timestamp(const char *name)
{
	static const int orders[] = {DATEORDER_YMD, DATEORDER_DMY, DATEORDER_MDY};
	int			order = DateOrder;
	volatile bool is = false;
	TimestampTz timestamp;

	for (int i = 0; i < (int) lengthof(orders) && !is; i++)
	{
		PG_TRY();
		{
			DateOrder = orders[i];
			is = text_is_timestamp(name, &timestamp);
		}
		PG_FINALLY();
		{
			DateOrder = order;
		}
		PG_END_TRY();
	}
	return is;
}

static void
insert_mark(text *name, Datum comment, bool no_comment, Datum snapshot, CommandId command,
			int64 transaction_id, int64 change_id)
{
	Oid			types[] = {TEXTOID, TEXTOID, PG_SNAPSHOTOID, INT4OID, INT8OID, INT8OID, TEXTOID};
	Datum		values[] = {PointerGetDatum(name), comment, snapshot, Int32GetDatum((int32) command),
		Int64GetDatum(transaction_id), Int64GetDatum(change_id),
	CStringGetTextDatum(GetUserNameFromId(GetUserId(), false))};
	char		nulls[] = {' ', no_comment ? 'n' : ' ', ' ', ' ', ' ', ' ', ' ', '\0'};

	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute_with_args("INSERT INTO audit_log.mark (name, comment, timestamp, snapshot, xid,"
								  " command, transaction_id, change_id, db_user)"
								  " VALUES ($1, $2, pg_catalog.clock_timestamp(), $3,"
								  " pg_catalog.pg_current_xact_id(), $4, $5, $6, $7)"
								  " ON CONFLICT (name) DO NOTHING",
								  7, types, values, nulls, false, 0) != SPI_OK_INSERT)
			elog(ERROR, "could not write audit_log.mark");
		if (SPI_processed == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_OBJECT),
					 errmsg("mark \"%s\" already exists", text_to_cstring(name)),
					 errhint("Choose another name, or drop it: audit_log.drop_mark().")));
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/* audit_log.mark(name text, comment text) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_mark);
Datum
audit_log_mark(PG_FUNCTION_ARGS)
{
	const AlCatalog *catalog = al_catalog_get();
	LOCAL_FCINFO(nothing, 0);
	Datum		snapshot;
	int64		transaction_id;
	int64		change_id;
	text	   *name;

	PreventCommandIfReadOnly("audit_log.mark()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the name of a mark must not be NULL")));
	name = PG_GETARG_TEXT_PP(0);
	if (VARSIZE_ANY_EXHDR(name) == 0 || may_be_timestamp(text_to_cstring(name)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("\"%s\" cannot be the name of a mark", text_to_cstring(name)),
				 errdetail("It is empty, or reads as a timestamp."),
				 errhint("A function that is given a moment could not tell the two apart.")));

	InitFunctionCallInfoData(*nothing, NULL, 0, InvalidOid, NULL, NULL);
	snapshot = pg_current_snapshot(nothing);

	/*
	 * A change's id is taken after its transaction row's, so read in this order:
	 * no change up to change_id has a row above transaction_id.
	 */
	al_cluster_note();
	change_id = al_sequence_last(catalog->change_id_seq);
	transaction_id = al_sequence_last(catalog->transaction_id_seq);
	insert_mark(name, PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1), PG_ARGISNULL(1),
				snapshot, GetActiveSnapshot()->curcid, transaction_id, change_id);
	PG_RETURN_VOID();
}

/* ---- commit times ---- */

/*
 * audit_log._committed_at(xid xid8) RETURNS timestamptz.  The commit log of
 * times knows xids without their epoch, so those of the current one only.
 */
PG_FUNCTION_INFO_V1(audit_log_committed_at);
Datum
audit_log_committed_at(PG_FUNCTION_ARGS)
{
	FullTransactionId full = PG_GETARG_FULLTRANSACTIONID(0);
	FullTransactionId next = ReadNextFullTransactionId();
	TransactionId xid = XidFromFullTransactionId(full);
	TimestampTz timestamp;

	if (!track_commit_timestamp || !TransactionIdIsNormal(xid) ||
		FullTransactionIdFollowsOrEquals(full, next) ||
		U64FromFullTransactionId(next) - U64FromFullTransactionId(full) > PG_INT32_MAX ||
		!TransactionIdGetCommitTsData(xid, &timestamp, NULL) || timestamp == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(timestamp);
}
