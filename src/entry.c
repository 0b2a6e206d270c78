/*
 * entry.c
 *		One change of one row, from the slots to the writer: attribution,
 *		content, and the memory and error context round them.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "replication/logicalworker.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/* ---- trigger protocol, error context ---- */

/* The trigger protocol, with core's own words (ri_triggers.c). */
TriggerData *
al_entry_protocol(FunctionCallInfo fcinfo, const char *function, bool row, bool after)
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

/* Error context callback; arg is an AlActivity. */
void
al_entry_report(void *arg)
{
	AlActivity *activity = arg;
	const char *schema = activity->schema;

	/*
	 * Once the table is known its schema is too: what fails later may hold
	 * locks under which no catalog must be read.
	 */
	if (schema == NULL)
		schema = get_namespace_name(RelationGetNamespace(activity->rel));

	if (geterrcode() == ERRCODE_PROGRAM_LIMIT_EXCEEDED)
		errhint("Exclude the column from the audit, or mask it: audit_log.enable(…, exclude => …).");
	errcontext("audit_log capturing %s of table \"%s.%s\"", activity->action,
			   schema ? schema : "?", RelationGetRelationName(activity->rel));
}

/* How many triggers deep is the one that runs now? */
int
al_entry_depth(void)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	return DatumGetInt32(pg_trigger_depth(fcinfo));
}

/* ---- memory ---- */

/* Memory of one row, kept between rows; a nested use gets one of its own. */
static MemoryContext row_cxt = NULL;
static bool row_cxt_used = false;

void
al_entry_memory_enter(AlRowMemory *memory)
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

void
al_entry_memory_leave(AlRowMemory *memory)
{
	MemoryContextSwitchTo(memory->old);
	row_cxt_used = memory->nested;
	if (memory->nested)
		MemoryContextDelete(memory->cxt);
	else
		MemoryContextReset(memory->cxt);
}

/* After an error nobody left. */
void
al_entry_end_transaction(void)
{
	row_cxt_used = false;
}

/* ---- attribution ---- */

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

/*
 * Attribution: everything of an entry but its ids and changes.  Begins a
 * transaction row where none in force serves, or where a version of the records
 * that the change touches bears a higher id.  look is NULL where no versions
 * are to be written.
 */
void
al_entry_attribute(AlEntry *entry, AlTable *table, AlAction action, CommandId command,
				   TupleTableSlot *old, TupleTableSlot *new, AlVersionLook *look)
{
	/*
	 * A row that is only read has nobody who claims to have written it, and in
	 * one that is taken back to what it was stands who wrote it then.
	 */
	bool		claims = (action == AL_INSERT || action == AL_UPDATE) && !al_session_undoing();
	const char *user = al_session_user(claims ? al_row_user(table, new) : NULL);

	Assert(table->table_id != 0);
	if (table->settings->require != NIL)
		check_required(table, user);
	memset(entry, 0, sizeof(AlEntry));
	if (look != NULL)
	{
		al_version_look(table, action, old, new, !al_session_is_highest(user), look);
		if (look->newest > 0)
			al_session_rise_above(user, look->newest);
	}
	entry->user = user;
	entry->transaction_id = al_writer_transaction(user);
	entry->command = command;
	entry->timestamp = GetCurrentTimestamp();
	entry->action = action;
	entry->table_id = table->table_id;
}

/* ---- one change ---- */

static void
log_change(AlTable *table, AlAction action, TupleTableSlot *old,
		   TupleTableSlot *new, CommandId command)
{
	AlEntry		change = {0};
	AlEntry		entry;
	AlVersionLook look = {0};
	bool		versioned = table->settings->versioned && action != AL_SNAPSHOT;

	al_progress_row();

	/* first what changed: an UPDATE of nothing leaves no trace at all */
	if (action == AL_UPDATE)
	{
		if (!al_row_difference(table, old, new, &change))
			return;
	}
	al_entry_attribute(&entry, table, action, command, old, new, versioned ? &look : NULL);
	if (action == AL_UPDATE)
	{
		entry.record_id = change.record_id;
		entry.old_record_id = change.old_record_id;
		entry.changes = change.changes;
	}
	else
		al_row_whole(table, new ? new : old, &entry);
	al_writer_add(&entry);
	if (versioned)
		al_version_add(table, &look, action, old, new, &entry);
	if (table->renderings != NIL)
		al_feed_change(table, action, old, new, &entry);
}

/*
 * Logs one change: old and new are the rows, NULL where there is none.  The
 * memory of one row is current.
 */
void
al_entry_log(AlTable *table, AlAction action, TupleTableSlot *old,
			 TupleTableSlot *new, CommandId command)
{
	AlFixed		saved;

	al_fixed_enter(&saved, table->need);
	PG_TRY();
	{
		log_change(table, action, old, new, command);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();

	/* under the session's own settings, which triggers of the feed may look at */
	if (al_feed_is_full())
		al_feed_flush();
}

/* Is this action of the table to be logged? */
bool
al_entry_wanted(const AlTable *table, AlAction action)
{
	return (table->settings->actions & (1 << action)) != 0;
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline bool
condition_as_owner(AlTable *table, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	AlOwn		saved;
	volatile bool result = false;

	al_own_yield_to(&saved, rel->rd_rel->relowner);
	PG_TRY();
	{
		result = al_condition_holds(table, rel, old, new);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return result;
}

/*
 * Does the table's condition, if any, hold?  For a baseline, where nobody
 * writes, it is evaluated as the table's owner.
 */
bool
al_entry_condition(AlTable *table, Relation rel, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		result;

	if (table->settings->condition == NULL)
		return true;
	result = al_own_active() ? condition_as_owner(table, rel, old, new) :
		al_condition_holds(table, rel, old, new);

	/* an exception that a function of the condition caught has undone it */
	if (result && table->table_id == 0)
		al_register_table(table);
	return result;
}
