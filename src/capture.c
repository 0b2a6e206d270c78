/*
 * capture.c
 *		The trigger functions of a tracked table's rows and statements, and
 *		what happens when the transaction goes on or ends.
 *
 *	audit_log.capture()				AFTER … FOR EACH ROW
 *	audit_log.capture_flush()		AFTER … FOR EACH STATEMENT, TRUNCATE too
 *
 * Nothing on the way of a row looks at a catalog or uses SPI, but the
 * registration of a table that the backend has not seen before.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "replication/logicalworker.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/*
 * A row that leaves its partition comes as a DELETE and an INSERT of the same
 * command.  The DELETE is held until its INSERT comes, and becomes one UPDATE
 * with it; if none comes (a BEFORE trigger refused the row) it is a DELETE.
 */
typedef struct HeldRow
{
	AlTable    *table;			/* of the partition that it left */
	TupleDesc	tupdesc;		/* of that partition */
	HeapTuple	tuple;
	CommandId	command;
	TimestampTz timestamp;
	int32		table_id;
	bool		log_delete;		/* wanted as a DELETE, should it be one */
	int			trigger_depth;
	SubTransactionId subid;
	MemoryContext cxt;
} HeldRow;

static List *held = NIL;		/* of HeldRow *, oldest first */

/* ---- rows that move between partitions ---- */

static void
hold_row(AlTable *table, TriggerData *data, CommandId command)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext,
											  "audit_log moved row",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	HeldRow    *row;
	bool		log_delete = al_entry_wanted(table, AL_DELETE) &&
		al_entry_condition(table, data->tg_relation, data->tg_trigslot, NULL);

	old = MemoryContextSwitchTo(cxt);
	row = palloc0(sizeof(HeldRow));
	row->cxt = cxt;
	row->table = table;
	row->tupdesc = CreateTupleDescCopyConstr(RelationGetDescr(data->tg_relation));
	row->tuple = heap_copytuple(data->tg_trigtuple);
	row->command = command;
	row->timestamp = GetCurrentTimestamp();
	row->table_id = table->table_id;
	row->log_delete = log_delete;
	row->trigger_depth = al_entry_depth();
	row->subid = GetCurrentSubTransactionId();
	MemoryContextSwitchTo(TopTransactionContext);
	held = lappend(held, row);
	MemoryContextSwitchTo(old);
}

/*
 * No INSERT came: the row was deleted.  Attributed only now, since the user and
 * what is required of him may be told by the new row of an UPDATE.
 */
static void
log_held(HeldRow *row)
{
	AlEntry		entry;
	AlVersionLook look = {0};
	TupleTableSlot *slot;
	MemoryContext old;
	AlFixed		saved;

	if (!row->log_delete)
		return;
	old = MemoryContextSwitchTo(row->cxt);
	slot = MakeSingleTupleTableSlot(row->tupdesc, &TTSOpsHeapTuple);
	ExecStoreHeapTuple(row->tuple, slot, false);
	al_fixed_enter(&saved, row->table->need);
	PG_TRY();
	{
		al_entry_attribute(&entry, row->table, AL_DELETE, row->command, slot, NULL,
						   row->table->settings->versioned ? &look : NULL);
		entry.timestamp = row->timestamp;
		entry.table_id = row->table_id;
		al_row_whole(row->table, slot, &entry);
		if (row->table->renderings != NIL)
			al_feed_change(row->table, AL_DELETE, slot, NULL, &entry);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	al_writer_add(&entry);
	if (row->table->settings->versioned)
		al_version_add(row->table, &look, AL_DELETE, slot, NULL, &entry);
	MemoryContextSwitchTo(old);
}

/*
 * Logs the held rows that no INSERT can follow any more: those of statements
 * at least that deep, of one table or (InvalidOid) of all.
 */
static void
settle_held(Oid root, int min_depth)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	ListCell   *lc;

	foreach(lc, held)
	{
		HeldRow    *row = lfirst(lc);

		if (row->trigger_depth < min_depth || row->subid != subid ||
			(OidIsValid(root) && row->table->root != root))
			continue;
		log_held(row);
		held = foreach_delete_current(held, lc);
		MemoryContextDelete(row->cxt);
	}
}

/* The held row whose INSERT into another partition this is, NULL if none. */
static HeldRow *
find_held(const AlTable *table, CommandId command)
{
	int			depth = al_entry_depth();

	for (int i = list_length(held) - 1; i >= 0; i--)
	{
		HeldRow    *row = list_nth(held, i);

		if (row->table->root == table->root && row->table->relid != table->relid &&
			row->command == command && row->trigger_depth == depth &&
			row->subid == GetCurrentSubTransactionId())
			return row;
	}
	return NULL;
}

/* The held row as a row of the partition into which it went. */
static TupleTableSlot *
held_slot(HeldRow *row, Relation rel)
{
	MemoryContext old = MemoryContextSwitchTo(row->cxt);
	TupleConversionMap *map = convert_tuples_by_name(row->tupdesc, RelationGetDescr(rel));
	TupleTableSlot *slot = MakeSingleTupleTableSlot(CreateTupleDescCopyConstr(RelationGetDescr(rel)),
													&TTSOpsHeapTuple);

	ExecStoreHeapTuple(map ? execute_attr_map_tuple(row->tuple, map) : row->tuple,
					   slot, false);
	MemoryContextSwitchTo(old);
	return slot;
}

/* ---- one event ---- */

/*
 * What a row event comes to: filled before the fixed settings are entered,
 * since a condition is evaluated under the session's own.
 */
typedef struct RowEvent
{
	bool		log;
	AlAction	action;
	TupleTableSlot *old;
	TupleTableSlot *new;
	CommandId	command;
	HeldRow    *held;			/* to be released when done */
} RowEvent;

/*
 * The command that inserted a tuple.  Not asked of HeapTupleHeaderGetCmin()
 * alone: COPY FREEZE leaves no inserting transaction to check.
 */
static CommandId
inserting_command(HeapTuple tuple)
{
	if (tuple->t_data->t_infomask & HEAP_COMBOCID)
		return HeapTupleHeaderGetCmin(tuple->t_data);
	return HeapTupleHeaderGetRawCommandId(tuple->t_data);
}

/*
 * The command is read off the tuple: a statement run from inside another comes
 * to its AFTER triggers before the outer one does, so the current command
 * would not order a record's changes.
 */
static RowEvent
understand_event(AlTable *table, TriggerData *data)
{
	RowEvent	event = {0};

	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		event.action = AL_UPDATE;
		event.old = data->tg_trigslot;
		event.new = data->tg_newslot;
		event.command = inserting_command(data->tg_newtuple);
	}
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
	{
		HeapTupleHeader tuple = data->tg_trigtuple->t_data;

		event.action = AL_DELETE;
		event.old = data->tg_trigslot;
		event.command = HeapTupleHeaderGetCmax(tuple);

		if (table->root != table->relid)
		{
			if (held != NIL)
				settle_held(table->root, al_entry_depth());

			/*
			 * In logical apply the old tuple of a row that moves does not say
			 * so: there every DELETE may be the first half.
			 */
			if (HeapTupleHeaderIndicatesMovedPartitions(tuple) || IsLogicalWorker())
			{
				hold_row(table, data, event.command);
				return event;
			}
		}
	}
	else
	{
		event.action = AL_INSERT;
		event.new = data->tg_trigslot;
		event.command = inserting_command(data->tg_trigtuple);
		if (held != NIL && (event.held = find_held(table, event.command)) != NULL)
		{
			event.action = AL_UPDATE;
			event.old = held_slot(event.held, data->tg_relation);
		}
	}
	event.log = al_entry_wanted(table, event.action) &&
		al_entry_condition(table, data->tg_relation, event.old, event.new);
	return event;
}

static void
capture_event(AlTable *table, TriggerData *data)
{
	AlRowMemory memory;

	al_entry_memory_enter(&memory);
	PG_TRY();
	{
		RowEvent	event = understand_event(table, data);

		if (event.log)
			al_entry_log(table, event.action, event.old, event.new, event.command);
		if (event.held)
		{
			held = list_delete_ptr(held, event.held);
			MemoryContextDelete(event.held->cxt);
		}
	}
	PG_FINALLY();
	{
		al_entry_memory_leave(&memory);
	}
	PG_END_TRY();
}

static int
event_type(TriggerEvent event)
{
	return TRIGGER_FIRED_BY_UPDATE(event) ? TRIGGER_TYPE_UPDATE :
		TRIGGER_FIRED_BY_DELETE(event) ? TRIGGER_TYPE_DELETE : TRIGGER_TYPE_INSERT;
}

PG_FUNCTION_INFO_V1(audit_log_capture);
Datum
audit_log_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = al_entry_protocol(fcinfo, "audit_log.capture", true, true);
	AlActivity	activity = {.rel = data->tg_relation};
	ErrorContextCallback callback = {.callback = al_entry_report,.arg = &activity,
	.previous = error_context_stack};
	AlTable    *table;

	activity.action = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(data->tg_event) ? "DELETE" : "INSERT";
	error_context_stack = &callback;

	table = al_table_get(data->tg_relation, data->tg_trigger);
	activity.schema = table->own_schema;
	if ((table->deputed & event_type(data->tg_event)) == 0)
	{
		if (table->table_id == 0)
			al_register_table(table);
		if (!al_register_paused(table->table_id))
		{
			if (al_truncate_pending())
				al_truncate_refuse_changes(table);
			capture_event(table, data);
			/* where no flush is certain to come, this is the place for it */
			if (!table->flush_certain)
			{
				al_writer_flush();
				al_version_flush();
				al_feed_flush();
			}
		}
	}
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}

PG_FUNCTION_INFO_V1(audit_log_capture_flush);
Datum
audit_log_capture_flush(PG_FUNCTION_ARGS)
{
	TriggerData *data = al_entry_protocol(fcinfo, "audit_log.capture_flush", false, true);
	AlActivity	activity = {.action = "changes",.rel = data->tg_relation,
	.schema = get_namespace_name(RelationGetNamespace(data->tg_relation))};
	ErrorContextCallback callback = {.callback = al_entry_report,.arg = &activity,
	.previous = error_context_stack};

	error_context_stack = &callback;
	if (al_truncate_pending() && TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		al_truncate_finish(al_table_root(data->tg_relation), al_entry_depth());
	if (held != NIL)
		settle_held(InvalidOid, al_entry_depth());
	al_writer_flush();
	al_version_flush();
	/* a TRUNCATE of several tables may be one of the activity table, too: its entries come behind */
	if (!al_truncate_pending())
		al_feed_flush();
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}

/* ---- following the transaction ---- */

/*
 * The last resort: what logical apply has buffered, and whatever no flush
 * trigger came for.
 */
static void
finish_transaction(void)
{
	if (al_truncate_pending() || held != NIL)
	{
		/* conditions and encoders may want a snapshot, a commit has none */
		PushActiveSnapshot(GetTransactionSnapshot());
		al_truncate_finish_all();
		settle_held(InvalidOid, 0);
		PopActiveSnapshot();
	}
	al_writer_flush();
	al_version_flush();
	al_feed_flush();
	al_outbox_finish();
}

static void
end_transaction(bool commit)
{
	held = NIL;					/* went with TopTransactionContext */
	al_truncate_end_transaction();
	al_entry_end_transaction();
	al_writer_end_transaction();
	al_version_end_transaction();
	al_feed_end_transaction();
	al_outbox_end_transaction();
	al_target_end_transaction();
	al_session_end_transaction();
	al_cluster_end_transaction(commit);
	al_register_end_transaction(commit);
	al_table_end_transaction();
}

static void
follow_transaction(XactEvent event, void *arg)
{
	(void) arg;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			finish_transaction();
			al_outbox_announce();
			break;
		case XACT_EVENT_PRE_PREPARE:
			finish_transaction();
			break;
		case XACT_EVENT_COMMIT:
			end_transaction(true);
			break;
		case XACT_EVENT_PREPARE:	/* may yet be rolled back: what it has
									 * registered must not be relied on */
		case XACT_EVENT_ABORT:
			end_transaction(false);
			break;
		default:				/* parallel workers change nothing */
			break;
	}
}

static void
follow_subtransaction(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	(void) arg;
	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			foreach(lc, held)
				if (((HeldRow *) lfirst(lc))->subid == subid)
					((HeldRow *) lfirst(lc))->subid = parent;
			al_truncate_commit_sub(subid, parent);
			al_writer_commit_sub(subid, parent);
			al_version_commit_sub(subid, parent);
			al_feed_commit_sub(subid, parent);
			al_session_commit_sub(subid, parent);
			al_register_commit_sub(subid, parent);
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			foreach(lc, held)
				if (((HeldRow *) lfirst(lc))->subid == subid)
				{
					MemoryContextDelete(((HeldRow *) lfirst(lc))->cxt);
					held = foreach_delete_current(held, lc);
				}
			al_truncate_abort_sub(subid);
			al_writer_abort_sub(subid);
			al_version_abort_sub(subid);
			al_feed_abort_sub(subid);
			al_target_abort_sub(subid);
			al_session_abort_sub(subid);
			al_cluster_abort_sub();
			al_register_abort_sub(subid);
			break;
		default:
			break;
	}
}

void
al_capture_init(void)
{
	RegisterXactCallback(follow_transaction, NULL);
	RegisterSubXactCallback(follow_subtransaction, NULL);
}
