/*
 * command_start.c
 *		What is looked at before a command changes a table: what it must not do,
 *		what it may do with our leave, and what the end of the command (follow.c)
 *		can no longer see.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "parser/parse_type.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "audit_log.h"

/* ---- ATTACH ---- */

static void
check_attach(const RangeVar *name)
{
	Oid			capture = al_catalog_get()->capture;
	Oid			relid = RangeVarGetRelid(name, NoLock, true);
	Relation	rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;

	if (rel == NULL)
		return;					/* the command's own error to tell */
	if (al_table_trigger(rel, NULL, capture) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot attach table \"%s\": it is audited by itself",
						RelationGetRelationName(rel)),
				 errdetail("A partition is audited as part of its partitioned table, or not at all."),
				 errhint("Run audit_log.disable() on \"%s\" first, or drop the trigger attached by hand; its history stays.",
						 RelationGetRelationName(rel))));
	relation_close(rel, AccessShareLock);
}

/* ---- keys before the command ---- */

/*
 * The key that a table had when ALTER TABLE began: only a command that takes it
 * away is refused, or noted.  While a dump is restored, in whatever order, a
 * table has its triggers and perhaps not its key yet, and commands that come in
 * between have nothing to do with it.
 */
typedef struct FormerKey
{
	Oid			relid;
	List	   *columns;		/* of char * */
} FormerKey;

static List *former_keys = NIL;	/* of the latest ALTER TABLE */
static MemoryContext former_keys_cxt = NULL;

/* Of the table named and those that inherit from it; a partition has its root's. */
static void
note_keys(const AlterTableStmt *stmt)
{
	Oid			relid;
	List	   *relids;
	ListCell   *lc;

	former_keys = NIL;
	if (former_keys_cxt != NULL)
		MemoryContextReset(former_keys_cxt);
	if (stmt == NULL || !IsA(stmt, AlterTableStmt) || stmt->objtype != OBJECT_TABLE)
		return;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (!OidIsValid(relid) || get_rel_relispartition(relid))
		return;
	relids = get_rel_relkind(relid) == RELKIND_RELATION && has_subclass(relid) ?
		find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	if (former_keys_cxt == NULL)
		former_keys_cxt = AllocSetContextCreate(TopMemoryContext, "audit_log former keys",
												ALLOCSET_SMALL_SIZES);
	foreach(lc, relids)
	{
		Relation	rel = try_relation_open(lfirst_oid(lc), AccessShareLock);

		if (rel == NULL)
			continue;
		if (al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture) != NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(former_keys_cxt);
			FormerKey  *key = palloc(sizeof(FormerKey));

			key->relid = lfirst_oid(lc);
			key->columns = al_table_key_columns(rel, NIL);
			former_keys = lappend(former_keys, key);
			MemoryContextSwitchTo(old);
		}
		/* not kept: two commands that both held it could not go on */
		relation_close(rel, AccessShareLock);
	}
}

/*
 * audit_log._former_key(target regclass) RETURNS text[]: the key before the
 * ALTER TABLE that has just run; NULL where no such command has.
 */
PG_FUNCTION_INFO_V1(audit_log_former_key);
Datum
audit_log_former_key(PG_FUNCTION_ARGS)
{
	ListCell   *lc;

	if (al_own_command == NULL || !IsA(al_own_command, AlterTableStmt))
		PG_RETURN_NULL();
	foreach(lc, former_keys)
	{
		FormerKey  *key = lfirst(lc);

		if (key->relid == PG_GETARG_OID(0))
		{
			Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(key->columns), 1));
			int			n = 0;
			ListCell   *column;

			foreach(column, key->columns)
				elems[n++] = CStringGetTextDatum(lfirst(column));
			PG_RETURN_ARRAYTYPE_P(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
		}
	}
	PG_RETURN_NULL();
}

/* ---- ADD COLUMN of a version table ---- */

/* The table whose versions it holds, InvalidOid where it is no version table. */
static Oid
versioned_table(Oid relid)
{
	Oid			types[] = {REGCLASSOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};
	volatile Oid result = InvalidOid;
	AlOwn		saved;

	/* where 1.0 is installed still, there are none */
	if (!OidIsValid(LookupFuncName(list_make2(makeString(AL_SCHEMA), makeString("_versioned_table")),
								   1, types, true)))
		return InvalidOid;
	al_own_enter(&saved);
	PG_TRY();
	{
		bool		isnull;
		Datum		table;

		SPI_connect();
		if (SPI_execute_with_args("SELECT audit_log._versioned_table($1)", 1, types, values,
								  NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
			elog(ERROR, "could not ask for the table of version table %u", relid);
		table = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
			result = DatumGetObjectId(table);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return result;
}

/* Is this ADD COLUMN of a column that the relation has, of the same type? */
static bool
has_column(Oid relid, const AlterTableCmd *cmd)
{
	const ColumnDef *def = (const ColumnDef *) cmd->def;
	AttrNumber	attnum;
	Oid			have;
	Oid			collation;
	int32		typmod;

	if (cmd->subtype != AT_AddColumn)
		return false;
	attnum = get_attnum(relid, def->colname);
	if (attnum <= 0)
		return false;
	get_atttypetypmodcoll(relid, attnum, &have, &typmod, &collation);
	return LookupTypeNameOid(NULL, def->typeName, true) == have;
}

/*
 * Migration tools add a column to a table and to its version table, which has
 * followed the table by then: the command that adds it there has nothing left to
 * do, as if it said IF NOT EXISTS.  Whoever does not own the version table, as
 * the owner of the table usually does not, says it of the table itself: there it
 * has nothing to do either, and is for the owner only.
 */
static void
forgive_additions(AlterTableStmt *stmt)
{
	Oid			relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	Oid			table;
	int			there = 0;
	bool		redirect = true;
	HeapTuple	tuple;
	ListCell   *lc;

	if (!OidIsValid(relid))
		return;
	foreach(lc, stmt->cmds)
		there += has_column(relid, lfirst_node(AlterTableCmd, lc));
	if (there == 0 || !OidIsValid(table = versioned_table(relid)))
		return;
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (has_column(relid, cmd))
			cmd->missing_ok = true;
		redirect &= cmd->missing_ok && has_column(table, cmd);
	}

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	if (!HeapTupleIsValid(tuple))
		return;
	redirect &= !has_privs_of_role(GetUserId(), ((Form_pg_class) GETSTRUCT(tuple))->relowner);
	ReleaseSysCache(tuple);
	if (redirect)
	{
		/* it is read when the event triggers, and their memory, are gone */
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(stmt));

		stmt->relation = makeRangeVar(get_namespace_name(get_rel_namespace(table)),
									  get_rel_name(table), -1);
		MemoryContextSwitchTo(old);
	}
}

/* ---- ALTER DOMAIN ---- */

/* Versions are older than a constraint that the domain gets now. */
static void
leave_domain(const AlterDomainStmt *stmt)
{
	Oid			domain = LookupTypeNameOid(NULL, makeTypeNameFromNameList(stmt->typeName), true);
	HeapTuple	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(domain));
	bool		owned;
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(domain)};
	AlOwn		saved;

	/* else it is the command's own error to tell */
	if (!HeapTupleIsValid(tuple))
		return;
	owned = has_privs_of_role(GetUserId(), ((Form_pg_type) GETSTRUCT(tuple))->typowner);
	ReleaseSysCache(tuple);
	if (!owned || stmt->subtype == 'N' || stmt->subtype == 'X')
		return;					/* DROP NOT NULL, DROP CONSTRAINT */

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute_with_args("SELECT audit_log._leave_domain($1)", 1, types, values,
								  NULL, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not follow ALTER DOMAIN");
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * Event trigger at the start of ALTER TABLE: a table that is audited by itself
 * cannot become a partition, not even of a table that is not audited, whose
 * enable() would then fail over the triggers' names.  At the command's end it
 * would be too late to tell the remedy.  And at the start of ALTER DOMAIN.
 */
PG_FUNCTION_INFO_V1(audit_log_on_ddl_command_start);
Datum
audit_log_on_ddl_command_start(PG_FUNCTION_ARGS)
{
	AlterTableStmt *stmt;
	ListCell   *lc;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager",
						"audit_log.on_ddl_command_start")));
	stmt = (AlterTableStmt *) ((EventTriggerData *) fcinfo->context)->parsetree;
	if (!al_own_active())
		note_keys(stmt);
	if (stmt != NULL && IsA(stmt, AlterDomainStmt) && !al_own_active())
		leave_domain((const AlterDomainStmt *) stmt);
	if (stmt != NULL && IsA(stmt, AlterTableStmt))
		foreach(lc, stmt->cmds)
		{
			AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

			if (cmd->subtype == AT_AttachPartition)
				check_attach(((PartitionCmd *) cmd->def)->name);
		}
	if (stmt != NULL && IsA(stmt, AlterTableStmt) && stmt->objtype == OBJECT_TABLE &&
		!al_own_active())
		forgive_additions(stmt);
	PG_RETURN_NULL();
}
