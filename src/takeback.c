/*
 * takeback.c
 *		undo_change(), undo_transaction(), restore_row() and rollback_to()
 *		(design.md, section 7): from what was asked for to a plan, and from
 *		the plan to the result.
 *
 * All four take changes back from the rows as they stand now: those of one
 * change or transaction, or all that a record or a table has had since a
 * moment.  The log is read as its owner, after the caller's rights were looked
 * at; tables are read and written as the caller.
 *
 * Locks, in the order of the tables' OIDs, each table before its partitions:
 * - rollback_to() aims at the state of whole tables, so others must not write
 *   them meanwhile: SHARE ROW EXCLUSIVE.
 * - The others aim at single rows, which are locked as UPDATE would: SHARE
 *   UPDATE EXCLUSIVE on the tables lets others write and keeps two that take
 *   back one after the other.  Of a table without key rows cannot be found
 *   again: SHARE ROW EXCLUSIVE.
 * - dry_run reads: ACCESS SHARE.
 * What is read is what is committed once the locks are held, whatever the
 * isolation level (run.c).
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "rewrite/prs2lock.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

/* rows that the message of a refusal names */
#define SHOWN_CONFLICTS 20
/* cascades may change what was written; each round leaves less to them */
#define MAX_ROUNDS 5

typedef enum TakeKind
{
	TAKE_CHANGE,
	TAKE_TRANSACTION,
	TAKE_RECORD,
	TAKE_TABLES
} TakeKind;

typedef struct Take
{
	TakeKind	kind;
	int64		number;			/* of the change or transaction */
	int64		transaction_id; /* one row of the database transaction */
	List	   *tables;			/* OIDs; NIL: all that are concerned */
	List	   *record_ids;		/* char *; NIL: all */
	char	   *asked_id;		/* of restore_row, as it was given */
	bool		same_xid;
	AlMoment   *moment;
	bool		dry_run;
	bool		force;
	bool		user_triggers;

	AlPlan		plan;
	List	   *ours;			/* transaction rows that are taken back: int64 * */
	List	   *walks;			/* AlWalk *, one for each table of the plan */
	ReturnSetInfo *rsinfo;
} Take;

/* ---- arguments ---- */

static void
refuse_null(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be NULL", name)));
}

/* dry_run, force and user_triggers are the last three arguments of each. */
static void
read_options(Take *take, FunctionCallInfo fcinfo, int first)
{
	refuse_null(fcinfo, first, "dry_run");
	refuse_null(fcinfo, first + 1, "force");
	refuse_null(fcinfo, first + 2, "user_triggers");
	take->dry_run = PG_GETARG_BOOL(first);
	take->force = PG_GETARG_BOOL(first + 1);
	take->user_triggers = PG_GETARG_BOOL(first + 2);
}

static List *
read_tables(ArrayType *array)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	List	   *result = NIL;

	deconstruct_array(array, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("tables must not contain NULL")));
		result = list_append_unique_oid(result, DatumGetObjectId(elems[i]));
	}
	return result;
}

static List *
read_texts(ArrayType *array)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	List	   *result = NIL;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("record_ids must not contain NULL")));
		result = lappend(result, TextDatumGetCString(elems[i]));
	}
	return result;
}

/* ---- rights ---- */

static char *
table_text(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static void
check_table(const Take *take, Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	if (relkind == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("%s is not a table", table_text(relid))));
	if (get_rel_relispartition(relid))
	{
		List	   *ancestors = get_partition_ancestors(relid);

		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("partition %s is not audited by itself", table_text(relid)),
				 errhint("Name the whole table: %s.", table_text(llast_oid(ancestors)))));
	}
	if (!al_own_may_read(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for the log of table %s", table_text(relid)),
				 errdetail("The log of a table is for those who may SELECT all its columns, with no row security in between.")));
	if (!take->user_triggers && !AL_OWNS_TABLE(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table %s", table_text(relid)),
				 errdetail("Holding off its triggers (user_triggers => false) is its owner's right.")));
}

/* What the plan writes, so that dry_run refuses what the run would. */
static void
check_write_rights(AlPlanTable *table)
{
	AclMode		needed = 0;
	Bitmapset  *updated = NULL;
	int			attnum = -1;

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		if (row->left_out)
			continue;
		if (row->action == AL_PLAN_DELETE || row->replace)
			needed |= ACL_DELETE;
		if (row->action == AL_PLAN_UPDATE && !row->replace)
			updated = bms_add_members(bms_add_members(updated, row->columns), row->park);
		if ((row->action == AL_PLAN_INSERT || row->replace) && (needed & ACL_INSERT) == 0 &&
			pg_class_aclcheck(table->relid, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
		{
			int			column = -1;

			while ((column = bms_next_member(row->columns, column)) >= 0)
				if (pg_attribute_aclcheck(table->relid, column, GetUserId(), ACL_INSERT) != ACLCHECK_OK)
					needed |= ACL_INSERT;
		}
	}
	if (pg_class_aclcheck(table->relid, GetUserId(), ACL_UPDATE) != ACLCHECK_OK)
		while ((attnum = bms_next_member(updated, attnum)) >= 0)
			if (pg_attribute_aclcheck(table->relid, attnum, GetUserId(), ACL_UPDATE) != ACLCHECK_OK)
				needed |= ACL_UPDATE;
	if (needed != 0 && pg_class_aclmask(table->relid, GetUserId(), needed, ACLMASK_ALL) != needed)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(table->relid));
}

/* ---- which tables ---- */

/* As the owner of the log: the relation that bears the name of a tracked table. */
static Oid
relation_of(int32 table_id)
{
	Oid			types[] = {INT4OID};
	Datum		args[] = {Int32GetDatum(table_id)};
	AlOwn		saved;
	volatile Oid relid = InvalidOid;

	al_own_enter(&saved);
	PG_TRY();
	{
		if (SPI_execute_with_args("SELECT c.oid FROM audit_log.tracked_table t"
								  " JOIN pg_catalog.pg_namespace n ON n.nspname = t.table_schema"
								  " JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name"
								  " WHERE t.id = $1 AND t.dropped_at IS NULL AND c.relkind IN ('r', 'p')",
								  1, types, args, NULL, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read audit_log.tracked_table");
		if (SPI_processed == 1)
		{
			bool		isnull;

			relid = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												   1, &isnull));
		}
		SPI_freetuptable(SPI_tuptable);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return relid;
}

static void
no_such(const Take *take)
{
	if (take->kind == TAKE_CHANGE)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("change %lld is not in the log", (long long) take->number),
				 errhint("A change's number is its id in audit_log.audit_logs.")));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("transaction %lld has no changes in the log", (long long) take->number),
			 errhint("A transaction's number is its id in audit_log.transactions.")));
}

/* The tables of a change or of a transaction that the caller asks for and may know of. */
static List *
concerned_tables(Take *take)
{
	AlLogChange change;
	List	   *table_ids;
	List	   *result = NIL;
	bool		hidden = false;
	ListCell   *lc;

	foreach(lc, take->tables)
		check_table(take, lfirst_oid(lc));
	if (take->kind == TAKE_CHANGE)
	{
		if (!al_logread_change(take->number, &change))
			no_such(take);
		take->transaction_id = change.transaction_id;
		table_ids = list_make1_int(change.table_id);
	}
	else
	{
		take->transaction_id = take->number;
		take->ours = al_logread_transaction_rows(take->number, take->same_xid);
		table_ids = al_logread_table_ids(take->ours);
	}
	foreach(lc, table_ids)
	{
		Oid			relid = relation_of(lfirst_int(lc));

		if (take->tables != NIL && !list_member_oid(take->tables, relid))
			continue;
		if (!OidIsValid(relid) || !al_own_may_read(relid, GetUserId()))
			hidden = true;
		else
			result = lappend_oid(result, relid);
	}
	if (result == NIL && (take->tables == NIL || take->kind == TAKE_CHANGE))
		no_such(take);
	/* whoever wants part of it says so */
	if (hidden && take->tables == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("transaction %lld cannot be taken back as a whole", (long long) take->number),
				 errdetail("It has changes of tables that are dropped, or whose log the caller may not read."),
				 errhint("Name the tables to take back: tables => '{…}'.")));
	return result;
}

/* ---- opening ---- */

static LOCKMODE
lock_mode(const Take *take)
{
	if (take->dry_run)
		return AccessShareLock;
	return take->kind == TAKE_TABLES ? ShareRowExclusiveLock : ShareUpdateExclusiveLock;
}

static void
lock_members(Relation rel, LOCKMODE mode)
{
	/* inheritance children are tables of their own */
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		(void) find_all_inheritors(RelationGetRelid(rel), mode, NULL);
}

static int
compare_oids(const ListCell *a, const ListCell *b)
{
	return lfirst_oid(a) < lfirst_oid(b) ? -1 : lfirst_oid(a) > lfirst_oid(b);
}

static AlTable *
tracked(Relation rel)
{
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture);

	if (trigger == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is not audited", table_text(RelationGetRelid(rel))),
				 errdetail("What is taken back is logged itself."),
				 errhint("Run audit_log.enable() on it.")));
	return al_table_get(rel, trigger);
}

/* A rule may put anything, or nothing, in the place of what is to be written. */
static void
refuse_rules(Relation rel)
{
	for (int i = 0; rel->rd_rules != NULL && i < rel->rd_rules->numLocks; i++)
		if (rel->rd_rules->rules[i]->isInstead)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("table %s has an INSTEAD rule", table_text(RelationGetRelid(rel))),
					 errdetail("What is taken back could not be written."),
					 errhint("Use a trigger in its place.")));
}

static void
open_table(Take *take, Oid relid)
{
	LOCKMODE	mode = lock_mode(take);
	Relation	rel;
	AlTable    *table;
	AlStates   *states;
	MemoryContext old;

	rel = table_open(relid, mode);
	lock_members(rel, mode);
	/* rights and the table's kind, now that nobody can change them */
	check_table(take, relid);
	table = tracked(rel);
	refuse_rules(rel);
	if (table->nkeys == 0 && mode == ShareUpdateExclusiveLock)
	{
		LockRelationOid(relid, ShareRowExclusiveLock);
		lock_members(rel, ShareRowExclusiveLock);
	}
	old = MemoryContextSwitchTo(take->plan.cxt);
	states = al_states_read(rel);
	take->walks = lappend(take->walks,
						  al_walk_make(&take->plan, al_plan_add_table(&take->plan, rel, table, states->table_id),
									   states));
	MemoryContextSwitchTo(old);
}

static void
open_tables(Take *take, List *relids)
{
	ListCell   *lc;

	relids = list_copy(relids);
	list_sort(relids, compare_oids);
	/* before any lock is waited for */
	foreach(lc, relids)
		check_table(take, lfirst_oid(lc));
	foreach(lc, relids)
		open_table(take, lfirst_oid(lc));
}

static AlWalk *
walk_of(Take *take, int32 table_id)
{
	ListCell   *lc;

	foreach(lc, take->walks)
		if (((AlWalk *) lfirst(lc))->table->table_id == table_id)
			return lfirst(lc);
	return NULL;
}

/* ---- reading the log ---- */

static void
walk_change(const AlLogChange *change, void *arg)
{
	Take	   *take = arg;
	AlWalk	   *walk = walk_of(take, change->table_id);

	if (walk == NULL)
		return;
	/* with on_truncate => 'event' the rows that went were not logged */
	if (change->action == AL_TRUNCATE && walk->undone)
	{
		const AlState *state = al_states_at(walk->states, change->id);
		JsonbValue	buf;

		if (state != NULL && JB_ROOT_IS_OBJECT(state->settings) &&
			getKeyJsonValueFromContainer(&state->settings->root, "on_truncate", 11, &buf) != NULL)
		{
			MemoryContext old = MemoryContextSwitchTo(take->plan.cxt);

			walk->table->obstacles =
				lappend(walk->table->obstacles,
						psprintf("TRUNCATE (change %lld) removed rows that were not logged", (long long) change->id));
			MemoryContextSwitchTo(old);
		}
	}
	al_walk_change(walk, change);
	al_progress_add(1);
}

/* A change that stands for no row of its own is none to take back. */
static void
refuse_event(const Take *take, const AlLogChange *change)
{
	if (((AlWalk *) linitial(take->walks))->table->obstacles != NIL)
		return;
	if (change->action == AL_TRUNCATE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("change %lld is the event of a TRUNCATE", (long long) change->id),
				 errdetail("The rows that it removed are changes of their own, each a DELETE."),
				 errhint("audit_log.undo_transaction(%lld) takes them back.", (long long) change->transaction_id)));
	if (change->action == AL_SNAPSHOT)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("change %lld is a SNAPSHOT", (long long) change->id),
				 errdetail("It is a row as it stood when tracking began: nothing was changed.")));
}

/* Turns what stands in the way of looking back into obstacles of the plan. */
static void
note_obstacles(Take *take, AlWalk *walk)
{
	MemoryContext old = MemoryContextSwitchTo(take->plan.cxt);
	bool		went;
	List	   *obstacles = al_states_obstacles(walk->states, take->moment, &went);
	ListCell   *lc;

	/* rows that came and went with a partition are not there, nor were they then: plan.c */
	(void) went;
	foreach(lc, obstacles)
	{
		AlObstacle *obstacle = lfirst(lc);

		walk->table->obstacles = lappend(walk->table->obstacles, pstrdup(obstacle->what));
		walk->table->usable = bms_del_members(walk->table->usable, obstacle->columns);
	}
	MemoryContextSwitchTo(old);
}

static char *
record_id_of(AlPlanTable *table, const char *asked)
{
	char	   *id = al_present_record_id(table, asked);

	if (table->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table %s has no key", table->name),
				 errdetail("Its records cannot be told apart."),
				 errhint("rollback_to() restores the whole table.")));
	if (id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no record id of table %s", asked, table->name),
				 errdetail("Its key has %d columns.", table->nkeys),
				 errhint("The id of several columns is a JSON array of their texts: [\"a\", \"1\"].")));
	return id;
}

typedef struct Asked
{
	AlPlanTable *table;
	const char *id;
	char	   *found;
} Asked;

static void
read_asked(void *arg)
{
	Asked	   *asked = arg;

	asked->found = al_present_record_id(asked->table, asked->id);
}

/* What is asked for as this table's ids; of other tables' ids it may read nothing. */
static List *
record_ids_of(Take *take, AlPlanTable *table)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, take->record_ids)
	{
		Asked		asked = {table, lfirst(lc), NULL};
		MemoryContext old = MemoryContextSwitchTo(take->plan.cxt);

		(void) al_plan_try(read_asked, &asked);
		result = lappend(result, asked.found ? asked.found : pstrdup(lfirst(lc)));
		MemoryContextSwitchTo(old);
	}
	return result;
}

static void
read_log(Take *take)
{
	ListCell   *lc;

	al_progress_begin(AL_PROGRESS_LOG, 0);
	foreach(lc, take->walks)
	{
		AlWalk	   *walk = lfirst(lc);

		walk->undone = take->kind == TAKE_CHANGE || take->kind == TAKE_TRANSACTION;
		if (take->kind == TAKE_TRANSACTION)
			walk->record_ids = record_ids_of(take, walk->table);
	}
	switch (take->kind)
	{
		case TAKE_CHANGE:
			{
				AlLogChange change;

				if (!al_logread_change(take->number, &change))
					no_such(take);
				walk_change(&change, take);
				refuse_event(take, &change);
				break;
			}
		case TAKE_TRANSACTION:
			al_logread_transactions(take->ours, walk_change, take);
			break;
		case TAKE_RECORD:
			note_obstacles(take, linitial(take->walks));
			if (take->record_ids == NIL)
				take->record_ids = list_make1(record_id_of(((AlWalk *) linitial(take->walks))->table,
														   take->asked_id));
			al_logread_records(((AlWalk *) linitial(take->walks))->table->table_id, take->record_ids,
							   take->moment, true, walk_change, take);
			break;
		case TAKE_TABLES:
			foreach(lc, take->walks)
			{
				AlWalk	   *walk = lfirst(lc);

				note_obstacles(take, walk);
				al_logread_table(walk->table->table_id, take->moment, walk_change, take);
			}
			break;
	}
	foreach(lc, take->walks)
		al_walk_end(lfirst(lc));
}

/* ---- the plan ---- */

static void
find_rows(Take *take)
{
	int64		total = 0;
	ListCell   *lc;

	foreach(lc, take->plan.tables)
		total += ((AlPlanTable *) lfirst(lc))->nrows;
	al_progress_begin(AL_PROGRESS_ROWS, total);
	foreach(lc, take->plan.tables)
	{
		AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
			table->rows[i]->looked_id = table->rows[i]->id;
		/* in tables that nobody else may write rows stay as they are */
		al_present_find(&take->plan, table, !take->dry_run && take->kind != TAKE_TABLES);
	}
}

static void
decide(Take *take)
{
	MemoryContext old = MemoryContextSwitchTo(take->plan.cxt);
	ListCell   *lc;

	al_progress_begin(AL_PROGRESS_CONFLICTS, 0);
	foreach(lc, take->plan.tables)
	{
		AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
		{
			CHECK_FOR_INTERRUPTS();
			al_revert_row(table->rows[i]);
		}
		al_plan_pair(table);
		for (int i = 0; i < table->nrows; i++)
			al_plan_decide(table->rows[i]);
		al_values_decode(table);
	}
	MemoryContextSwitchTo(old);
	al_obstacle_find(&take->plan);
	foreach(lc, take->plan.tables)
		check_write_rights(lfirst(lc));
}

static void
make_plan(Take *take)
{
	PushActiveSnapshot(al_run_snapshot());
	read_log(take);
	PopActiveSnapshot();
	find_rows(take);
	/* now that the rows are locked, what others did before */
	while ((take->kind == TAKE_CHANGE || take->kind == TAKE_TRANSACTION) &&
		   al_later_read(&take->plan, take->walks, take->transaction_id, take->ours))
		find_rows(take);
	decide(take);
}

/* ---- conflicts ---- */

static char *
conflict_text(const AlPlanRow *row)
{
	StringInfoData buf;
	ListCell   *lc;

	if (row->conflicts == NIL)
		return NULL;
	initStringInfo(&buf);
	foreach(lc, row->conflicts)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? "; " : "", (char *) lfirst(lc));
	return buf.data;
}

static const char *
shown_id(const AlPlanRow *row)
{
	if (row->table->nkeys == 0)
		return NULL;
	return row->aim != NULL || row->id == NULL ? row->then_id : row->id;
}

static void
refuse_conflicts(Take *take)
{
	StringInfoData detail;
	int64		conflicts = 0;
	ListCell   *lc;

	initStringInfo(&detail);
	foreach(lc, take->plan.tables)
	{
		AlPlanTable *table = lfirst(lc);
		ListCell   *obstacle;

		foreach(obstacle, table->obstacles)
			if (conflicts++ < SHOWN_CONFLICTS)
				appendStringInfo(&detail, "%s%s: %s", detail.len > 0 ? "\n" : "", table->name,
								 (char *) lfirst(obstacle));
		/* they were read newest first */
		for (int i = table->nrows - 1; i >= 0; i--)
		{
			AlPlanRow  *row = table->rows[i];

			if (row->conflicts == NIL || conflicts++ >= SHOWN_CONFLICTS)
				continue;
			appendStringInfo(&detail, "%s%s", detail.len > 0 ? "\n" : "", table->name);
			if (shown_id(row) != NULL)
				appendStringInfo(&detail, ", record %s", shown_id(row));
			appendStringInfo(&detail, ": %s", conflict_text(row));
		}
	}
	if (conflicts == 0)
		return;
	if (conflicts > SHOWN_CONFLICTS)
		appendStringInfo(&detail, "\n… and %lld more", (long long) (conflicts - SHOWN_CONFLICTS));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_plural("cannot take back: %lld conflict", "cannot take back: %lld conflicts",
						   conflicts, (long long) conflicts),
			 errdetail_internal("%s", detail.data),
			 errhint("dry_run => true lists every row; force => true takes back what can be.")));
}

/* ---- the result ---- */

static const char *const actions[] = {NULL, "INSERT", "UPDATE", "DELETE"};

static void
put_text(Datum *values, bool *nulls, int i, const char *text)
{
	nulls[i] = text == NULL;
	if (text != NULL)
		values[i] = CStringGetTextDatum(text);
}

static void
put_row(Take *take, AlPlanRow *row)
{
	Datum		values[6];
	bool		nulls[6] = {false};
	Jsonb	   *after;

	values[0] = ObjectIdGetDatum(row->table->relid);
	put_text(values, nulls, 1, shown_id(row));
	put_text(values, nulls, 2, actions[row->action]);
	nulls[3] = !row->present;
	if (row->present)
		values[3] = JsonbPGetDatum(row->before);
	/* a row that is left out stays as it is */
	after = row->action == AL_PLAN_NONE ? (row->present ? row->before : NULL) : row->aim;
	nulls[4] = after == NULL;
	if (after != NULL)
		values[4] = JsonbPGetDatum(after);
	put_text(values, nulls, 5, conflict_text(row));
	tuplestore_putvalues(take->rsinfo->setResult, take->rsinfo->setDesc, values, nulls);
}

static void
put_result(Take *take)
{
	ListCell   *lc;
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log result",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);

	foreach(lc, take->plan.tables)
	{
		AlPlanTable *table = lfirst(lc);
		ListCell   *obstacle;

		foreach(obstacle, table->obstacles)
		{
			Datum		values[6] = {ObjectIdGetDatum(table->relid)};
			bool		nulls[6] = {false, true, true, true, true, false};

			put_text(values, nulls, 5, lfirst(obstacle));
			tuplestore_putvalues(take->rsinfo->setResult, take->rsinfo->setDesc, values, nulls);
		}
		for (int i = table->nrows - 1; i >= 0; i--)
		{
			AlPlanRow  *row = table->rows[i];

			if (row->action != AL_PLAN_NONE || row->conflicts != NIL)
				put_row(take, row);
			MemoryContextReset(scratch);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* ---- what is logged with it ---- */

static Jsonb *
undoes(const Take *take)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	switch (take->kind)
	{
		case TAKE_CHANGE:
			appendStringInfo(&buf, "{\"change\": %lld}", (long long) take->number);
			break;
		case TAKE_TRANSACTION:
			appendStringInfo(&buf, "{\"transaction\": %lld}", (long long) take->number);
			break;
		case TAKE_RECORD:
			appendStringInfoString(&buf, "{\"restore\": [");
			escape_json(&buf, ((AlPlanTable *) linitial(take->plan.tables))->name);
			appendStringInfoString(&buf, ", ");
			escape_json(&buf, linitial(take->record_ids));
			appendStringInfoString(&buf, ", ");
			escape_json(&buf, take->moment->text);
			appendStringInfoString(&buf, "]}");
			break;
		case TAKE_TABLES:
			appendStringInfoString(&buf, "{\"rollback_to\": ");
			escape_json(&buf, take->moment->text);
			appendStringInfoString(&buf, ", \"tables\": [");
			foreach(lc, take->plan.tables)
			{
				if (lc != list_head(take->plan.tables))
					appendStringInfoString(&buf, ", ");
				escape_json(&buf, ((AlPlanTable *) lfirst(lc))->name);
			}
			appendStringInfoString(&buf, "]}");
			break;
	}
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)));
}

static bool
is_to_repeat(const Take *take)
{
	ListCell   *lc;

	foreach(lc, take->plan.tables)
		if (((AlPlanTable *) lfirst(lc))->again)
			return true;
	return false;
}

static bool
writes_anything(const Take *take)
{
	ListCell   *lc;

	foreach(lc, take->plan.tables)
	{
		AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
			if (table->rows[i]->action != AL_PLAN_NONE)
				return true;
	}
	return false;
}

static void
write_plan(Take *take)
{
	Jsonb	   *former = al_session_set_undoes(undoes(take));

	PG_TRY();
	{
		al_rewrite(&take->plan, take->user_triggers);
	}
	PG_FINALLY();
	{
		(void) al_session_set_undoes(former);
	}
	PG_END_TRY();
}

/* ---- one call ---- */

static void
begin_plan(Take *take, List *relids)
{
	take->plan.tables = NIL;
	/* nothing of it is freed before the end */
	take->plan.cxt = GenerationContextCreate(CurrentMemoryContext, "audit_log taking back",
											 ALLOCSET_DEFAULT_SIZES);
	take->walks = NIL;
	open_tables(take, relids);
}

static void
end_plan(Take *take)
{
	ListCell   *lc;

	foreach(lc, take->plan.tables)
		table_close(((AlPlanTable *) lfirst(lc))->rel, NoLock);
	MemoryContextDelete(take->plan.cxt);
}

/*
 * Where a parent was replaced by another one with the same key, the foreign
 * key's action has hit children that were written already: so all is looked at
 * again, until nothing is left to write.  A rollback reads the log anew, since it
 * may have been children that were none of its business.
 */
static bool
write_tables_again(Take *take, List *relids)
{
	bool		any;

	end_plan(take);
	begin_plan(take, relids);
	make_plan(take);
	any = writes_anything(take);
	/* in all these rows become what the first result says of them, or stay */
	if (any)
		write_plan(take);
	return any;
}

/* The others aim at the same rows again. */
static bool
write_rows_again(Take *take)
{
	List	   *former = take->plan.tables;
	bool		any;
	ListCell   *lc;

	take->plan.tables = NIL;
	foreach(lc, former)
	{
		AlPlanTable *table = lfirst(lc);
		AlPlanTable *again = al_plan_add_table(&take->plan, table->rel, table->table, table->table_id);
		MemoryContext old = MemoryContextSwitchTo(take->plan.cxt);

		for (int i = 0; i < table->nrows && table->nkeys > 0; i++)
		{
			AlPlanRow  *row = table->rows[i];
			AlPlanRow  *same;

			if (row->left_out || row->aim == NULL)
				continue;
			same = al_plan_add_row(again, row->then_id);
			same->known = true;
			same->aim = row->aim;
			same->steps = row->steps;
		}
		MemoryContextSwitchTo(old);
	}
	find_rows(take);
	decide(take);
	any = writes_anything(take);
	if (any)
		write_plan(take);
	take->plan.tables = former;
	return any;
}

static void
write_again(Take *take, List *relids)
{
	for (int round = 0; round < MAX_ROUNDS; round++)
		if (!(take->kind == TAKE_TABLES ? write_tables_again(take, relids) : write_rows_again(take)))
			return;
	ereport(ERROR,
			(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
			 errmsg("cannot take back: triggers or foreign keys change what has been written"),
			 errhint("user_triggers => false holds off the user's triggers.")));
}

static void
take_back(Take *take)
{
	List	   *relids = take->kind == TAKE_CHANGE || take->kind == TAKE_TRANSACTION ?
		concerned_tables(take) : take->tables;

	begin_plan(take, relids);
	make_plan(take);
	if (!take->dry_run && !take->force)
		refuse_conflicts(take);
	if (!take->dry_run)
		write_plan(take);
	put_result(take);
	if (!take->dry_run && is_to_repeat(take))
		write_again(take, relids);
	end_plan(take);
}

static Datum
run(Take *take, FunctionCallInfo fcinfo)
{
	int			nest = NewGUCNestLevel();

	/* whose result has the size of the plan */
	al_fixed_maintenance();
	InitMaterializedSRF(fcinfo, 0);
	AtEOXact_GUC(true, nest);
	take->rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	SPI_connect();
	PG_TRY();
	{
		take_back(take);
	}
	PG_FINALLY();
	{
		al_progress_end();
	}
	PG_END_TRY();
	SPI_finish();
	return (Datum) 0;
}

/* audit_log.undo_change(change_id bigint, dry_run, force, user_triggers boolean) */
PG_FUNCTION_INFO_V1(audit_log_undo_change);
Datum
audit_log_undo_change(PG_FUNCTION_ARGS)
{
	Take		take = {.kind = TAKE_CHANGE};

	refuse_null(fcinfo, 0, "change_id");
	take.number = PG_GETARG_INT64(0);
	read_options(&take, fcinfo, 1);
	return run(&take, fcinfo);
}

/*
 * audit_log.undo_transaction(transaction_id bigint, tables regclass[], record_ids
 * text[], same_xid boolean, dry_run, force, user_triggers boolean)
 */
PG_FUNCTION_INFO_V1(audit_log_undo_transaction);
Datum
audit_log_undo_transaction(PG_FUNCTION_ARGS)
{
	Take		take = {.kind = TAKE_TRANSACTION};

	refuse_null(fcinfo, 0, "transaction_id");
	refuse_null(fcinfo, 3, "same_xid");
	take.number = PG_GETARG_INT64(0);
	if (!PG_ARGISNULL(1))
		take.tables = read_tables(PG_GETARG_ARRAYTYPE_P(1));
	if (!PG_ARGISNULL(2))
		take.record_ids = read_texts(PG_GETARG_ARRAYTYPE_P(2));
	take.same_xid = PG_GETARG_BOOL(3);
	read_options(&take, fcinfo, 4);
	return run(&take, fcinfo);
}

/*
 * audit_log.restore_row(table_name regclass, record_id text, moment timestamptz
 * or text, dry_run, force, user_triggers boolean)
 */
PG_FUNCTION_INFO_V1(audit_log_restore_row);
Datum
audit_log_restore_row(PG_FUNCTION_ARGS)
{
	Take		take = {.kind = TAKE_RECORD};

	refuse_null(fcinfo, 0, "table_name");
	refuse_null(fcinfo, 1, "record_id");
	refuse_null(fcinfo, 2, "moment");
	take.tables = list_make1_oid(PG_GETARG_OID(0));
	take.asked_id = text_to_cstring(PG_GETARG_TEXT_PP(1));
	take.moment = al_moment_argument(fcinfo, 2);
	read_options(&take, fcinfo, 3);
	return run(&take, fcinfo);
}

/*
 * audit_log.rollback_to(tables regclass[], moment timestamptz or text, dry_run,
 * force, user_triggers boolean)
 */
PG_FUNCTION_INFO_V1(audit_log_rollback_to);
Datum
audit_log_rollback_to(PG_FUNCTION_ARGS)
{
	Take		take = {.kind = TAKE_TABLES};

	refuse_null(fcinfo, 0, "tables");
	refuse_null(fcinfo, 1, "moment");
	take.tables = read_tables(PG_GETARG_ARRAYTYPE_P(0));
	take.moment = al_moment_argument(fcinfo, 1);
	read_options(&take, fcinfo, 2);
	return run(&take, fcinfo);
}
