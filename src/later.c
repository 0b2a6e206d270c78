/*
 * later.c
 *		What came after changes that are to be taken back: under which key their
 *		rows stand now, and which transaction changed them since.
 *
 * Lives as long as a call; the caller is connected to SPI, and has locked what
 * it looks at.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* so many ids are looked up one by one rather than by reading what came since */
#define FEW_IDS 50

typedef struct Later
{
	AlPlan	   *plan;
	int64		transaction_id;
	List	   *ours;
} Later;

static Datum
ids_datum(List *ids, Oid type)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(ids), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, ids)
		elems[n++] = type == INT8OID ? Int64GetDatum(*(int64 *) lfirst(lc)) :
			CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(type == INT8OID ?
						   construct_array(elems, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE) :
						   construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* the rows of its database transaction */
static const char siblings_sql[] =
"SELECT pg_catalog.array_agg(s.id) FROM audit_log.transaction o"
" JOIN audit_log.transaction s ON s.xid = o.xid AND s.started_at = o.started_at WHERE o.id = $1";

/* its changes of the table begin */
static const char first_sql[] =
"SELECT pg_catalog.min(c.id) FROM audit_log.change c WHERE c.table_id = $1 AND c.transaction_id = ANY ($2)";

/*
 * Where a statement runs inside another, the transaction's own changes come in
 * another order than their ids (logread.c): those are not passed over by id.
 */
#define LATER_COLUMNS \
	"SELECT c.transaction_id, c.action_type::pg_catalog.text, c.record_id, c.old_record_id," \
	" c.id, c.command, c.transaction_id = ANY ($5), t.undoes IS NOT NULL" \
	" FROM audit_log.change c JOIN audit_log.transaction t ON t.id = c.transaction_id"
#define LATER_ORDER \
	" AND NOT c.transaction_id = ANY ($3) AND c.action_type <> 'SNAPSHOT'" \
	" ORDER BY pg_catalog.max(c.id) OVER (PARTITION BY t.xid, t.started_at), c.command, c.id"

static const char later_sql[] =
LATER_COLUMNS " WHERE c.table_id = $1 AND c.id >> 8 >= $2 >> 8 AND c.id >= $2"
" AND c.record_id IS NOT NULL" LATER_ORDER;

static const char later_few_sql[] =
LATER_COLUMNS " WHERE c.table_id = $1 AND (c.id > $2 OR c.transaction_id = ANY ($5))"
" AND (c.record_id = ANY ($4) OR c.old_record_id = ANY ($4))" LATER_ORDER;

static const char renamed_sql[] =
"WITH RECURSIVE r (id) AS ("
"  SELECT pg_catalog.unnest($4::pg_catalog.text[])"
"  UNION SELECT c.record_id FROM r JOIN audit_log.change c ON c.old_record_id = r.id"
"   WHERE c.table_id = $1 AND (c.id > $2 OR c.transaction_id = ANY ($5)))"
" SELECT pg_catalog.array_agg(r.id) FROM r WHERE r.id <> ALL ($3::pg_catalog.text[])";

/* a change of the table that is not taken back */
typedef struct LaterChange
{
	int64		transaction_id;
	const char *action;
	const char *record_id;
	const char *old_record_id;
	int64		id;
	CommandId	command;
	bool		same_xid;
	bool		undoes;			/* made by taking something back */
} LaterChange;

/*
 * Does it come after what is taken back of the row?  Transactions under way at
 * the same time take turns: what is later than one of their changes may be
 * earlier than another.
 */
static bool
is_later(const AlPlanRow *row, const LaterChange *change)
{
	if (change->same_xid && change->command != row->last_command)
		return change->command > row->last_command;
	return change->id > row->last_change;
}

/* Is the row there after the changes that are taken back? */
static bool
was_left(const AlPlanRow *row)
{
	return row->steps->action != AL_DELETE;
}

/* The row whose record bears the id, if the change is later than what is taken back of it. */
static AlPlanRow *
changed_later(AlPlanTable *table, const char *id, const LaterChange *change)
{
	AlPlanRow  *row = al_plan_find_row(table, id);

	return row != NULL && is_later(row, change) ? row : NULL;
}

/*
 * Its id once it is gone: other records may bear it, one after the other; it is
 * there again where the deletion is taken back when none of them is left.
 */
static void
note_after_gone(AlPlanRow *row, const LaterChange *change)
{
	bool		inserted = strcmp(change->action, "INSERT") == 0;
	bool		left = change->old_record_id != NULL && strcmp(change->old_record_id, row->id) == 0;

	if (inserted && change->undoes)
		row->gone = row->others > 0;
	else if (inserted || (change->old_record_id != NULL && !left))
		row->others++;
	else if (row->others > 0 && (left || (strcmp(change->action, "DELETE") == 0 && change->undoes)))
		row->others--;
}

static void
note_later(AlPlanTable *table, const LaterChange *change)
{
	const char *old_id = change->old_record_id;
	AlPlanRow  *row = changed_later(table, old_id ? old_id : change->record_id, change);
	AlPlanRow  *other;

	/* the id of a row that was deleted may be taken by another record */
	if (row == NULL && old_id != NULL)
		row = changed_later(table, change->record_id, change);
	if (row == NULL)
		return;
	row->by = change->transaction_id;
	if (!was_left(row))
		return;
	if (row->gone)
		note_after_gone(row, change);
	else if (strcmp(change->action, "DELETE") == 0)
		row->gone = true;
	else if (old_id != NULL && strcmp(row->id, old_id) == 0)
	{
		other = al_plan_find_row(table, change->record_id);
		if (other != NULL && !other->gone)
		{
			/* its id is borne by another row of the plan now */
			other->by = change->transaction_id;
			al_plan_move_row(other, NULL);
		}
		al_plan_move_row(row, change->record_id);
	}
}

/* What is gone in the end is under no id. */
static void
leave_gone(AlPlanTable *table)
{
	for (int i = 0; i < table->nrows; i++)
		if (table->rows[i]->gone)
			al_plan_move_row(table->rows[i], NULL);
}

/* The one value of a statement's result. */
static Datum
look_up(const char *sql, int nargs, Oid *types, Datum *args)
{
	bool		isnull;
	Datum		value;

	if (SPI_execute_with_args(sql, nargs, types, args, NULL, true, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not read the log");
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (isnull)
		elog(ERROR, "transaction is not in the log");
	return value;
}

static Datum
siblings(const Later *later)
{
	Oid			types[] = {INT8OID};
	Datum		args[] = {Int64GetDatum(later->transaction_id)};

	return look_up(siblings_sql, 1, types, args);
}

/* Those of the table's changes since that concern its rows. */
static void
read_later_of(const Later *later, AlWalk *walk)
{
	AlPlanTable *table = walk->table;
	Oid			types[] = {INT4OID, INT8OID, INT8ARRAYOID, TEXTARRAYOID, INT8ARRAYOID};
	Datum		args[5];
	List	   *ids = NIL;
	bool		few = table->nrows <= FEW_IDS;
	Portal		portal;
	MemoryContext cxt = later->plan->cxt;

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		/* as its steps have left it, however often it is asked */
		row->by = 0;
		row->gone = false;
		row->others = 0;
		if (row->left_id != NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			al_plan_move_row(row, row->left_id);
			MemoryContextSwitchTo(old);
			ids = lappend(ids, unconstify(char *, row->left_id));
		}
	}
	if (ids == NIL || table->nkeys == 0)
		return;
	args[0] = Int32GetDatum(table->table_id);
	args[4] = siblings(later);
	if (!few)
	{
		Oid			first_types[] = {INT4OID, INT8ARRAYOID};
		Datum		first_args[] = {args[0], args[4]};

		args[1] = look_up(first_sql, 2, first_types, first_args);
		args[3] = ids_datum(NIL, TEXTOID);
	}
	else
	{
		bool		isnull;

		args[1] = Int64GetDatum(walk->first);
		args[2] = args[3] = ids_datum(ids, TEXTOID);
		types[2] = TEXTARRAYOID;
		if (SPI_execute_with_args(renamed_sql, 5, types, args, NULL, true, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not read audit_log.change");
		args[3] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (isnull)
			args[3] = args[2];
		else
		{
			Datum	   *more;
			int			n;

			deconstruct_array(DatumGetArrayTypeP(args[3]), TEXTOID, -1, false, TYPALIGN_INT,
							  &more, NULL, &n);
			for (int i = 0; i < n; i++)
				ids = lappend(ids, TextDatumGetCString(more[i]));
			args[3] = ids_datum(ids, TEXTOID);
		}
	}
	args[2] = ids_datum(later->ours, INT8OID);
	types[2] = INT8ARRAYOID;
	portal = SPI_cursor_open_with_args(NULL, few ? later_few_sql : later_sql, 5,
									   types, args, NULL, true, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, 1000);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			HeapTuple	tuple = SPI_tuptable->vals[i];
			TupleDesc	desc = SPI_tuptable->tupdesc;
			LaterChange change;
			bool		isnull;
			MemoryContext old;

			CHECK_FOR_INTERRUPTS();
			old = MemoryContextSwitchTo(cxt);
			change.transaction_id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
			change.action = SPI_getvalue(tuple, desc, 2);
			change.record_id = SPI_getvalue(tuple, desc, 3);
			change.old_record_id = SPI_getvalue(tuple, desc, 4);
			change.id = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
			change.command = (CommandId) DatumGetInt32(SPI_getbinval(tuple, desc, 6, &isnull));
			change.same_xid = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
			change.undoes = DatumGetBool(SPI_getbinval(tuple, desc, 8, &isnull));
			note_later(table, &change);
			MemoryContextSwitchTo(old);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	leave_gone(table);
}

/*
 * Follows the records from where the changes taken back have left them to now;
 * true where one is to be found under another id than it was looked for.
 * transaction_id: a row of the database transaction that is taken back; ours:
 * all of its rows that are (int64 *), NIL where it is a single change.
 */
bool
al_later_read(AlPlan *plan, List *walks, int64 transaction_id, List *ours)
{
	Later		later = {plan, transaction_id, ours};
	AlOwn		saved;
	ListCell   *table;

	PushActiveSnapshot(al_run_snapshot());
	al_own_enter(&saved);
	PG_TRY();
	{
		ListCell   *lc;

		foreach(lc, walks)
			read_later_of(&later, lfirst(lc));
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	PopActiveSnapshot();
	foreach(table, plan->tables)
	{
		AlPlanTable *plan_table = lfirst(table);

		for (int i = 0; i < plan_table->nrows; i++)
		{
			AlPlanRow  *row = plan_table->rows[i];

			if ((row->id == NULL) != (row->looked_id == NULL) ||
				(row->id != NULL && strcmp(row->id, row->looked_id) != 0))
				return true;
		}
	}
	return false;
}
