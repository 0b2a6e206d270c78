/*
 * manage.c
 *		SQL entry points other than capture: the session's context, the guards
 *		of the log's tables, and the passage to the owner's rights.
 *
 * A public function that needs the owner's rights is declared in SQL with the
 * symbol audit_log_as_owner.  It calls audit_log._<its name> as the owner of
 * the log, with the caller's role as first argument, so that the inner
 * function, in SQL or PL/pgSQL, can look at the rights of whoever asks.  (A
 * SECURITY DEFINER function cannot tell who called it.)
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "commands/extension.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* ---- context ---- */

static void
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

/* audit_log.set_context(user_id text, context jsonb) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_set_context);
Datum
audit_log_set_context(PG_FUNCTION_ARGS)
{
	set_local("audit_log.user_id",
			  PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (PG_ARGISNULL(1))
		set_local("audit_log.context", "");
	else
	{
		Jsonb	   *context = PG_GETARG_JSONB_P(1);

		set_local("audit_log.context",
				  JsonbToCString(NULL, &context->root, VARSIZE(context)));
	}
	PG_RETURN_VOID();
}

/* audit_log.new_transaction() RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_new_transaction);
Datum
audit_log_new_transaction(PG_FUNCTION_ARGS)
{
	al_session_force_new();
	PG_RETURN_VOID();
}

/* audit_log.transaction_id() RETURNS bigint */
PG_FUNCTION_INFO_V1(audit_log_transaction_id);
Datum
audit_log_transaction_id(PG_FUNCTION_ARGS)
{
	al_cluster_note();
	PG_RETURN_INT64(al_session_transaction_id());
}

/* ---- guards ---- */

/* BEFORE UPDATE, DELETE or TRUNCATE of the log's tables, for each statement */
PG_FUNCTION_INFO_V1(audit_log_guard);
Datum
audit_log_guard(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "audit_log.guard")));
	if (!al_own_active())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("table \"%s.%s\" of the audit log cannot be changed",
						AL_SCHEMA, RelationGetRelationName(data->tg_relation)),
				 errdetail("The log refuses UPDATE, DELETE and TRUNCATE from everybody."),
				 errhint("CALL audit_log.maintain() removes what is older than its retention.")));
	return PointerGetDatum(NULL);
}

/* ---- as the owner ---- */

static void
add_param(ParamListInfo params, int i, Oid type, Datum value, bool isnull)
{
	params->params[i].value = value;
	params->params[i].isnull = isnull;
	params->params[i].pflags = PARAM_FLAG_CONST;
	params->params[i].ptype = type;
}

/* The call's arguments behind the caller's role, as parameters. */
static ParamListInfo
make_params(FunctionCallInfo fcinfo, const Oid *types, int nargs)
{
	ParamListInfo params = makeParamList(nargs + 1);

	add_param(params, 0, OIDOID, ObjectIdGetDatum(GetUserId()), false);
	for (int i = 0; i < nargs; i++)
		add_param(params, i + 1, types[i], PG_GETARG_DATUM(i), PG_ARGISNULL(i));
	return params;
}

static char *
inner_call(const char *format, Oid function, int nargs)
{
	StringInfoData sql;
	StringInfoData args;
	char	   *inner = psprintf("_%s", get_func_name(function));

	initStringInfo(&args);
	for (int i = 0; i <= nargs; i++)
		appendStringInfo(&args, "%s$%d", i ? ", " : "", i + 1);
	initStringInfo(&sql);
	appendStringInfo(&sql, "%s %s.%s(%s)", format, AL_SCHEMA,
					 quote_identifier(inner), args.data);
	return sql.data;
}

static void
run_as_owner(const char *sql, ParamListInfo params, DestReceiver *dest,
			 Datum *value, bool *isnull, Oid rettype, MemoryContext cxt)
{
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPIExecuteOptions options = {.params = params,.read_only = false,.dest = dest};

		SPI_connect();
		if (SPI_execute_extended(sql, &options) < 0)
			elog(ERROR, "could not run \"%s\"", sql);
		if (value != NULL && SPI_processed == 1)
		{
			Datum		d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
										  1, isnull);

			if (!*isnull && rettype != VOIDOID)
			{
				MemoryContext old = MemoryContextSwitchTo(cxt);
				int16		typlen;
				bool		typbyval;

				get_typlenbyval(rettype, &typlen, &typbyval);
				*value = datumCopy(d, typbyval, typlen);
				MemoryContextSwitchTo(old);
			}
		}
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

PG_FUNCTION_INFO_V1(audit_log_as_owner);
Datum
audit_log_as_owner(PG_FUNCTION_ARGS)
{
	Oid			function = fcinfo->flinfo->fn_oid;
	Oid		   *types;
	int			nargs;
	Oid			rettype = get_func_signature(function, &types, &nargs);
	ParamListInfo params = make_params(fcinfo, types, nargs);
	Datum		value = (Datum) 0;
	bool		isnull = true;

	if (get_func_retset(function))
	{
		ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
		DestReceiver *dest;

		InitMaterializedSRF(fcinfo, 0);
		dest = CreateDestReceiver(DestTuplestore);
		SetTuplestoreDestReceiverParams(dest, rsinfo->setResult,
										rsinfo->econtext->ecxt_per_query_memory,
										false, rsinfo->setDesc, NULL);
		run_as_owner(inner_call("SELECT * FROM", function, nargs), params, dest,
					 NULL, NULL, rettype, NULL);
		return (Datum) 0;
	}
	run_as_owner(inner_call("SELECT", function, nargs), params, NULL,
				 &value, &isnull, rettype, CurrentMemoryContext);
	if (rettype == VOIDOID)
		PG_RETURN_VOID();
	fcinfo->isnull = isnull;
	return value;
}

/*
 * What the command did to names: NULL for nothing, "" where a relation got
 * another one, else the former name of the schema that did.
 */
static const char *
renamed_by(const Node *command)
{
	if (command != NULL && IsA(command, RenameStmt))
	{
		const RenameStmt *stmt = (const RenameStmt *) command;

		if (stmt->renameType == OBJECT_SCHEMA)
			return stmt->subname;
		/* ALTER INDEX renames tables too */
		return stmt->renameType == OBJECT_TABLE || stmt->renameType == OBJECT_INDEX ? "" : NULL;
	}
	if (command != NULL && IsA(command, AlterObjectSchemaStmt))
		return ((const AlterObjectSchemaStmt *) command)->relation != NULL ? "" : NULL;
	return NULL;
}

/*
 * Does the command leave alone all that is followed: names, columns, keys and
 * partitions?  The commands that come after CREATE TRIGGER in a dump are such:
 * a table that is restored must not be registered by them before its row of
 * tracked_table is there (pg_dump -s, then -a), nor its partitions be given
 * triggers that the dump is about to make.
 */
static bool
follows_nothing(const Node *command)
{
	ListCell   *lc;

	if (command == NULL || !IsA(command, AlterTableStmt))
		return false;
	foreach(lc, ((const AlterTableStmt *) command)->cmds)
	{
		const AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		switch (cmd->subtype)
		{
			case AT_EnableTrig:
			case AT_EnableAlwaysTrig:
			case AT_EnableReplicaTrig:
			case AT_DisableTrig:
			case AT_EnableTrigAll:
			case AT_DisableTrigAll:
			case AT_EnableTrigUser:
			case AT_DisableTrigUser:
			case AT_EnableRowSecurity:
			case AT_DisableRowSecurity:
			case AT_ForceRowSecurity:
			case AT_NoForceRowSecurity:
			case AT_ChangeOwner:
				break;
			case AT_AddConstraint:
				if (!IsA(cmd->def, Constraint) ||
					((const Constraint *) cmd->def)->contype != CONSTR_FOREIGN)
					return false;
				break;
			default:
				return false;
		}
	}
	return true;
}

/*
 * May the command have made a table a partition?  Asked of the command, not of
 * the catalogs: while a dump is restored, partitions lack triggers that it is
 * about to make.
 */
static bool
may_attach(const Node *command)
{
	ListCell   *lc;

	if (command == NULL || !IsA(command, AlterTableStmt))
		return true;
	foreach(lc, ((const AlterTableStmt *) command)->cmds)
		if (lfirst_node(AlterTableCmd, lc)->subtype == AT_AttachPartition)
			return true;
	return false;
}

/* The table that the command has detached from its parent, if any. */
static Oid
detached_by(const Node *command)
{
	ListCell   *lc;

	if (command == NULL || !IsA(command, AlterTableStmt))
		return InvalidOid;
	foreach(lc, ((const AlterTableStmt *) command)->cmds)
	{
		const AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_DetachPartition ||
			cmd->subtype == AT_DetachPartitionFinalize)
			return RangeVarGetRelid(((const PartitionCmd *) cmd->def)->name, NoLock, true);
	}
	return InvalidOid;
}

/*
 * The event triggers: audit_log._<function's name>(caller, renamed, unfollowed,
 * attaching, detached) as the owner, unless the command is one of our own.
 */
PG_FUNCTION_INFO_V1(audit_log_on_event);
Datum
audit_log_on_event(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager",
						get_func_name(fcinfo->flinfo->fn_oid))));
	if (!al_own_active())
	{
		Datum		value;
		bool		isnull;
		const Node *command = ((EventTriggerData *) fcinfo->context)->parsetree;
		const Node *outer = al_own_command;
		const char *renamed = renamed_by(command);
		ParamListInfo params = makeParamList(5);

		add_param(params, 0, OIDOID, ObjectIdGetDatum(GetUserId()), false);
		add_param(params, 1, TEXTOID, renamed ? CStringGetTextDatum(renamed) : (Datum) 0,
				  renamed == NULL);
		add_param(params, 2, BOOLOID, BoolGetDatum(follows_nothing(command)), false);
		add_param(params, 3, BOOLOID, BoolGetDatum(may_attach(command)), false);
		add_param(params, 4, OIDOID, ObjectIdGetDatum(detached_by(command)), false);

		/* what is run in between may be DDL of its own */
		al_own_command = command;
		PG_TRY();
		{
			run_as_owner(inner_call("SELECT", fcinfo->flinfo->fn_oid, 4), params,
						 NULL, &value, &isnull, VOIDOID, CurrentMemoryContext);
		}
		PG_FINALLY();
		{
			al_own_command = outer;
		}
		PG_END_TRY();
	}
	PG_RETURN_NULL();
}

/* ---- helpers for the SQL side; granted to nobody ---- */

/* Opens a relation that has our row trigger, and gives what is known of it. */
static AlTable *
tracked_table(Relation rel)
{
	const AlCatalog *catalog = al_catalog_get();
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, catalog->capture);

	if (trigger == NULL)
		trigger = al_table_trigger(rel, NULL, catalog->capture);
	if (trigger == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not audited", RelationGetRelationName(rel)),
				 errhint("Run audit_log.enable() on it.")));
	return al_table_get(rel, trigger);
}

/*
 * audit_log._register(table regclass, kind text, detail jsonb) RETURNS int:
 * the table's id; a state of that kind begins unless kind is NULL.
 */
PG_FUNCTION_INFO_V1(audit_log_register);
Datum
audit_log_register(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	AlTable    *table = tracked_table(rel);
	char	   *kind = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *detail = NULL;

	if (!PG_ARGISNULL(2))
	{
		Jsonb	   *json = PG_GETARG_JSONB_P(2);

		detail = JsonbToCString(NULL, &json->root, VARSIZE(json));
	}
	al_register_state(table, kind, detail);

	/* or the state would say that the log is complete from here on */
	if (kind != NULL && strcmp(kind, "enabled") == 0 &&
		al_register_paused(table->table_id))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" is paused in this transaction",
						table->schema, table->name),
				 errhint("Run audit_log.enable() in the next transaction.")));
	relation_close(rel, NoLock);
	PG_RETURN_INT32(table->table_id);
}

/* audit_log._note_state(table_id int, kind text, detail jsonb) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_note_state);
Datum
audit_log_note_state(PG_FUNCTION_ARGS)
{
	char	   *detail = NULL;

	if (!PG_ARGISNULL(2))
	{
		Jsonb	   *json = PG_GETARG_JSONB_P(2);

		detail = JsonbToCString(NULL, &json->root, VARSIZE(json));
	}
	SPI_connect();
	al_register_note(PG_GETARG_INT32(0), text_to_cstring(PG_GETARG_TEXT_PP(1)), detail);
	SPI_finish();
	PG_RETURN_VOID();
}

/* audit_log._pause_here(table_id int) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_pause_here);
Datum
audit_log_pause_here(PG_FUNCTION_ARGS)
{
	al_register_pause(PG_GETARG_INT32(0));
	PG_RETURN_VOID();
}

/* audit_log._trigger_settings(table regclass, trigger text) RETURNS jsonb */
PG_FUNCTION_INFO_V1(audit_log_trigger_settings);
Datum
audit_log_trigger_settings(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	Trigger    *trigger = al_table_trigger(rel, text_to_cstring(PG_GETARG_TEXT_PP(1)),
										   al_catalog_get()->capture);
	Datum		result = (Datum) 0;

	if (trigger != NULL)
	{
		AlSettings *settings = al_settings_parse(trigger->tgnargs, trigger->tgargs,
												 RelationGetRelationName(rel));

		result = DirectFunctionCall1(jsonb_in, CStringGetDatum(al_settings_json(settings)));
	}
	relation_close(rel, NoLock);
	if (trigger == NULL)
		PG_RETURN_NULL();
	return result;
}

/* audit_log._key_columns(table regclass) RETURNS text[] */
PG_FUNCTION_INFO_V1(audit_log_key_columns);
Datum
audit_log_key_columns(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	List	   *key = al_table_key_columns(rel, NIL);
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(key), 1));
	int			n = 0;
	ListCell   *lc;

	relation_close(rel, NoLock);
	foreach(lc, key)
		elems[n++] = CStringGetTextDatum(lfirst(lc));
	PG_RETURN_ARRAYTYPE_P(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* audit_log._qualify_condition(table regclass, condition text) RETURNS text */
PG_FUNCTION_INFO_V1(audit_log_qualify_condition);
Datum
audit_log_qualify_condition(PG_FUNCTION_ARGS)
{
	Relation	rel = relation_open(PG_GETARG_OID(0), AccessShareLock);
	char	   *volatile result = NULL;
	AlOwn		saved;

	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		result = al_condition_qualify(rel, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	relation_close(rel, NoLock);
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/*
 * audit_log._run_as_caller(command text) RETURNS text: runs a command of ours
 * with the rights and the search_path of whoever called; returns the first
 * column of the first row.
 */
PG_FUNCTION_INFO_V1(audit_log_run_as_caller);
Datum
audit_log_run_as_caller(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	MemoryContext cxt = CurrentMemoryContext;
	text	   *volatile result = NULL;
	AlOwn		saved;

	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute(sql, false, 0) < 0)
			elog(ERROR, "could not run \"%s\"", sql);
		if (SPI_tuptable != NULL && SPI_processed > 0)
		{
			char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
			MemoryContext old = MemoryContextSwitchTo(cxt);

			result = value ? cstring_to_text(value) : NULL;
			MemoryContextSwitchTo(old);
		}
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/*
 * audit_log._may_read(table regclass [, role oid]) RETURNS boolean: may the
 * role (the caller) read every column, with no row security in between?
 */
PG_FUNCTION_INFO_V1(audit_log_may_read);
Datum
audit_log_may_read(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			role = PG_NARGS() > 1 ? PG_GETARG_OID(1) : GetUserId();

	PG_RETURN_BOOL(al_own_may_read(relid, role));
}

/* audit_log._is_empty(table regclass) RETURNS boolean, partitions included */
PG_FUNCTION_INFO_V1(audit_log_is_empty);
Datum
audit_log_is_empty(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	List	   *relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, AccessShareLock, NULL) : list_make1_oid(relid);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	bool		empty = true;
	ListCell   *lc;

	foreach(lc, relids)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);

		if (empty && rel->rd_rel->relkind == RELKIND_RELATION)
		{
			TupleTableSlot *slot = table_slot_create(rel, NULL);
			TableScanDesc scan = AL_TABLE_BEGINSCAN(rel, snapshot);

			empty = !table_scan_getnextslot(scan, ForwardScanDirection, slot);
			table_endscan(scan);
			ExecDropSingleTupleTableSlot(slot);
		}
		table_close(rel, NoLock);
	}
	UnregisterSnapshot(snapshot);
	PG_RETURN_BOOL(empty);
}

/*
 * audit_log._latest(query text, table regclass) RETURNS text: the one value of
 * a query of ours with the table as $1, as committed now.  The statements of a
 * function see what the transaction's snapshot does, which under REPEATABLE
 * READ may be older than the lock that enable() and the event triggers hold.
 */
PG_FUNCTION_INFO_V1(audit_log_latest);
Datum
audit_log_latest(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Oid			types[] = {REGCLASSOID};
	Datum		values[] = {PG_GETARG_DATUM(1)};
	SPIPlanPtr	plan;
	char	   *value = NULL;
	text	   *result = NULL;
	MemoryContext cxt = CurrentMemoryContext;

	SPI_connect();
	plan = SPI_prepare(sql, 1, types);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(),
							 InvalidSnapshot, true, false, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not run \"%s\"", sql);
	value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (value != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		result = cstring_to_text(value);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/*
 * audit_log._grant_apart(command text) RETURNS void: of an update script, GRANTs
 * that users made before.  What the script grants itself counts as the
 * extension's own rights, which pg_dump leaves out.
 */
PG_FUNCTION_INFO_V1(audit_log_grant_apart);
Datum
audit_log_grant_apart(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		script = creating_extension;

	creating_extension = false;
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute(sql, false, 0) < 0)
			elog(ERROR, "could not run \"%s\"", sql);
		SPI_finish();
	}
	PG_FINALLY();
	{
		creating_extension = script;
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/* audit_log._set_mask_key(key bytea) RETURNS void */
PG_FUNCTION_INFO_V1(audit_log_set_mask_key);
Datum
audit_log_set_mask_key(PG_FUNCTION_ARGS)
{
	SPI_connect();
	al_register_set_mask_key(PG_GETARG_BYTEA_P(0));
	SPI_finish();
	PG_RETURN_VOID();
}
