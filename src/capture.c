/*
 * capture.c
 *		The trigger functions: from a changed row to an entry of the log.
 *
 *	audit_log.capture()				AFTER … FOR EACH ROW
 *	audit_log.capture_flush()		AFTER … FOR EACH STATEMENT, TRUNCATE too
 *	audit_log.capture_truncate()	BEFORE TRUNCATE FOR EACH STATEMENT
 *
 * Nothing here looks at a catalog per row, and nothing uses SPI but the
 * registration of a table that the backend has not seen before.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/tupconvert.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "replication/logicalworker.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
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
	AlEntry		entry;			/* without key and changes */
	bool		log_delete;		/* wanted as a DELETE, should it be one */
	int			trigger_depth;
	SubTransactionId subid;
	MemoryContext cxt;
} HeldRow;

static List *held = NIL;		/* of HeldRow *, oldest first */

/*
 * Relations whose TRUNCATE has begun and whose event is not logged yet: from
 * BEFORE to AFTER of one statement.
 */
typedef struct Truncated
{
	Oid			relid;
	Oid			root;
	SubTransactionId subid;
} Truncated;

static List *truncated = NIL;	/* of Truncated * */

/* what the error context says */
typedef struct Activity
{
	const char *action;
	Relation	rel;
} Activity;

static void
report_activity(void *arg)
{
	Activity   *activity = arg;
	char	   *schema = get_namespace_name(RelationGetNamespace(activity->rel));

	if (geterrcode() == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		errhint("Exclude the column from the audit, or mask it: audit_log.enable(…, exclude => …).");
	errcontext("audit_log capturing %s of table \"%s.%s\"", activity->action,
			   schema ? schema : "?", RelationGetRelationName(activity->rel));
}

/* The trigger protocol, with core's own words (ri_triggers.c). */
static TriggerData *
check_protocol(FunctionCallInfo fcinfo, const char *function, bool row, bool after)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", function)));
	if (after ? !TRIGGER_FIRED_AFTER(data->tg_event) : !TRIGGER_FIRED_BEFORE(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired %s", function,
						after ? "AFTER" : "BEFORE")));
	if (row ? !TRIGGER_FIRED_FOR_ROW(data->tg_event) : !TRIGGER_FIRED_FOR_STATEMENT(data->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired FOR EACH %s", function,
						row ? "ROW" : "STATEMENT")));
	if (OidIsValid(data->tg_trigger->tgconstraint))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" cannot be a constraint trigger", function),
				 errdetail("A deferred trigger would log changes in another order and at another time than they were made."),
				 errhint("Use CREATE TRIGGER … AFTER … FOR EACH ROW, or audit_log.enable().")));
	return data;
}

static int
trigger_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

/* ---- rows to values ---- */

static void
get_values(const AlTable *table, TupleTableSlot *slot, Datum *values, bool *nulls)
{
	slot_getsomeattrs(slot, table->last_attnum);
	for (int i = 0; i < table->ncolumns; i++)
	{
		AttrNumber	attnum = table->columns[i].attnum;

		values[i] = slot->tts_values[attnum - 1];
		nulls[i] = slot->tts_isnull[attnum - 1];
	}
}

static void
encode_column(const AlColumn *column, Datum value, bool isnull, AlValue *out)
{
	if (isnull)
	{
		out->kind = AL_NULL;
		return;
	}
	al_encode_value(column->encoder, value, out);
	if (column->masked)
	{
		int			len;
		char	   *text = al_jsonbuild_text(out, &len);

		al_mask_value(text, len, out);
	}
}

/* "Changed" means another image; equal pointers into TOAST need no detoasting. */
static bool
same_image(const AlColumn *column, Datum a, bool anull, Datum b, bool bnull)
{
	if (anull || bnull)
		return anull == bnull;
	if (!column->typbyval && column->typlen == -1)
	{
		struct varlena *va = (struct varlena *) DatumGetPointer(a);
		struct varlena *vb = (struct varlena *) DatumGetPointer(b);
		Size		size = VARSIZE_ANY(va);

		if (size == VARSIZE_ANY(vb) && memcmp(va, vb, size) == 0)
			return true;
	}
	return datum_image_eq(a, b, column->typbyval, column->typlen);
}

/*
 * A record's id: its key's text as changes shows it; of several columns a JSON
 * array of the texts.
 */
static text *
make_record_id(const AlTable *table, const Datum *values, const bool *nulls)
{
	StringInfoData buf;

	if (table->nkeys == 0)
		return NULL;
	initStringInfo(&buf);
	for (int i = 0; i < table->nkeys; i++)
	{
		AlColumn   *column = table->keys[i];
		int			n = column - table->columns;
		AlValue		value;
		char	   *string;
		int			len;

		encode_column(column, values[n], nulls[n], &value);
		string = al_jsonbuild_text(&value, &len);
		if (table->nkeys == 1)
			return cstring_to_text_with_len(string, len);
		appendStringInfoString(&buf, i == 0 ? "[" : ", ");
		escape_json(&buf, pnstrdup(string, len));
	}
	appendStringInfoChar(&buf, ']');
	return cstring_to_text_with_len(buf.data, buf.len);
}

/* The row as changes has it: every tracked column that is not NULL. */
static Jsonb *
row_object(const AlTable *table, const Datum *values, const bool *nulls)
{
	StringInfoData buf;
	AlJsonFrame frame;
	int			n = 0;

	for (int i = 0; i < table->ncolumns; i++)
		n += !nulls[i];
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < table->ncolumns; i++)
		if (!nulls[i])
			al_jsonbuild_key(&frame, table->columns[i].name, table->columns[i].namelen);
	for (int i = 0; i < table->ncolumns; i++)
		if (!nulls[i])
		{
			AlValue		value;

			encode_column(&table->columns[i], values[i], false, &value);
			al_jsonbuild_value(&frame, &value);
		}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

static bool
is_object(const AlValue *value)
{
	return value->kind == AL_CONTAINER && JsonContainerIsObject(value->container);
}

/* one column of a delta: [old, new], or what differs inside two objects */
static void
add_difference(AlJsonFrame *frame, const AlTable *table, const AlColumn *column,
			   const AlValue *old, const AlValue *new)
{
	AlJsonFrame pair;
	AlValue		inner;

	/* without a key the whole old value must be there: it names the row */
	if (column->json && table->nkeys > 0 && is_object(old) && is_object(new) &&
		al_delta_objects(old, new, &inner))
	{
		al_jsonbuild_value(frame, &inner);
		return;
	}
	al_jsonbuild_array(&pair, frame->buf, 2);
	al_jsonbuild_value(&pair, old);
	al_jsonbuild_value(&pair, new);
	al_jsonbuild_close(&pair, frame);
}

/*
 * The delta from the old to the new row; NULL where nothing tracked differs.
 * key_changed tells whether a key column is among what differs.
 */
static Jsonb *
row_delta(const AlTable *table,
		  const Datum *oldvalues, const bool *oldnulls,
		  const Datum *newvalues, const bool *newnulls, bool *key_changed)
{
	StringInfoData buf;
	AlJsonFrame frame;
	bool	   *differs = palloc(sizeof(bool) * Max(table->ncolumns, 1));
	int			n = 0;

	*key_changed = false;
	for (int i = 0; i < table->ncolumns; i++)
	{
		differs[i] = !same_image(&table->columns[i], oldvalues[i], oldnulls[i],
								 newvalues[i], newnulls[i]);
		n += differs[i];
	}
	if (n == 0)
		return NULL;
	for (int i = 0; i < table->nkeys; i++)
		*key_changed |= differs[table->keys[i] - table->columns];
	if (table->nkeys == 0)
	{
		n = table->ncolumns;
		memset(differs, true, sizeof(bool) * n);
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < table->ncolumns; i++)
		if (differs[i])
			al_jsonbuild_key(&frame, table->columns[i].name, table->columns[i].namelen);
	for (int i = 0; i < table->ncolumns; i++)
		if (differs[i])
		{
			AlValue		old;
			AlValue		new;

			encode_column(&table->columns[i], oldvalues[i], oldnulls[i], &old);
			encode_column(&table->columns[i], newvalues[i], newnulls[i], &new);
			add_difference(&frame, table, &table->columns[i], &old, &new);
		}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* ---- attribution ---- */

/* The claim of the new row's user_column, NULL where there is none. */
static const char *
row_user(const AlTable *table, TupleTableSlot *new)
{
	AlValue		value;
	bool		isnull;
	Datum		datum;
	char	   *string;
	int			len;

	if (table->user_column == NULL || new == NULL)
		return NULL;
	datum = slot_getattr(new, table->user_column->attnum, &isnull);
	if (isnull)
		return NULL;
	al_encode_value(table->user_column->encoder, datum, &value);
	string = al_jsonbuild_text(&value, &len);
	return len > 0 ? pnstrdup(string, len) : NULL;
}

/* What the table requires of whoever changes it. */
static void
check_required(const AlTable *table, const char *user)
{
	ListCell   *lc;

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA ||
		IsLogicalWorker() || al_own_active())
		return;
	foreach(lc, table->settings->require)
	{
		const char *name = lfirst(lc);

		if (strcmp(name, "user_id") == 0 ? user != NULL : al_session_context_has(name))
			continue;
		if (strcmp(name, "user_id") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("changes of table \"%s.%s\" require a user", table->schema, table->name),
					 errdetail("The table's audit has the setting require with \"user_id\"."),
					 errhint("Call audit_log.set_context(user_id, context), or SET LOCAL audit_log.user_id, in the transaction.")));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("changes of table \"%s.%s\" require \"%s\" in the context",
						table->schema, table->name, name),
				 errdetail("The table's audit has the setting require with \"%s\".", name),
				 errhint("Call audit_log.set_context(user_id, context), or SET LOCAL audit_log.context, in the transaction.")));
	}
}

static void
fill_entry(AlEntry *entry, const AlTable *table, AlAction action,
		   CommandId command, TupleTableSlot *new)
{
	const char *user = al_session_user(row_user(table, new));

	if (table->settings->require != NIL)
		check_required(table, user);
	memset(entry, 0, sizeof(AlEntry));
	entry->transaction_id = al_writer_transaction(user);
	entry->command = command;
	entry->timestamp = GetCurrentTimestamp();
	entry->action = action;
	entry->table_id = table->table_id;
}

/* ---- one row ---- */

static void
encode_row(const AlTable *table, TupleTableSlot *slot, AlEntry *entry)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(table->ncolumns, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(table->ncolumns, 1));

	get_values(table, slot, values, nulls);
	entry->record_id = make_record_id(table, values, nulls);
	entry->changes = row_object(table, values, nulls);
}

static void
capture_insert(const AlTable *table, AlAction action, TupleTableSlot *new,
			   CommandId command)
{
	AlEntry		entry;

	fill_entry(&entry, table, action, command, new);
	encode_row(table, new, &entry);
	al_writer_add(&entry);
}

static void
capture_delete(const AlTable *table, TupleTableSlot *old, CommandId command)
{
	AlEntry		entry;

	fill_entry(&entry, table, AL_DELETE, command, NULL);
	encode_row(table, old, &entry);
	al_writer_add(&entry);
}

static void
capture_update(const AlTable *table, TupleTableSlot *old, TupleTableSlot *new,
			   CommandId command)
{
	Size		n = Max(table->ncolumns, 1);
	Datum	   *oldvalues = palloc(sizeof(Datum) * n);
	bool	   *oldnulls = palloc(sizeof(bool) * n);
	Datum	   *newvalues = palloc(sizeof(Datum) * n);
	bool	   *newnulls = palloc(sizeof(bool) * n);
	AlEntry		entry;
	Jsonb	   *changes;
	bool		key_changed;

	get_values(table, old, oldvalues, oldnulls);
	get_values(table, new, newvalues, newnulls);
	changes = row_delta(table, oldvalues, oldnulls, newvalues, newnulls, &key_changed);
	if (changes == NULL)
		return;
	fill_entry(&entry, table, AL_UPDATE, command, new);
	entry.changes = changes;
	entry.record_id = make_record_id(table, newvalues, newnulls);
	if (key_changed)
	{
		text	   *id = make_record_id(table, oldvalues, oldnulls);

		if (VARSIZE(id) != VARSIZE(entry.record_id) ||
			memcmp(id, entry.record_id, VARSIZE(id)) != 0)
			entry.old_record_id = id;
	}
	al_writer_add(&entry);
}

static bool
wanted(const AlTable *table, AlAction action)
{
	return (table->settings->actions & (1 << action)) != 0;
}

static bool
condition_holds(AlTable *table, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	return table->settings->condition == NULL ||
		al_condition_holds(table, rel, old, new);
}

/* ---- rows that move between partitions ---- */

static void
hold_row(AlTable *table, TriggerData *data, CommandId command)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext,
											  "audit_log moved row",
											  ALLOCSET_SMALL_SIZES);
	MemoryContext old;
	HeldRow    *row;
	bool		log_delete = wanted(table, AL_DELETE) &&
		condition_holds(table, data->tg_relation, data->tg_trigslot, NULL);

	old = MemoryContextSwitchTo(cxt);
	row = palloc0(sizeof(HeldRow));
	row->cxt = cxt;
	row->table = table;
	row->tupdesc = CreateTupleDescCopyConstr(RelationGetDescr(data->tg_relation));
	row->tuple = heap_copytuple(data->tg_trigtuple);
	fill_entry(&row->entry, table, AL_DELETE, command, NULL);
	row->log_delete = log_delete;
	row->trigger_depth = trigger_depth();
	row->subid = GetCurrentSubTransactionId();
	MemoryContextSwitchTo(TopTransactionContext);
	held = lappend(held, row);
	MemoryContextSwitchTo(old);
}

/* No INSERT came: the row was deleted. */
static void
log_held(HeldRow *row)
{
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
		encode_row(row->table, slot, &row->entry);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	al_writer_add(&row->entry);
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
	int			depth = trigger_depth();

	for (int i = list_length(held) - 1; i >= 0; i--)
	{
		HeldRow    *row = list_nth(held, i);

		if (row->table->root == table->root && row->table->relid != table->relid &&
			row->entry.command == command && row->trigger_depth == depth &&
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
				settle_held(table->root, trigger_depth());

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
	event.log = wanted(table, event.action) &&
		condition_holds(table, data->tg_relation, event.old, event.new);
	return event;
}

static void
log_event(const AlTable *table, const RowEvent *event)
{
	AlFixed		saved;

	al_fixed_enter(&saved, table->need);
	PG_TRY();
	{
		if (event->action == AL_UPDATE)
			capture_update(table, event->old, event->new, event->command);
		else if (event->action == AL_DELETE)
			capture_delete(table, event->old, event->command);
		else
			capture_insert(table, event->action, event->new, event->command);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

/* A row written while its table is being truncated would go without a trace. */
static void
refuse_during_truncate(const AlTable *table)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->relid == table->relid)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot change table \"%s.%s\" from a trigger of its own TRUNCATE",
							table->schema, table->name),
					 errdetail("The rows that TRUNCATE removes are in the log already."),
					 errhint("Make the change before TRUNCATE, or after it.")));
}

/* Memory of one row, kept between rows; a nested use gets one of its own. */
static MemoryContext row_cxt = NULL;
static bool row_cxt_used = false;

typedef struct RowMemory
{
	MemoryContext cxt;
	MemoryContext old;
	bool		nested;
} RowMemory;

static void
row_memory_enter(RowMemory *memory)
{
	if (row_cxt == NULL)
		row_cxt = AllocSetContextCreate(TopMemoryContext, "audit_log row",
										ALLOCSET_DEFAULT_SIZES);
	memory->nested = row_cxt_used;
	memory->cxt = memory->nested ?
		AllocSetContextCreate(CurrentMemoryContext, "audit_log nested row",
							  ALLOCSET_DEFAULT_SIZES) : row_cxt;
	row_cxt_used = true;
	memory->old = MemoryContextSwitchTo(memory->cxt);
}

static void
row_memory_leave(RowMemory *memory)
{
	MemoryContextSwitchTo(memory->old);
	row_cxt_used = memory->nested;
	if (memory->nested)
		MemoryContextDelete(memory->cxt);
	else
		MemoryContextReset(memory->cxt);
}

static void
capture_event(AlTable *table, TriggerData *data)
{
	RowMemory	memory;

	row_memory_enter(&memory);
	PG_TRY();
	{
		RowEvent	event = understand_event(table, data);

		if (event.log)
			log_event(table, &event);
		if (event.held)
		{
			held = list_delete_ptr(held, event.held);
			MemoryContextDelete(event.held->cxt);
		}
	}
	PG_FINALLY();
	{
		row_memory_leave(&memory);
	}
	PG_END_TRY();
}

PG_FUNCTION_INFO_V1(audit_log_capture);
Datum
audit_log_capture(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_protocol(fcinfo, "audit_log.capture", true, true);
	Activity	activity = {.rel = data->tg_relation};
	ErrorContextCallback callback = {.callback = report_activity,.arg = &activity,
	.previous = error_context_stack};
	AlTable    *table;

	activity.action = TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(data->tg_event) ? "DELETE" : "INSERT";
	error_context_stack = &callback;

	table = al_table_get(data->tg_relation, data->tg_trigger);
	if (!table->deputy)
	{
		if (table->table_id == 0)
			al_register_table(table);
		if (!al_register_paused(table->table_id))
		{
			if (truncated != NIL)
				refuse_during_truncate(table);
			capture_event(table, data);
			/* where no flush is certain to come, this is the place for it */
			if (!table->flush_certain)
				al_writer_flush();
		}
	}
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}

/* ---- whole tables ---- */

#define PROGRESS_SECONDS 5

static void
report_progress(const AlTable *table, int64 rows, TimestampTz *last)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(*last, now, PROGRESS_SECONDS * 1000))
		return;
	*last = now;
	ereport(NOTICE,
			(errmsg("audit_log: %lld rows of \"%s.%s\" logged so far",
					(long long) rows, table->schema, table->name)));
}

static void
log_scanned_row(const AlTable *table, TupleTableSlot *slot, AlAction action,
				CommandId command)
{
	RowMemory	memory;
	RowEvent	event = {.action = action,.command = command};

	if (action == AL_DELETE)
		event.old = slot;
	else
		event.new = slot;
	row_memory_enter(&memory);
	PG_TRY();
	{
		log_event(table, &event);
	}
	PG_FINALLY();
	{
		row_memory_leave(&memory);
	}
	PG_END_TRY();
}

/*
 * Logs every row of one relation that has storage, as seen by a snapshot taken
 * now: the transaction's own may be older than rows that are there.  The caller
 * holds a lock that keeps writers out.
 */
static int64
log_all_rows(AlTable *table, Relation rel, AlAction action)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, snapshot);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	CommandId	command = GetCurrentCommandId(true);
	TimestampTz last = GetCurrentTimestamp();
	int64		rows = 0;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		if (!condition_holds(table, rel, NULL, slot))
			continue;
		log_scanned_row(table, slot, action, command);
		if (++rows % 1000 == 0)
			report_progress(table, rows, &last);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	return rows;
}

/*
 * The entry of a relation's row trigger, registered; NULL where it has none
 * that fires.
 */
static AlTable *
tracked(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture);
	AlTable    *table;

	if (trigger == NULL || !al_table_trigger_fires(trigger))
		return NULL;
	table = al_table_get(rel, trigger);
	if (table->table_id == 0)
		al_register_table(table);
	return table;
}

/*
 * audit_log._baseline(table regclass) RETURNS bigint: logs each row of a table
 * and its partitions as SNAPSHOT; returns how many.  For enable(), which holds
 * the lock.
 */
PG_FUNCTION_INFO_V1(audit_log_baseline);
Datum
audit_log_baseline(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	int64		rows = 0;
	List	   *relids;
	ListCell   *lc;

	/* ordinary inheritance children are tables of their own */
	relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, ShareRowExclusiveLock, NULL) : list_make1_oid(relid);
	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), NoLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION)
		{
			AlTable    *table = tracked(rel);

			if (table == NULL)
				elog(ERROR, "table \"%s\" has no audit trigger",
					 RelationGetRelationName(rel));
			rows += log_all_rows(table, rel, AL_SNAPSHOT);
		}
		table_close(rel, NoLock);
	}
	al_writer_flush();
	PG_RETURN_INT64(rows);
}

/* ---- TRUNCATE ---- */

static bool
has_truncate_trigger(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_TRUNCATE_TRIGGER,
										   al_catalog_get()->capture_truncate);

	return trigger != NULL && al_table_trigger_fires(trigger);
}

static void
note_truncated(const AlTable *table)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Truncated  *t = palloc(sizeof(Truncated));

	t->relid = table->relid;
	t->root = table->root;
	t->subid = GetCurrentSubTransactionId();
	truncated = lappend(truncated, t);
	MemoryContextSwitchTo(old);
}

static bool
is_truncated(Oid relid)
{
	ListCell   *lc;

	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->relid == relid)
			return true;
	return false;
}

/*
 * A partition whose own trigger is missing would lose its rows: its root's
 * TRUNCATE logs them.
 */
static void
log_partitions_without_trigger(Relation root)
{
	List	   *relids = find_all_inheritors(RelationGetRelid(root), NoLock, NULL);
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		if (rel->rd_rel->relkind == RELKIND_RELATION && !has_truncate_trigger(rel))
		{
			AlTable    *table = tracked(rel);

			if (table != NULL)
				log_all_rows(table, rel, AL_DELETE);
		}
		table_close(rel, NoLock);
	}
}

PG_FUNCTION_INFO_V1(audit_log_capture_truncate);
Datum
audit_log_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_protocol(fcinfo, "audit_log.capture_truncate", false, false);
	Relation	rel = data->tg_relation;
	Activity	activity = {.action = "TRUNCATE",.rel = rel};
	ErrorContextCallback callback = {.callback = report_activity,.arg = &activity,
	.previous = error_context_stack};
	AlTable    *table;

	error_context_stack = &callback;
	table = tracked(rel);
	if (table != NULL && !al_register_paused(table->table_id))
	{
		if (table->settings->on_truncate == AL_TRUNCATE_FORBID)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("TRUNCATE of table \"%s.%s\" is forbidden", table->schema, table->name),
					 errdetail("The table's audit has the setting on_truncate with \"forbid\"."),
					 errhint("Use DELETE, or audit_log.enable() with another on_truncate.")));
		if (table->settings->on_truncate == AL_TRUNCATE_ROWS && wanted(table, AL_DELETE))
		{
			if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
				log_partitions_without_trigger(rel);
			else
				log_all_rows(table, rel, AL_DELETE);
		}
		note_truncated(table);
	}
	error_context_stack = callback.previous;
	return PointerGetDatum(NULL);
}

static Jsonb *
partition_object(Oid relid)
{
	char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
												  get_rel_name(relid));
	AlValue		value = {.kind = AL_STRING,.string = name,.len = strlen(name)};
	StringInfoData buf;
	AlJsonFrame frame;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, 1);
	al_jsonbuild_key(&frame, "partition", strlen("partition"));
	al_jsonbuild_value(&frame, &value);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* The event of one relation's TRUNCATE; a partition's bears its name. */
static void
log_truncate_event(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	AlTable    *table = tracked(rel);

	if (table != NULL && wanted(table, AL_TRUNCATE))
	{
		AlEntry		entry;

		fill_entry(&entry, table, AL_TRUNCATE, GetCurrentCommandId(true), NULL);
		if (table->root != relid)
			entry.changes = partition_object(relid);
		al_writer_add(&entry);
		if (table->settings->on_truncate == AL_TRUNCATE_EVENT)
			al_register_state(table, "gap", "{\"reason\": \"on_truncate is event\"}");
	}
	table_close(rel, NoLock);
}

static bool
ancestor_truncated(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	List	   *ancestors = rel->rd_rel->relispartition ?
		get_partition_ancestors(relid) : NIL;
	ListCell   *lc;
	bool		found = false;

	table_close(rel, NoLock);
	foreach(lc, ancestors)
		found |= is_truncated(lfirst_oid(lc));
	return found;
}

/*
 * After TRUNCATE: one event for the root if it was emptied, else one for each
 * partition that was named.  The first trigger of the statement that fires
 * for a root does it for all relations under it.
 */
static void
finish_truncate(Oid root)
{
	List	   *events = NIL;
	ListCell   *lc;

	foreach(lc, truncated)
	{
		Truncated  *t = lfirst(lc);

		if (t->root == root && !ancestor_truncated(t->relid))
			events = list_append_unique_oid(events, t->relid);
	}
	foreach(lc, truncated)
		if (((Truncated *) lfirst(lc))->root == root)
			truncated = foreach_delete_current(truncated, lc);
	foreach(lc, events)
		log_truncate_event(lfirst_oid(lc));
}

PG_FUNCTION_INFO_V1(audit_log_capture_flush);
Datum
audit_log_capture_flush(PG_FUNCTION_ARGS)
{
	TriggerData *data = check_protocol(fcinfo, "audit_log.capture_flush", false, true);
	Activity	activity = {.action = "changes",.rel = data->tg_relation};
	ErrorContextCallback callback = {.callback = report_activity,.arg = &activity,
	.previous = error_context_stack};

	error_context_stack = &callback;
	if (truncated != NIL && TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
		finish_truncate(al_table_root(data->tg_relation));
	if (held != NIL)
		settle_held(InvalidOid, trigger_depth());
	al_writer_flush();
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
	if (truncated != NIL || held != NIL)
	{
		/* conditions and encoders may want a snapshot, a commit has none */
		PushActiveSnapshot(GetTransactionSnapshot());
		while (truncated != NIL)
			finish_truncate(((Truncated *) linitial(truncated))->root);
		settle_held(InvalidOid, 0);
		PopActiveSnapshot();
	}
	al_writer_flush();
}

static void
end_transaction(bool commit)
{
	held = NIL;					/* went with TopTransactionContext */
	truncated = NIL;
	row_cxt_used = false;
	al_writer_end_transaction();
	al_session_end_transaction();
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
		case XACT_EVENT_PRE_PREPARE:
			finish_transaction();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			end_transaction(true);
			break;
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
			foreach(lc, truncated)
				if (((Truncated *) lfirst(lc))->subid == subid)
					((Truncated *) lfirst(lc))->subid = parent;
			al_writer_commit_sub(subid, parent);
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
			foreach(lc, truncated)
				if (((Truncated *) lfirst(lc))->subid == subid)
					truncated = foreach_delete_current(truncated, lc);
			al_writer_abort_sub(subid);
			al_session_abort_sub(subid);
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
