/*
 * table.c
 *		What is known of a tracked table, cached for the life of the backend.
 *
 * One entry a trigger of ours: a partition has clones of the root's trigger,
 * so it has entries of its own, in which the columns' numbers are its own and
 * names, key and identity the root's.
 *
 * The relcache callback only marks entries; they are built again at their next
 * use.  The old content of an entry may still be in use further up the stack
 * (a condition may run statements), so it is freed when the transaction ends.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "catalog/partition.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "audit_log.h"

typedef struct TableEntry
{
	Oid			trigger;		/* hash key */
	Oid			relid;
	List	   *ancestors;		/* whose change makes it invalid too */
	uint32		schema_hash;	/* of the root's schema in the syscache */
	bool		valid;			/* set last */
	AlTable    *table;			/* NULL while there is none */
} TableEntry;

static HTAB *entries = NULL;
static List *orphans = NIL;		/* AlTables replaced in this transaction */

/* ---- invalidation ---- */

static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	TableEntry *entry;
	bool		all = al_catalog_forget(relid);

	(void) arg;
	al_mask_forget(relid);
	al_target_forget(relid);
	al_route_forget(relid);
	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (all || entry->relid == relid || list_member_oid(entry->ancestors, relid) ||
			(entry->table != NULL && entry->table->version_relid == relid))
			entry->valid = false;
}

/* A schema was renamed: its tables' relcache entries do not say so. */
static void
schema_changed(Datum arg, AL_CACHE_ID cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS seq;
	TableEntry *entry;

	(void) arg;
	(void) cacheid;
	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (hashvalue == 0 || entry->schema_hash == hashvalue)
			entry->valid = false;
}

void
al_table_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(TableEntry)};

	entries = hash_create("audit_log tables", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, schema_changed, (Datum) 0);
}

/*
 * What was looked up in tracked_table may have been written by a transaction
 * that is rolled back now.
 */
void
al_table_forget_ids(void)
{
	HASH_SEQ_STATUS seq;
	TableEntry *entry;

	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (entry->table)
			entry->table->table_id = 0;
}

void
al_table_end_transaction(void)
{
	HASH_SEQ_STATUS seq;
	TableEntry *entry;
	ListCell   *lc;

	foreach(lc, orphans)
		MemoryContextDelete(((AlTable *) lfirst(lc))->cxt);
	list_free(orphans);
	orphans = NIL;

	/* conditions are prepared in TopTransactionContext */
	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (entry->table)
			entry->table->condition = NULL;
}

/* ---- triggers ---- */

/* Does the trigger fire in this session now? */
bool
al_table_trigger_fires(const Trigger *trigger)
{
	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		return trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
			trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA;
	return trigger->tgenabled == TRIGGER_FIRES_ALWAYS ||
		trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN;
}

static Trigger *
find_trigger(TriggerDesc *desc, const char *name, Oid function)
{
	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];

		if (trigger->tgfoid == function &&
			(name == NULL || strcmp(trigger->tgname, name) == 0))
			return trigger;
	}
	return NULL;
}

/*
 * The relation's trigger of that name (NULL: any) that calls function: a copy,
 * since any look at a catalog may have the relation's own built anew.
 */
Trigger *
al_table_trigger(Relation rel, const char *name, Oid function)
{
	return find_trigger(CopyTriggerDesc(rel->trigdesc), name, function);
}

/* May something in the trigger keep it from logging an event it is made for? */
static bool
is_limited(const Trigger *trigger)
{
	if (trigger->tgqual != NULL || trigger->tgnattr != 0)
		return true;
	for (int i = 0; i < trigger->tgnargs; i++)
		if (strncmp(trigger->tgargs[i], "actions=", 8) == 0 ||
			strncmp(trigger->tgargs[i], "condition=", 10) == 0)
			return true;
	return false;
}

/*
 * Which events does another trigger capture, so that this one has to be silent
 * about them?  All of them while audit_log_row is there and fires.  Of triggers
 * attached by hand one that logs all it is made for goes before those that may
 * not, and of its like the first in PostgreSQL's order.  Two that may not are
 * not silenced: rather a change twice than never.
 */
static int
deputed_events(Relation rel, const Trigger *self)
{
	Oid			capture = al_catalog_get()->capture;
	Trigger    *main = find_trigger(rel->trigdesc, AL_ROW_TRIGGER, capture);
	bool		earlier = true; /* other fires before self */
	int			events = 0;

	if (main != NULL && al_table_trigger_fires(main))
		return main->tgoid != self->tgoid ? TRIGGER_TYPE_EVENT_MASK : 0;
	/* a trigger of the user's may have dropped ours while their events wait */
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *other = &rel->trigdesc->triggers[i];

		if (other->tgoid == self->tgoid)
			earlier = false;
		else if (other->tgfoid == self->tgfoid && al_table_trigger_fires(other) &&
				 TRIGGER_FOR_ROW(other->tgtype) && TRIGGER_FOR_AFTER(other->tgtype) &&
				 !is_limited(other) && (earlier || is_limited(self)))
			events |= other->tgtype & TRIGGER_TYPE_EVENT_MASK;
	}
	return events;
}

static bool
has_flush(Relation rel)
{
	Oid			function = al_catalog_get()->capture_flush;
	Trigger    *flush = find_trigger(rel->trigdesc, AL_FLUSH_TRIGGER, function);

	return flush != NULL && al_table_trigger_fires(flush) &&
		!TRIGGER_FOR_ROW(flush->tgtype) && TRIGGER_FOR_AFTER(flush->tgtype) &&
		TRIGGER_FOR_INSERT(flush->tgtype) && TRIGGER_FOR_UPDATE(flush->tgtype) &&
		TRIGGER_FOR_DELETE(flush->tgtype) &&
		flush->tgqual == NULL && flush->tgnattr == 0;
}

/*
 * Whichever of a partition and its ancestors the statement names, it must end
 * with a flush; otherwise rows are written one by one.
 */
static void
note_triggers(AlTable *table, Relation rel, const Trigger *self, List *ancestors)
{
	ListCell   *lc;

	table->deputed = deputed_events(rel, self);
	table->flush_certain = has_flush(rel);
	foreach(lc, ancestors)
	{
		Relation	ancestor;

		if (!table->flush_certain)
			break;
		ancestor = relation_open(lfirst_oid(lc), AccessShareLock);
		table->flush_certain = has_flush(ancestor);
		relation_close(ancestor, AccessShareLock);
	}
	table->replication_role = SessionReplicationRole;
}

/* ---- keys ---- */

Oid
al_table_root(Relation rel)
{
	if (!rel->rd_rel->relispartition)
		return RelationGetRelid(rel);
	return llast_oid(get_partition_ancestors(RelationGetRelid(rel)));
}

typedef struct KeyCandidate
{
	bool		primary;
	bool		identity;		/* the replica identity */
	const char *name;
	List	   *columns;		/* of char * */
} KeyCandidate;

static bool
better_key(const KeyCandidate *a, const KeyCandidate *b)
{
	if (a->primary != b->primary)
		return a->primary;
	if (a->identity != b->identity)
		return a->identity;
	if (list_length(a->columns) != list_length(b->columns))
		return list_length(a->columns) < list_length(b->columns);
	return strcmp(a->name, b->name) < 0;
}

static bool
names_contain(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/*
 * The names of the columns that identify a row, in the index's order; NIL
 * where no index does.  An index with a column of excluded is passed over.
 * The rule is design.md's (section 2): the primary key, else a unique index
 * over NOT NULL columns, neither partial, of an expression, nor deferrable.
 */
List *
al_table_key_columns(Relation root, List *excluded)
{
	TupleDesc	desc = RelationGetDescr(root);
	KeyCandidate best = {0};
	List	   *indexes = RelationGetIndexList(root);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;
		KeyCandidate candidate = {0};
		bool		usable;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		usable = index->indisunique && index->indimmediate && index->indisvalid &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL);
		for (int i = 0; usable && i < index->indnkeyatts; i++)
		{
			AttrNumber	attnum = index->indkey.values[i];

			if (attnum <= 0 || !AL_ATT_NOT_NULL(desc, attnum) ||
				names_contain(excluded, NameStr(TupleDescAttr(desc, attnum - 1)->attname)))
				usable = false;
			else
				candidate.columns = lappend(candidate.columns,
											pstrdup(NameStr(TupleDescAttr(desc, attnum - 1)->attname)));
		}
		if (usable)
		{
			candidate.primary = index->indisprimary;
			candidate.identity = index->indisreplident;
			candidate.name = get_rel_name(index->indexrelid);
			if (candidate.name != NULL &&
				(best.columns == NIL || better_key(&candidate, &best)))
				best = candidate;
		}
		ReleaseSysCache(tuple);
	}
	return best.columns;
}

/*
 * The columns as table_state keeps them: name, type and number of each.  Types
 * of other schemas than pg_catalog are qualified: called as the owner only.
 */
char *
al_table_columns_json(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		appendStringInfo(&buf, "%s{\"name\": ", buf.len > 1 ? ", " : "");
		escape_json(&buf, NameStr(att->attname));
		appendStringInfoString(&buf, ", \"type\": ");
		escape_json(&buf, format_type_with_typemod(att->atttypid, att->atttypmod));
		appendStringInfo(&buf, ", \"number\": %d}", att->attnum);
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

/* ---- building an entry ---- */

static int
cmp_columns(const void *a, const void *b)
{
	const AlColumn *ca = a;
	const AlColumn *cb = b;

	return al_jsonbuild_key_cmp(ca->name, ca->namelen, cb->name, cb->namelen);
}

static void
missing_column(const AlTable *table, const char *column, const char *setting)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" in setting \"%s\" of audited table \"%s.%s\" does not exist",
					column, setting, table->schema, table->name),
			 errdetail("A change is refused rather than logged against the settings of its table."),
			 errhint("Run audit_log.enable() on the table with another value of \"%s\".",
					 setting)));
}

static void
check_names(const AlTable *table, TupleDesc desc, List *names, const char *setting)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		bool		found = false;

		for (int i = 0; i < desc->natts && !found; i++)
			found = !TupleDescAttr(desc, i)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(desc, i)->attname), lfirst(lc)) == 0;
		if (!found)
			missing_column(table, lfirst(lc), setting);
	}
}

static void
fill_column(AlColumn *column, Form_pg_attribute att, AlTable *table)
{
	Oid			base = getBaseType(att->atttypid);

	column->name = pstrdup(NameStr(att->attname));
	column->namelen = strlen(column->name);
	column->attnum = att->attnum;
	column->typlen = att->attlen;
	column->typbyval = att->attbyval;
	column->masked = names_contain(table->settings->mask, column->name);
	column->json = !column->masked && (base == JSONOID || base == JSONBOID);
	column->integer = !column->masked &&
		(base == INT2OID || base == INT4OID || base == INT8OID);
	column->encoder = al_encode_prepare(att->atttypid, att->atttypmod, table->cxt);
	table->need = Max(table->need, al_encode_need(column->encoder));
	table->last_attnum = Max(table->last_attnum, column->attnum);
}

static void
fill_columns(AlTable *table, Relation rel, List *key)
{
	TupleDesc	desc = RelationGetDescr(rel);
	AlSettings *settings = table->settings;
	ListCell   *lc;
	int			k = 0;

	check_names(table, desc, settings->exclude, "exclude");
	check_names(table, desc, settings->include, "include");
	check_names(table, desc, settings->mask, "mask");

	table->columns = palloc0(sizeof(AlColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = NameStr(att->attname);

		if (att->attisdropped || AL_ATT_IS_VIRTUAL(att))
			continue;
		if (names_contain(settings->exclude, name) ||
			(settings->include != NIL && !names_contain(settings->include, name) &&
			 !names_contain(key, name)))
			continue;
		fill_column(&table->columns[table->ncolumns++], att, table);
	}
	qsort(table->columns, table->ncolumns, sizeof(AlColumn), cmp_columns);

	table->row_keys = palloc0(sizeof(AlColumnKeys));
	table->delta_keys = palloc0(sizeof(AlColumnKeys));
	table->keys = palloc0(sizeof(AlColumn *) * Max(list_length(key), 1));
	foreach(lc, key)
		for (int i = 0; i < table->ncolumns; i++)
			if (strcmp(table->columns[i].name, lfirst(lc)) == 0)
			{
				table->keys[k++] = &table->columns[i];
				table->key_masked |= table->columns[i].masked;
			}
	if (k != list_length(key))
		elog(ERROR, "partition \"%s\" lacks a key column of its root",
			 RelationGetRelationName(rel));
	table->nkeys = k;

	if (settings->user_column)
	{
		check_names(table, desc, list_make1(settings->user_column), "user_column");
		for (int i = 0; i < desc->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(desc, i);

			if (!att->attisdropped &&
				strcmp(NameStr(att->attname), settings->user_column) == 0)
			{
				table->user_column = palloc0(sizeof(AlColumn));
				fill_column(table->user_column, att, table);
			}
		}
	}
}

/* ---- descriptions ---- */

static AlColumn *
described_column(AlTable *table, TupleDesc desc, const AlDescription *description,
				 const char *name)
{
	bool		exists = false;

	for (int i = 0; i < table->ncolumns; i++)
		if (strcmp(table->columns[i].name, name) == 0 && !table->columns[i].masked)
			return &table->columns[i];
	for (int i = 0; i < desc->natts; i++)
		exists |= !TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0;
	if (!exists)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" in a description of audited table \"%s.%s\" does not exist",
						name, table->schema, table->name),
				 errdetail("The template is \"%s\".", description->template),
				 errhint("Run audit_log.describe() with another template, or without one.")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" in a description of audited table \"%s.%s\" is masked or not logged",
					name, table->schema, table->name),
			 errdetail("The template \"%s\" would show its values.", description->template),
			 errhint("Run audit_log.describe() with another template, or without one.")));
	return NULL;				/* not reached */
}

/* The table's templates, each place with its column. */
static void
fill_renderings(AlTable *table, Relation rel)
{
	ListCell   *lc;

	foreach(lc, table->settings->describe)
	{
		const AlDescription *description = lfirst(lc);
		List	   *parts = al_template_parse(description->template);
		AlRendering *rendering = palloc0(sizeof(AlRendering));

		rendering->action = description->action;
		rendering->activity_type = description->activity_type;
		rendering->nparts = list_length(parts);
		rendering->parts = palloc0(sizeof(rendering->parts[0]) * Max(rendering->nparts, 1));
		for (int i = 0; i < rendering->nparts; i++)
		{
			const AlTemplatePart *part = list_nth(parts, i);

			if (part->old && description->action == AL_INSERT)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("a description of INSERT cannot show the value before"),
						 errdetail("The template is \"%s\".", description->template)));
			rendering->parts[i].text = part->text;
			rendering->parts[i].old = part->old;
			if (part->column != NULL)
				rendering->parts[i].column =
					described_column(table, RelationGetDescr(rel), description, part->column);
		}
		table->renderings = lappend(table->renderings, rendering);
	}
}

/* Built in a context of its own, which is current. */
static AlTable *
build_table(Relation rel, Trigger *trigger, List *ancestors)
{
	AlTable    *table = palloc0(sizeof(AlTable));
	Relation	root = rel;

	/*
	 * Only a trigger attached by hand can be here.  A temporary table's name
	 * would be another session's later, and its history with it.
	 */
	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot audit \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It is not a table."),
				 errhint("Drop trigger \"%s\".", trigger->tgname)));
	if (RelationGetNamespace(rel) == al_catalog_get()->schema)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot audit \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It is part of the log itself."),
				 errhint("Drop trigger \"%s\".", trigger->tgname)));
	if (RelationUsesLocalBuffers(rel))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("cannot audit \"%s\"", RelationGetRelationName(rel)),
				 errdetail("It is a temporary table."),
				 errhint("Drop trigger \"%s\".", trigger->tgname)));

	table->cxt = CurrentMemoryContext;
	table->own_schema = get_namespace_name(RelationGetNamespace(rel));
	table->relid = RelationGetRelid(rel);
	table->trigger = trigger->tgoid;
	table->root = ancestors ? llast_oid(ancestors) : table->relid;
	if (ancestors)
		root = relation_open(table->root, AccessShareLock);

	table->schema = get_namespace_name(RelationGetNamespace(root));
	table->name = pstrdup(RelationGetRelationName(root));
	table->settings = al_settings_parse(trigger->tgnargs, trigger->tgargs, table->name);
	fill_columns(table, rel, al_table_key_columns(root, table->settings->exclude));
	fill_renderings(table, rel);
	note_triggers(table, rel, trigger, ancestors);

	if (ancestors)
		relation_close(root, AccessShareLock);
	return table;
}

/*
 * The table as settings describe it, whatever triggers it has: for reading
 * what was logged.
 */
AlTable *
al_table_of(Relation root, AlSettings *settings)
{
	AlTable    *table = palloc0(sizeof(AlTable));

	table->cxt = CurrentMemoryContext;
	table->own_schema = get_namespace_name(RelationGetNamespace(root));
	table->relid = table->root = RelationGetRelid(root);
	table->schema = table->own_schema;
	table->name = pstrdup(RelationGetRelationName(root));
	table->settings = settings;
	fill_columns(table, root, al_table_key_columns(root, settings->exclude));
	return table;
}

/*
 * What is known of rel for this trigger of it.  The result stays as it is
 * until the end of the transaction.
 */
AlTable *
al_table_get(Relation rel, Trigger *trigger)
{
	TableEntry *entry;
	bool		found;
	MemoryContext cxt;
	MemoryContext old;
	List	   *volatile ancestors = NIL;
	AlTable    *volatile table = NULL;

	al_catalog_get();
	entry = hash_search(entries, &trigger->tgoid, HASH_FIND, NULL);

	/* with the lock comes word of what was altered before we had it */
	if (entry != NULL && entry->valid && OidIsValid(entry->table->version_relid))
		LockRelationOid(entry->table->version_relid, RowExclusiveLock);
	if (entry != NULL && entry->valid)
	{
		if (entry->table->replication_role != SessionReplicationRole)
			note_triggers(entry->table, rel, trigger, entry->ancestors);
		return entry->table;
	}

	if (entry != NULL)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		if (entry->table != NULL)
			orphans = lappend(orphans, entry->table);
		list_free(entry->ancestors);
		hash_search(entries, &trigger->tgoid, HASH_REMOVE, NULL);
		MemoryContextSwitchTo(old);
	}

	/*
	 * The entry stands before its content is built, so that an invalidation
	 * that comes while building finds it; valid is set only if none came.
	 */
	cxt = AllocSetContextCreate(TopMemoryContext, "audit_log table",
								ALLOCSET_SMALL_SIZES);
	if (rel->rd_rel->relispartition)
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		ancestors = get_partition_ancestors(RelationGetRelid(rel));
		MemoryContextSwitchTo(old);
	}
	entry = hash_search(entries, &trigger->tgoid, HASH_ENTER, &found);
	entry->relid = RelationGetRelid(rel);
	entry->ancestors = ancestors;
	entry->schema_hash =
		GetSysCacheHashValue1(NAMESPACEOID,
							  ObjectIdGetDatum(get_rel_namespace(al_table_root(rel))));
	entry->table = NULL;
	entry->valid = true;

	PG_TRY();
	{
		old = MemoryContextSwitchTo(cxt);
		table = build_table(rel, trigger, ancestors);
		MemoryContextSwitchTo(old);
	}
	PG_CATCH();
	{
		entry = hash_search(entries, &trigger->tgoid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->valid = false;
		MemoryContextDelete(cxt);
		PG_RE_THROW();
	}
	PG_END_TRY();

	/* entries do not move, but a nested call may have removed this one */
	entry = hash_search(entries, &trigger->tgoid, HASH_FIND, NULL);
	if (entry != NULL)
		entry->table = table;
	else
	{
		old = MemoryContextSwitchTo(TopMemoryContext);
		orphans = lappend(orphans, table);
		MemoryContextSwitchTo(old);
	}
	return table;
}
