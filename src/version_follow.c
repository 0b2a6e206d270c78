/*
 * version_follow.c
 *		What of ALTER TABLE, GRANT and REVOKE needs more than SQL to be followed
 *		by a version table: conversions of values, and the tables a command names.
 *
 * ALTER COLUMN … TYPE converts by an expression of the user's, or by a cast that
 * may be the user's.  Its results are computed as the role that ran the command,
 * in a query over the version table, and then written by us as plain values
 * (design.md, section 10).
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "audit_log.h"

/* one column whose type has changed */
typedef struct Conversion
{
	char	   *name;
	char	   *definition;		/* type and collation in the version table */
	Node	   *expression;		/* raw; of USING, else the column itself */
	Oid			from;			/* its type in the version table */
	Oid			type;			/* and what it gets */
	int32		typmod;
	bool		plain;			/* ALTER TABLE can do it without anybody's code */
} Conversion;

/* ---- expressions ---- */

/* USING of this column in the command, or a reference to the column itself. */
static Node *
find_expression(const char *column)
{
	const AlterTableStmt *stmt = (const AlterTableStmt *) al_own_command;
	ColumnRef  *ref = makeNode(ColumnRef);
	ListCell   *lc;

	if (stmt != NULL && IsA(stmt, AlterTableStmt))
		foreach(lc, stmt->cmds)
		{
			AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

			if (cmd->subtype == AT_AlterColumnType && strcmp(cmd->name, column) == 0 &&
				((ColumnDef *) cmd->def)->raw_default != NULL)
				return copyObject(((ColumnDef *) cmd->def)->raw_default);
		}
	ref->fields = list_make1(makeString(pstrdup(column)));
	ref->location = -1;
	return (Node *) ref;
}

/* p_paramref_hook: $n is the n-th conversion's expression, as its new type. */
static Node *
converted(ParseState *pstate, ParamRef *param)
{
	List	   *conversions = pstate->p_ref_hook_state;
	Conversion *c = list_nth(conversions, param->number - 1);
	Node	   *expr = transformExpr(pstate, copyObject(c->expression), EXPR_KIND_SELECT_TARGET);
	Oid			type = exprType(expr);

	expr = coerce_to_target_type(pstate, expr, type, c->type, c->typmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
	if (expr == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("versions of column \"%s\" cannot be cast from %s to %s", c->name,
						format_type_be(type), format_type_be(c->type)),
				 errhint("Give ALTER COLUMN … TYPE … a USING expression.")));
	return expr;
}

static void
set_hooks(ParseState *pstate, void *arg)
{
	pstate->p_paramref_hook = converted;
	pstate->p_ref_hook_state = arg;
}

/* The error context of what the user's expressions do. */
static void
report_conversion(void *arg)
{
	errhint("A version that is closed may hold what the new type does not: give ALTER COLUMN … TYPE … a USING expression that takes it, or run audit_log.enable(…, versioned => false) first.");
	errcontext("audit_log converting the versions of table \"%s\"", (const char *) arg);
}

/*
 * Place and new values of each version, as the role that ran the command; they
 * are read under the name of the table itself, so that table.column in USING
 * means them too.
 */
static Tuplestorestate *
compute(List *conversions, const char *versions, const char *alias, TupleDesc *desc)
{
	StringInfoData sql;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);
	MemoryContext cxt = CurrentMemoryContext;
	AlOwn		saved;

	SetTuplestoreDestReceiverParams(dest, store, cxt, false, NULL, NULL);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s.ctid", quote_identifier(alias));
	for (int i = 1; i <= list_length(conversions); i++)
		appendStringInfo(&sql, ", $%d AS c%d", i, i);
	appendStringInfo(&sql, " FROM ONLY %s AS %s", versions, quote_identifier(alias));

	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		SPIPrepareOptions prepare = {.parserSetup = set_hooks,.parserSetupArg = conversions};
		SPIExecuteOptions execute = {.read_only = false,.dest = dest};
		SPIPlanPtr	plan;

		SPI_connect();
		plan = SPI_prepare_extended(sql.data, &prepare);
		if (plan == NULL || SPI_execute_plan_extended(plan, &execute) < 0)
			elog(ERROR, "could not run \"%s\"", sql.data);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();

	*desc = CreateTemplateTupleDesc(list_length(conversions) + 1);
	TupleDescInitEntry(*desc, 1, "ctid", TIDOID, -1, 0);
	for (int i = 0; i < list_length(conversions); i++)
	{
		Conversion *c = list_nth(conversions, i);

		TupleDescInitEntry(*desc, i + 2, "value", c->type, c->typmod, 0);
	}
	AL_TUPLE_DESC_FINALIZE(*desc);
	return store;
}

/* ---- the version table ---- */

static void
run(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not run \"%s\"", sql);
}

/* Writes the values into columns made for it, which the columns then become. */
static void
write_values(List *conversions, const char *versions, Tuplestorestate *store, TupleDesc desc)
{
	int			n = list_length(conversions);
	Oid		   *types = palloc(sizeof(Oid) * (n + 1));
	char	   *nulls = palloc(n + 1);
	StringInfoData add;
	StringInfoData update;
	StringInfoData alter;
	SPIPlanPtr	plan;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

	initStringInfo(&add);
	initStringInfo(&update);
	initStringInfo(&alter);
	appendStringInfo(&add, "ALTER TABLE ONLY %s ", versions);
	appendStringInfo(&update, "UPDATE ONLY %s SET ", versions);
	appendStringInfo(&alter, "ALTER TABLE ONLY %s ", versions);
	types[0] = TIDOID;
	for (int i = 0; i < n; i++)
	{
		Conversion *c = list_nth(conversions, i);
		const char *comma = i ? ", " : "";

		types[i + 1] = c->type;
		appendStringInfo(&add, "%sADD COLUMN audit_log_converted_%d %s", comma, i, c->definition);
		appendStringInfo(&update, "%saudit_log_converted_%d = $%d", comma, i, i + 2);
		appendStringInfo(&alter, "%sALTER COLUMN %s TYPE %s USING audit_log_converted_%d", comma,
						 quote_identifier(c->name), c->definition, i);
	}
	appendStringInfoString(&update, " WHERE ctid OPERATOR(pg_catalog.=) $1");

	run(add.data);
	plan = SPI_prepare(update.data, n + 1, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", update.data);
	while (tuplestore_gettupleslot(store, true, false, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		for (int i = 0; i <= n; i++)
			nulls[i] = slot->tts_isnull[i] ? 'n' : ' ';
		if (SPI_execute_plan(plan, slot->tts_values, nulls, false, 0) != SPI_OK_UPDATE ||
			SPI_processed != 1)
			elog(ERROR, "could not write a version of %s", versions);
	}
	ExecDropSingleTupleTableSlot(slot);
	run(alter.data);
	for (int i = 0; i < n; i++)
		run(psprintf("ALTER TABLE ONLY %s DROP COLUMN audit_log_converted_%d", versions, i));
}

static Conversion *
make_conversion(Oid relid, Oid version_relid, const char *column)
{
	Conversion *c = palloc0(sizeof(Conversion));
	AttrNumber	attnum = get_attnum(relid, column);
	AttrNumber	version_attnum = get_attnum(version_relid, column);
	Oid			types[] = {REGCLASSOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(relid), CStringGetTextDatum(column)};
	int32		typmod;
	Oid			collation;
	Oid			function;

	c->name = pstrdup(column);
	get_atttypetypmodcoll(version_relid, version_attnum, &c->from, &typmod, &collation);
	get_atttypetypmodcoll(relid, attnum, &c->type, &c->typmod, &collation);
	if (getBaseType(c->type) != c->type && AL_DOMAIN_HAS_CONSTRAINTS(c->type))
		c->type = getBaseTypeAndTypmod(c->type, &c->typmod);
	if (SPI_execute_with_args("SELECT s.definition FROM audit_log._version_sources($1,"
							  " audit_log._trigger_settings($1, 'audit_log_row')) s"
							  " WHERE s.column_name OPERATOR(pg_catalog.=) $2::pg_catalog.name",
							  2, types, values, NULL, true, 1) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "column \"%s\" has no definition in versions", column);
	c->definition = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	c->expression = find_expression(column);
	c->plain = IsA(c->expression, ColumnRef) &&
		strcmp(strVal(llast(((ColumnRef *) c->expression)->fields)), column) == 0 &&
		c->type < FirstNormalObjectId && c->from < FirstNormalObjectId &&
		find_coercion_pathway(c->type, c->from, COERCION_ASSIGNMENT, &function) != COERCION_PATH_NONE;
	return c;
}

/* write_values() takes a column more for each, which stays as a dropped one. */
static void
check_room(Oid version_relid, const char *versions, int n)
{
	Relation	rel = table_open(version_relid, NoLock);
	int			natts = RelationGetNumberOfAttributes(rel);

	table_close(rel, NoLock);
	if (natts + n > MaxHeapAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("cannot convert versions: table %s has %d columns, dropped ones included",
						versions, natts),
				 errdetail("A converted column takes the place of one more, and a table can have %d.",
						   MaxHeapAttributeNumber),
				 errhint("Run audit_log.enable(…, versioned => false) on the table first, and audit_log.enable(…, versioned => true, version_table => …) afterwards.")));
}

/*
 * audit_log._convert_versions(target regclass, version_table regclass, columns
 * name[]) RETURNS void
 */
PG_FUNCTION_INFO_V1(audit_log_convert_versions);
Datum
audit_log_convert_versions(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Oid			version_relid = PG_GETARG_OID(1);
	char	   *versions = quote_qualified_identifier(get_namespace_name(get_rel_namespace(version_relid)),
													  get_rel_name(version_relid));
	List	   *conversions = NIL;
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	ErrorContextCallback callback = {.callback = report_conversion,
	.arg = get_rel_name(relid),.previous = error_context_stack};

	error_context_stack = &callback;
	LockRelationOid(version_relid, AccessExclusiveLock);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &elems, &nulls, &n);
	SPI_connect();
	for (int i = 0; i < n; i++)
	{
		Conversion *c = make_conversion(relid, version_relid, NameStr(*DatumGetName(elems[i])));

		if (c->plain)
			run(psprintf("ALTER TABLE ONLY %s ALTER COLUMN %s TYPE %s", versions,
						 quote_identifier(c->name), c->definition));
		else
			conversions = lappend(conversions, c);
	}
	if (conversions != NIL)
	{
		TupleDesc	desc;
		Tuplestorestate *store;

		error_context_stack = callback.previous;
		check_room(version_relid, versions, list_length(conversions));
		error_context_stack = &callback;
		store = compute(conversions, versions, get_rel_name(relid), &desc);
		write_values(conversions, versions, store, desc);
		tuplestore_end(store);
	}
	SPI_finish();
	error_context_stack = callback.previous;
	PG_RETURN_VOID();
}

/* ---- rights ---- */

/* The tables whose rights a command has changed; NULL: any. */
static ArrayType *
tables_named(const GrantStmt *stmt)
{
	Datum	   *elems;
	int			n = 0;
	ListCell   *lc;

	if (stmt->targtype == ACL_TARGET_ALL_IN_SCHEMA)
		return NULL;
	elems = palloc(sizeof(Datum) * Max(list_length(stmt->objects), 1));
	foreach(lc, stmt->objects)
	{
		Oid			relid = RangeVarGetRelid(lfirst_node(RangeVar, lc), NoLock, true);

		if (OidIsValid(relid))
			elems[n++] = ObjectIdGetDatum(relid);
	}
	return construct_array(elems, n, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT);
}

/* Runs a query about the tables, as the owner; for each oid it gives, a lock. */
static void
run_for_tables(const char *sql, Datum tables, bool any, bool lock)
{
	Oid			types[] = {REGCLASSARRAYOID};
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute_with_args(sql, 1, types, &tables, any ? "n" : " ", false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not run \"%s\"", sql);
		for (uint64 i = 0; lock && i < SPI_processed; i++)
		{
			bool		isnull;
			Datum		relid = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

			/* not the relation's own lock: who reads or writes it does not wait */
			LockDatabaseObject(RelationRelationId, DatumGetObjectId(relid), 1, ExclusiveLock);
		}
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * Event trigger of GRANT, REVOKE and what else moves rights.  At the end it
 * gives the version tables theirs.  Two commands that write the rights of one
 * relation at the same time fail ("tuple concurrently updated"), as those of a
 * table and of its version table would, which a parallel restore runs side by
 * side: so at the start they wait for each other.
 */
PG_FUNCTION_INFO_V1(audit_log_on_rights);
Datum
audit_log_on_rights(PG_FUNCTION_ARGS)
{
	const Node *command;
	ArrayType  *tables = NULL;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager",
						"audit_log.on_rights")));
	command = ((EventTriggerData *) fcinfo->context)->parsetree;
	if (al_own_active())
		PG_RETURN_NULL();
	if (command != NULL && IsA(command, GrantStmt))
	{
		const GrantStmt *stmt = (const GrantStmt *) command;

		if (stmt->objtype != OBJECT_TABLE || stmt->targtype == ACL_TARGET_DEFAULTS)
			PG_RETURN_NULL();
		tables = tables_named(stmt);
	}
	if (strcmp(((EventTriggerData *) fcinfo->context)->event, "ddl_command_start") == 0)
		run_for_tables("SELECT audit_log._rights_to_lock($1)", PointerGetDatum(tables), tables == NULL, true);
	else
		run_for_tables("SELECT audit_log._follow_rights($1)", PointerGetDatum(tables), tables == NULL, false);
	PG_RETURN_NULL();
}
