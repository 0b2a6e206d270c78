/*
 * feed.c
 *		The activity table: what describe() has changes write into it, and
 *		log_activity().
 *
 * The table is an ordinary one, of whoever made it: its triggers, defaults and
 * constraints are his.  So rows are inserted with its owner's rights, as
 * PostgreSQL does for a foreign key, and a user is looked for with those of
 * the owner of the users: nothing of theirs is evaluated as the log's owner.
 *
 * Descriptions are rendered when a change is captured and written when its
 * statement ends.  Each bears its subtransaction, as the changes in writer.c
 * do, and a flush writes those of the current one.
 *
 * Which table it is, the type that get_recent_activities() returns says: that
 * survives dump, restore and renaming, and is gone with the table.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/event_trigger.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/catcache.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "audit_log.h"

#define FEED_ENTRIES 1000
#define FEED_BYTES (1024 * 1024)

typedef struct FeedEntry
{
	SubTransactionId subid;
	char	   *user;			/* NULL: none */
	char	   *activity_type;
	char	   *description;
	char	   *record_id;		/* NULL: none that could be told */
	bool		integer;		/* of a key that is an integer */
} FeedEntry;

static List *pending = NIL;		/* of FeedEntry *, in feed_cxt */
static Size pending_bytes = 0;
static MemoryContext feed_cxt = NULL;

/* ---- the activity table ---- */

/* What has to be known of it, and of the users it refers to. */
typedef struct FeedTable
{
	Relation	rel;
	char	   *name;			/* qualified and quoted */
	Oid			id_type;
	Oid			user_type;
	int32		user_typmod;
	Oid			entity_type;
	int32		entity_typmod;
	Oid			users;			/* InvalidOid: no foreign key */
	char	   *find_user;		/* query: is there this user? */
} FeedTable;

static Oid
find_function(const char *name, Oid *rettype)
{
	CatCList   *list = SearchSysCacheList1(PROCNAMEARGSNSP, CStringGetDatum(name));
	Oid			schema = al_catalog_get()->schema;
	Oid			result = InvalidOid;

	for (int i = 0; i < list->n_members; i++)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(&list->members[i]->tuple);

		if (proc->pronamespace != schema)
			continue;
		result = proc->oid;
		*rettype = proc->prorettype;
	}
	ReleaseSysCacheList(list);
	return result;
}

/* The activity table, InvalidOid while the database has none. */
static Oid
activity_table(void)
{
	Oid			type;

	return OidIsValid(find_function("get_recent_activities", &type)) ?
		get_typ_typrelid(type) : InvalidOid;
}

static Oid
column_type(Relation rel, const char *name, int32 *typmod)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);
	Oid			type;
	Oid			collation;

	if (attnum <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("activity table \"%s\" has no column \"%s\"",
						RelationGetRelationName(rel), name),
				 errhint("Give the column its name back, or drop functions audit_log.log_activity and audit_log.get_recent_activities.")));
	get_atttypetypmodcoll(RelationGetRelid(rel), attnum, &type, typmod, &collation);
	return type;
}

static char *
qualified_name(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* The table that user_id refers to, and the query that looks for a user there. */
static void
find_users(FeedTable *feed)
{
	AttrNumber	attnum = get_attnum(RelationGetRelid(feed->rel), "user_id");
	ListCell   *lc;
	Relation	users;

	foreach(lc, RelationGetFKeyList(feed->rel))
	{
		ForeignKeyCacheInfo *key = lfirst(lc);

		if (key->nkeys != 1 || key->conkey[0] != attnum)
			continue;
		users = try_relation_open(key->confrelid, AccessShareLock);
		if (users == NULL)
			continue;
		feed->users = key->confrelid;
		feed->find_user =
			psprintf("SELECT FROM %s%s x WHERE x.%s OPERATOR(pg_catalog.=) $1::%s FOR KEY SHARE OF x",
					 users->rd_rel->relkind == RELKIND_RELATION ? "ONLY " : "",
					 qualified_name(users),
					 quote_identifier(get_attname(key->confrelid, key->confkey[0], false)),
					 format_type_be(feed->user_type));
		relation_close(users, NoLock);
		return;
	}
}

/* Opens it; false while there is none. */
static bool
open_feed(FeedTable *feed)
{
	Oid			relid = activity_table();
	int32		typmod;

	memset(feed, 0, sizeof(FeedTable));
	feed->rel = OidIsValid(relid) ? try_relation_open(relid, RowExclusiveLock) : NULL;
	if (feed->rel == NULL)
		return false;
	feed->name = qualified_name(feed->rel);
	feed->id_type = column_type(feed->rel, "id", &typmod);
	feed->user_type = column_type(feed->rel, "user_id", &feed->user_typmod);
	feed->entity_type = column_type(feed->rel, "entity_id", &feed->entity_typmod);
	find_users(feed);
	return true;
}

/* ---- with the rights of others ---- */

/* As a foreign key's queries are run: put PG_TRY/PG_FINALLY and al_own_leave() round it. */
static void
enter_role(AlOwn *saved, Oid role)
{
	al_own_yield_to(saved, role);
	SetUserIdAndSecContext(role, saved->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_NOFORCE_RLS);
}

/*
 * Each query is the same as long as the tables are; its plan is kept, which
 * halves what a single entry costs.  One that runs is not replaced: a trigger
 * of the activity table may come here again, and have renamed it.
 */
typedef struct KeptPlan
{
	char	   *sql;			/* in TopMemoryContext, as the plan; NULL: none yet */
	SPIPlanPtr	plan;
} KeptPlan;

static KeptPlan find_user_plan;
static KeptPlan write_entries_plan;
static KeptPlan log_activity_plan;
static int	running = 0;

static SPIPlanPtr
get_plan(KeptPlan *kept, const char *sql, int n, Oid *types)
{
	SPIPlanPtr	plan;

	if (kept->sql != NULL && strcmp(kept->sql, sql) == 0)
		return kept->plan;
	plan = SPI_prepare(sql, n, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed for \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	if (running > 1)
		return plan;
	if (kept->sql != NULL)
	{
		pfree(kept->sql);
		kept->sql = NULL;
		SPI_freeplan(kept->plan);
	}
	SPI_keepplan(plan);
	kept->plan = plan;
	kept->sql = MemoryContextStrdup(TopMemoryContext, sql);
	return plan;
}

static uint64
run_as(Oid role, KeptPlan *kept, const char *sql, int n, Oid *types, Datum *values,
	   const char *nulls)
{
	AlOwn		saved;
	volatile uint64 processed = 0;

	enter_role(&saved, role);
	running++;
	PG_TRY();
	{
		if (SPI_execute_plan(get_plan(kept, sql, n, types), values, nulls, false, 0) < 0)
			elog(ERROR, "could not run \"%s\"", sql);
		processed = SPI_processed;
	}
	PG_FINALLY();
	{
		running--;
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return processed;
}

/* ---- values ---- */

/* Does the text read as a value of the type, one that an activity table can have? */
static bool
reads_as(const char *text, Oid type, int32 typmod)
{
	char	   *end;
	int64		number;

	switch (type)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
			if (!isdigit((unsigned char) text[text[0] == '-']))
				return false;
			errno = 0;
			number = strtoll(text, &end, 10);
			return errno == 0 && *end == '\0' &&
				(type == INT8OID ||
				 (type == INT4OID ? number == (int32) number : number == (int16) number));
		case UUIDOID:
			for (int i = 0; i < 36; i++)
				if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' :
					!isxdigit((unsigned char) text[i]))
					return false;
			return text[36] == '\0';
		case TEXTOID:
			return true;
		case VARCHAROID:
			return typmod < 0 || pg_mbstrlen(text) <= typmod - (int) VARHDRSZ;
		default:
			return false;
	}
}

/*
 * Is there this user?  What is no key of theirs, or of nobody, is no user of
 * theirs and no error; the row is locked as a foreign key locks it.
 */
static bool
is_user(const FeedTable *feed, const char *user)
{
	Oid			types[] = {TEXTOID};
	Datum		values[1];
	Oid			owner;
	HeapTuple	tuple;

	if (user == NULL || !OidIsValid(feed->users) ||
		!reads_as(user, feed->user_type, feed->user_typmod))
		return false;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(feed->users));
	if (!HeapTupleIsValid(tuple))
		return false;
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	values[0] = CStringGetTextDatum(user);
	return run_as(owner, &find_user_plan, feed->find_user, 1, types, values, NULL) > 0;
}

/* ---- descriptions ---- */

static char *
render(const AlRendering *rendering, TupleTableSlot *old, TupleTableSlot *new)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < rendering->nparts; i++)
	{
		if (rendering->parts[i].text != NULL)
			appendStringInfoString(&buf, rendering->parts[i].text);
		else
		{
			int			len;
			bool		before = new == NULL || rendering->parts[i].old;
			char	   *text = al_row_column_text(rendering->parts[i].column,
												  before ? old : new, &len);

			appendBinaryStringInfo(&buf, text, len);
		}
	}
	return buf.data;
}

/* An UPDATE is described where every column has changed whose value before is shown. */
static bool
applies(const AlRendering *rendering, AlAction action, TupleTableSlot *old, TupleTableSlot *new)
{
	if (rendering->action != action)
		return false;
	if (action == AL_UPDATE)
		for (int i = 0; i < rendering->nparts; i++)
			if (rendering->parts[i].old &&
				!al_row_column_differs(rendering->parts[i].column, old, new))
				return false;
	return true;
}

static void
add_entry(const AlTable *table, const AlRendering *rendering, const AlEntry *entry,
		  const char *description)
{
	MemoryContext old;
	FeedEntry  *made;

	if (feed_cxt == NULL)
		feed_cxt = AllocSetContextCreate(TopTransactionContext, "audit_log feed",
										 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(feed_cxt);
	made = palloc0(sizeof(FeedEntry));
	made->subid = GetCurrentSubTransactionId();
	made->user = entry->user ? pstrdup(entry->user) : NULL;
	made->activity_type = pstrdup(rendering->activity_type);
	made->description = pstrdup(description);
	/* a hash leads nowhere */
	if (entry->record_id != NULL && !table->key_masked)
		made->record_id = text_to_cstring(entry->record_id);
	made->integer = table->nkeys == 1 && table->keys[0]->integer;
	pending = lappend(pending, made);
	pending_bytes += strlen(description);
	MemoryContextSwitchTo(old);
}

/*
 * Renders what describe() says of a change that is logged.  What is replicated
 * has been told where it was made.
 */
void
al_feed_change(const AlTable *table, AlAction action, TupleTableSlot *old,
			   TupleTableSlot *new, const AlEntry *entry)
{
	ListCell   *lc;

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return;
	foreach(lc, table->renderings)
	{
		const AlRendering *rendering = lfirst(lc);

		if (applies(rendering, action, old, new))
			add_entry(table, rendering, entry, render(rendering, old, new));
	}
}

bool
al_feed_is_full(void)
{
	return list_length(pending) >= FEED_ENTRIES || pending_bytes > FEED_BYTES;
}

/* Takes the entries of the current (sub)transaction out of those that wait. */
static List *
take_entries(MemoryContext *cxt)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	MemoryContext old;
	List	   *taken = NIL;
	ListCell   *lc;
	bool		all = true;

	foreach(lc, pending)
		all &= ((FeedEntry *) lfirst(lc))->subid == subid;
	if (all)
	{
		/* the usual case: the memory as a whole */
		taken = pending;
		*cxt = feed_cxt;
		MemoryContextSetParent(feed_cxt, CurTransactionContext);
		al_feed_end_transaction();
		return taken;
	}

	*cxt = AllocSetContextCreate(CurTransactionContext, "audit_log feed of a level",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(*cxt);
	foreach(lc, pending)
	{
		FeedEntry  *entry = lfirst(lc);

		if (entry->subid != subid)
			continue;
		taken = lappend(taken, entry);
		pending_bytes -= strlen(entry->description);
		pending = foreach_delete_current(pending, lc);
	}
	MemoryContextSwitchTo(old);
	return taken;
}

static Datum
text_array(Datum *elems, bool *nulls, int n)
{
	int			dims[] = {n};
	int			lbs[] = {1};

	return PointerGetDatum(construct_md_array(elems, nulls, 1, dims, lbs, TEXTOID,
											  -1, false, TYPALIGN_INT));
}

static void
set_text(Datum *elems, bool *nulls, int i, const char *value)
{
	nulls[i] = value == NULL;
	elems[i] = value ? CStringGetTextDatum(value) : (Datum) 0;
}

/* Which entity an entry is about, as far as the column can say it. */
static const char *
entity_of(const FeedTable *feed, const FeedEntry *entry)
{
	bool		integer = feed->entity_type == INT2OID || feed->entity_type == INT4OID ||
		feed->entity_type == INT8OID;

	/* a text that happens to be a number is not that number's record */
	if (entry->record_id == NULL || (integer && !entry->integer) ||
		!reads_as(entry->record_id, feed->entity_type, feed->entity_typmod))
		return NULL;
	return entry->record_id;
}

static void
write_entries(FeedTable *feed, List *entries)
{
	Oid			types[] = {TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID};
	int			n = list_length(entries);
	Datum	   *elems[4];
	bool	   *nulls[4];
	Datum		values[4];
	const char *last = NULL;
	bool		known = false;
	char	   *sql;

	for (int k = 0; k < 4; k++)
	{
		elems[k] = palloc(sizeof(Datum) * n);
		nulls[k] = palloc(sizeof(bool) * n);
	}
	for (int i = 0; i < n; i++)
	{
		const FeedEntry *entry = list_nth(entries, i);

		if (entry->user != NULL && (last == NULL || strcmp(last, entry->user) != 0))
		{
			last = entry->user;
			known = is_user(feed, last);
		}
		set_text(elems[0], nulls[0], i, entry->user && known ? entry->user : NULL);
		set_text(elems[1], nulls[1], i, entry->activity_type);
		set_text(elems[2], nulls[2], i, entry->description);
		set_text(elems[3], nulls[3], i, entity_of(feed, entry));
	}
	for (int k = 0; k < 4; k++)
		values[k] = text_array(elems[k], nulls[k], n);

	sql = psprintf("INSERT INTO %s (user_id, activity_type, description, entity_id)"
				   " SELECT e.u::%s, e.t, e.d, e.e::%s"
				   " FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2),"
				   " pg_catalog.unnest($3), pg_catalog.unnest($4)) WITH ORDINALITY e (u, t, d, e, n)"
				   " ORDER BY e.n", feed->name,
				   format_type_be(feed->user_type), format_type_be(feed->entity_type));
	(void) run_as(feed->rel->rd_rel->relowner, &write_entries_plan, sql, 4, types, values, NULL);
}

/*
 * Writes what the current (sub)transaction has described.  It is taken out
 * first: a trigger on the activity table may change rows, and come here again.
 */
void
al_feed_flush(void)
{
	List	   *entries;
	FeedTable	feed;
	MemoryContext cxt;
	MemoryContext old;
	bool		pushed = false;

	if (pending == NIL)
		return;
	entries = take_entries(&cxt);
	if (entries == NIL)
		return;

	/* a commit has no snapshot */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}
	SPI_connect();
	old = MemoryContextSwitchTo(cxt);
	if (open_feed(&feed))
	{
		write_entries(&feed, entries);
		relation_close(feed.rel, NoLock);
	}
	MemoryContextSwitchTo(old);
	SPI_finish();
	if (pushed)
		PopActiveSnapshot();
	MemoryContextDelete(cxt);
}

/* ---- log_activity() ---- */

/*
 * audit_log._log_activity(activity_type text, description text, entity_id text,
 * user_id text) RETURNS text: id of the new entry.  Whoever may INSERT into the
 * table may; its sequence, and reading the id back, are our concern.  Where the
 * table's row security is for him, so are the insertion and its rights.
 */
PG_FUNCTION_INFO_V1(audit_log_log_activity);
Datum
audit_log_log_activity(PG_FUNCTION_ARGS)
{
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[4];
	char		nulls[4];
	FeedTable	feed;
	Oid			relid;
	AclResult	acl;
	char	   *sql;
	char	   *id;
	MemoryContext cxt = CurrentMemoryContext;
	text	   *result = NULL;

	PreventCommandIfReadOnly("audit_log.log_activity()");
	SPI_connect();
	if (!open_feed(&feed))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database has no activity table"),
				 errhint("Run audit_log.create_activity_table().")));
	relid = RelationGetRelid(feed.rel);
	acl = pg_class_aclcheck(relid, GetUserId(), ACL_INSERT);
	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, OBJECT_TABLE, RelationGetRelationName(feed.rel));

	for (int i = 0; i < 4; i++)
	{
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
		values[i] = PG_ARGISNULL(i) ? (Datum) 0 : PG_GETARG_DATUM(i);
	}
	if (PG_ARGISNULL(3))
	{
		const char *user = al_session_user(NULL);

		if (is_user(&feed, user))
		{
			values[3] = CStringGetTextDatum(user);
			nulls[3] = ' ';
		}
	}
	sql = psprintf("INSERT INTO %s (activity_type, description, entity_id, user_id)"
				   " VALUES ($1, $2, $3::%s, $4::%s) RETURNING id", feed.name,
				   format_type_be(feed.entity_type), format_type_be(feed.user_type));
	(void) run_as(check_enable_rls(relid, InvalidOid, true) == RLS_ENABLED ?
				  GetUserId() : feed.rel->rd_rel->relowner, &log_activity_plan, sql, 4, types, values, nulls);

	/* a BEFORE trigger may have refused it */
	if (SPI_processed == 1)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		id = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		result = id ? cstring_to_text(id) : NULL;
		MemoryContextSwitchTo(old);
	}
	relation_close(feed.rel, NoLock);
	SPI_finish();
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(result);
}

/* audit_log._activity_table() RETURNS regclass: NULL while the database has none */
PG_FUNCTION_INFO_V1(audit_log_activity_table);
Datum
audit_log_activity_table(PG_FUNCTION_ARGS)
{
	Oid			relid = activity_table();

	(void) fcinfo;
	if (!OidIsValid(relid))
		PG_RETURN_NULL();
	PG_RETURN_OID(relid);
}

/* Does a function go with the table? */
static bool
goes_with(Oid function, Oid relid)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	bool		found = false;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(ProcedureRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(function));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, keys);
	while (!found && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);

		found = row->refclassid == RelationRelationId && row->refobjid == relid &&
			row->deptype == DEPENDENCY_AUTO;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * Event trigger before DROP TABLE, SCHEMA and OWNED: the two functions go with the
 * activity table, whose row type one of them returns.  A dump does not carry
 * such a dependency; so it is made when it is needed, once: those who drop
 * other tables at the same time must not meet here.
 */
PG_FUNCTION_INFO_V1(audit_log_on_activity_drop);
Datum
audit_log_on_activity_drop(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"get_recent_activities", "log_activity"};
	Oid			relid;

	if (!CALLED_AS_EVENT_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by event trigger manager",
						"audit_log.on_activity_drop")));
	relid = activity_table();
	for (int i = 0; i < (int) lengthof(names) && OidIsValid(relid); i++)
	{
		ObjectAddress table = {.classId = RelationRelationId,.objectId = relid};
		ObjectAddress function = {.classId = ProcedureRelationId};
		Oid			type;

		function.objectId = find_function(names[i], &type);
		if (!OidIsValid(function.objectId) || goes_with(function.objectId, relid))
			continue;
		recordDependencyOn(&function, &table, DEPENDENCY_AUTO);
	}
	CommandCounterIncrement();
	PG_RETURN_NULL();
}

/* ---- following the transaction ---- */

void
al_feed_end_transaction(void)
{
	pending = NIL;				/* it went with TopTransactionContext, or is taken */
	pending_bytes = 0;
	feed_cxt = NULL;
}

void
al_feed_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	ListCell   *lc;

	foreach(lc, pending)
		if (((FeedEntry *) lfirst(lc))->subid == subid)
			((FeedEntry *) lfirst(lc))->subid = parent;
}

void
al_feed_abort_sub(SubTransactionId subid)
{
	ListCell   *lc;

	foreach(lc, pending)
		if (((FeedEntry *) lfirst(lc))->subid == subid)
		{
			pending_bytes -= strlen(((FeedEntry *) lfirst(lc))->description);
			pending = foreach_delete_current(pending, lc);
		}
}
