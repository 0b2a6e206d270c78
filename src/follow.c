/*
 * follow.c
 *		Follows ALTER TABLE: keeps the arguments of our triggers true to the
 *		columns they name, and refuses what would make a condition untrue.
 *
 * Called by the event trigger at the end of the command, under the command's
 * own lock.  What the columns were called before is read from the latest row
 * of table_state, which a column's number links to what it is called now.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* a column as the latest state has it */
typedef struct FormerColumn
{
	char	   *name;
	char	   *type;
	AttrNumber	attnum;
	const char *now;			/* its name now; NULL: dropped */
	bool		same_type;
} FormerColumn;

/* ---- trigger arguments ---- */

/* Writes a trigger's arguments anew, everything else of it left alone. */
static void
set_arguments(Oid trigger, List *args)
{
	Relation	pg_trigger = table_open(TriggerRelationId, RowExclusiveLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	HeapTuple	changed;
	StringInfoData packed;
	ListCell   *lc;
	Datum		values[Natts_pg_trigger] = {0};
	bool		nulls[Natts_pg_trigger] = {0};
	bool		replace[Natts_pg_trigger] = {0};
	Oid			relid;

	/* the arguments' texts, each with a closing NUL, behind a varlena header */
	initStringInfo(&packed);
	appendStringInfoSpaces(&packed, VARHDRSZ);
	foreach(lc, args)
		appendBinaryStringInfo(&packed, lfirst(lc), strlen(lfirst(lc)) + 1);
	SET_VARSIZE(packed.data, packed.len);

	values[Anum_pg_trigger_tgnargs - 1] = Int16GetDatum((int16) list_length(args));
	replace[Anum_pg_trigger_tgnargs - 1] = true;
	values[Anum_pg_trigger_tgargs - 1] = PointerGetDatum(packed.data);
	replace[Anum_pg_trigger_tgargs - 1] = true;

	ScanKeyInit(&key, Anum_pg_trigger_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(trigger));
	scan = systable_beginscan(pg_trigger, TriggerOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "could not find trigger %u", trigger);
	relid = ((Form_pg_trigger) GETSTRUCT(tuple))->tgrelid;
	changed = heap_modify_tuple(tuple, RelationGetDescr(pg_trigger), values, nulls, replace);
	CatalogTupleUpdate(pg_trigger, &changed->t_self, changed);
	systable_endscan(scan);
	table_close(pg_trigger, NoLock);
	CacheInvalidateRelcacheByRelid(relid);
}

/*
 * audit_log._set_trigger_arguments(table regclass, trigger text, arguments
 * text[]) RETURNS void: for a table and, where it is partitioned, the clones
 * in its partitions.  The caller holds the lock that CREATE TRIGGER takes.
 */
PG_FUNCTION_INFO_V1(audit_log_set_trigger_arguments);
Datum
audit_log_set_trigger_arguments(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	List	   *args = NIL;
	List	   *relids;
	ListCell   *lc;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
		args = lappend(args, TextDatumGetCString(elems[i]));

	relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, ShareRowExclusiveLock, NULL) : list_make1_oid(relid);
	foreach(lc, relids)
	{
		Relation	rel = relation_open(lfirst_oid(lc), NoLock);
		Trigger    *trigger = al_table_trigger(rel, name, al_catalog_get()->capture);

		if (trigger != NULL)
			set_arguments(trigger->tgoid, args);
		relation_close(rel, NoLock);
	}
	CommandCounterIncrement();
	PG_RETURN_VOID();
}

/* ---- what the columns were ---- */

static Form_pg_attribute
live_attribute(TupleDesc desc, AttrNumber attnum)
{
	if (attnum < 1 || attnum > desc->natts ||
		TupleDescAttr(desc, attnum - 1)->attisdropped)
		return NULL;
	return TupleDescAttr(desc, attnum - 1);
}

/*
 * The columns of the latest state of the table with that uid, or of that name
 * where the trigger bears none; NIL where nothing is known yet.
 */
static List *
former_columns(Relation rel, const AlSettings *settings)
{
	static const char sql[] =
	"SELECT c ->> 'name', c ->> 'type', (c ->> 'number')::int2"
	" FROM (SELECT s.columns FROM audit_log.table_state s"
	"  JOIN audit_log.tracked_table t ON t.id = s.table_id"
	"  WHERE t.dropped_at IS NULL AND ($1 IS NULL OR t.uid = $1::uuid)"
	"  AND ($1 IS NOT NULL OR t.table_schema = $2 AND t.table_name = $3)"
	"  ORDER BY s.id DESC LIMIT 1) l,"
	" jsonb_array_elements(l.columns) c";
	Oid			types[] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	char		nulls[] = "   ";
	SPIPlanPtr	plan = SPI_prepare(sql, 3, types);
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *result = NIL;

	if (settings->table)
		values[0] = CStringGetTextDatum(settings->table);
	else
		nulls[0] = 'n';
	values[1] = CStringGetTextDatum(get_namespace_name(RelationGetNamespace(rel)));
	values[2] = CStringGetTextDatum(RelationGetRelationName(rel));

	/* the transaction's snapshot may be older than the table's audit */
	if (plan == NULL ||
		SPI_execute_snapshot(plan, values, nulls, GetLatestSnapshot(),
							 InvalidSnapshot, false, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.table_state");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		FormerColumn *column = palloc0(sizeof(FormerColumn));
		Form_pg_attribute att;
		bool		isnull;

		column->name = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1);
		column->type = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);
		column->attnum = DatumGetInt16(SPI_getbinval(tuple, SPI_tuptable->tupdesc,
													 3, &isnull));
		att = live_attribute(desc, column->attnum);
		if (att != NULL)
		{
			column->now = NameStr(att->attname);
			column->same_type =
				strcmp(column->type,
					   format_type_with_typemod(att->atttypid, att->atttypmod)) == 0;
		}
		result = lappend(result, column);
	}
	return result;
}

/* What a setting that names this column has to say now; NULL: dropped. */
static const char *
name_now(List *former, const char *name)
{
	ListCell   *lc;

	foreach(lc, former)
	{
		FormerColumn *column = lfirst(lc);

		if (strcmp(column->name, name) == 0)
			return column->now;
	}
	return name;				/* added since, or unknown: left alone */
}

static List *
names_now(List *former, List *names, bool *changed)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, names)
	{
		const char *now = name_now(former, lfirst(lc));

		if (now == NULL || strcmp(now, lfirst(lc)) != 0)
			*changed = true;
		if (now != NULL)
			result = lappend(result, pstrdup(now));
	}
	return result;
}

/* ---- one trigger ---- */

static char *
list_argument(const char *name, List *names)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(names), 1));
	int			n = 0;
	ListCell   *lc;
	ArrayType  *array;

	foreach(lc, names)
		elems[n++] = CStringGetTextDatum(lfirst(lc));
	array = construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT);
	return psprintf("%s=%s", name,
					OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array)));
}

static void
refuse_user_column(Relation rel, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop column \"%s\" of audited table \"%s\"",
					column, RelationGetRelationName(rel)),
			 errdetail("The column is the user_column of the table's audit."),
			 errhint("Run audit_log.enable() with another user_column first; '' means none.")));
}

static void
refuse_include(Relation rel, const char *column)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot drop column \"%s\" of audited table \"%s\"",
					column, RelationGetRelationName(rel)),
			 errdetail("No column would be left in the setting include of the table's audit."),
			 errhint("Run audit_log.enable() with another include first; '{}' means every column.")));
}

/* The templates with the columns' names of now; a column that they show is not dropped. */
static List *
descriptions_now(Relation rel, List *former, List *descriptions, bool *changed)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, descriptions)
	{
		AlDescription *description = palloc(sizeof(AlDescription));
		List	   *parts;
		ListCell   *lp;

		*description = *(const AlDescription *) lfirst(lc);
		parts = al_template_parse(description->template);
		foreach(lp, parts)
		{
			AlTemplatePart *part = lfirst(lp);
			const char *now = part->column ? name_now(former, part->column) : NULL;

			if (part->column == NULL)
				continue;
			if (now == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
						 errmsg("cannot drop column \"%s\" of audited table \"%s\"",
								part->column, RelationGetRelationName(rel)),
						 errdetail("The description \"%s\" shows the column.", description->template),
						 errhint("Run audit_log.describe() with another template first, or without one.")));
			if (strcmp(now, part->column) != 0)
			{
				*changed = true;
				part->column = pstrdup(now);
			}
		}
		description->template = al_template_write(parts);
		result = lappend(result, description);
	}
	return result;
}

/*
 * The trigger's arguments with the columns' names of now; NIL where none is
 * different.
 */
static List *
arguments_now(Relation rel, const Trigger *trigger, List *former)
{
	AlSettings *settings = al_settings_parse(trigger->tgnargs, trigger->tgargs,
											 RelationGetRelationName(rel));
	List	   *result = NIL;
	bool		changed = false;
	List	   *exclude = names_now(former, settings->exclude, &changed);
	List	   *include = names_now(former, settings->include, &changed);
	List	   *mask = names_now(former, settings->mask, &changed);
	List	   *describe = descriptions_now(rel, former, settings->describe, &changed);

	/* without a name the setting would mean every column */
	if (settings->include != NIL && include == NIL)
		refuse_include(rel, linitial(settings->include));
	for (int i = 0; i < trigger->tgnargs; i++)
	{
		char	   *arg = trigger->tgargs[i];

		if (strncmp(arg, "exclude=", 8) == 0)
			arg = exclude ? list_argument("exclude", exclude) : NULL;
		else if (strncmp(arg, "include=", 8) == 0)
			arg = list_argument("include", include);
		else if (strncmp(arg, "mask=", 5) == 0)
			arg = mask ? list_argument("mask", mask) : NULL;
		else if (strncmp(arg, "describe=", 9) == 0)
			arg = psprintf("describe=%s", al_settings_descriptions(describe));
		else if (strncmp(arg, "user_column=", 12) == 0)
		{
			const char *now = name_now(former, settings->user_column);

			if (now == NULL)
				refuse_user_column(rel, settings->user_column);
			if (strcmp(now, settings->user_column) != 0)
			{
				changed = true;
				arg = psprintf("user_column=%s", now);
			}
		}
		if (arg != NULL)
			result = lappend(result, pstrdup(arg));
	}
	return changed ? result : NIL;
}

static void
refuse_condition(Relation rel, const char *column, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("cannot %s column \"%s\" of audited table \"%s\"",
					what, column, RelationGetRelationName(rel)),
			 errdetail("The condition of the table's audit refers to the column."),
			 errhint("Run audit_log.enable() with another condition first.")));
}

/*
 * Does the text, a valid condition before, name this column (NULL: the whole
 * row)?  Not parsed: the parser evaluates constants, so that a domain's CHECK
 * in one would be run with the rights of whoever alters the table, or ours.
 */
static bool
condition_mentions(const char *condition, const char *column)
{
	/*
	 * The deparser writes every column as old.x or new.x; a trigger attached
	 * by hand may have it in capitals.
	 */
	const char *quoted = column ? quote_identifier(column) : "*";
	char	   *old = psprintf("old.%s", quoted);
	char	   *new = psprintf("new.%s", quoted);
	const char *text = asc_tolower(condition, strlen(condition));
	const char *found[] = {text, text};
	const char *terms[] = {asc_tolower(old, strlen(old)), asc_tolower(new, strlen(new))};

	for (int i = 0; i < 2; i++)
		while ((found[i] = strstr(found[i], terms[i])) != NULL)
		{
			char		next = found[i][strlen(terms[i])];

			if (!(isalnum((unsigned char) next) || next == '_' || next == '$' ||
				  IS_HIGHBIT_SET(next)) || quoted[0] == '"' || column == NULL)
				return true;
			found[i]++;
		}
	return false;
}

/*
 * A condition is text: a column renamed or dropped under it would make each
 * change fail, one of another type could change its meaning.
 */
static void
check_condition(Relation rel, const char *condition, List *former)
{
	ListCell   *lc;

	foreach(lc, former)
	{
		FormerColumn *column = lfirst(lc);

		if (column->now == NULL && condition_mentions(condition, column->name))
			refuse_condition(rel, column->name, "drop");
		if (column->now != NULL && strcmp(column->now, column->name) != 0 &&
			condition_mentions(condition, column->name))
			refuse_condition(rel, column->name, "rename");
		if (column->now != NULL && !column->same_type &&
			(condition_mentions(condition, column->now) ||
			 condition_mentions(condition, NULL)))
			refuse_condition(rel, column->now, "change the type of");
	}
}

static void
follow_relation(Relation rel, List *former)
{
	const AlCatalog *catalog = al_catalog_get();
	/* a copy: the catalog is written in between */
	TriggerDesc *desc = CopyTriggerDesc(rel->trigdesc);

	for (int i = 0; desc != NULL && i < desc->numtriggers; i++)
	{
		Trigger    *trigger = &desc->triggers[i];
		List	   *args;

		if (trigger->tgfoid != catalog->capture)
			continue;
		args = arguments_now(rel, trigger, former);
		if (args != NIL)
			set_arguments(trigger->tgoid, args);
	}
}

/* ---- at the end of the command ---- */

/*
 * audit_log._former_name(table regclass) RETURNS text[]: schema and name before
 * the command that has just renamed the table or moved it to another schema:
 * those of the newest version of its pg_class row that this transaction has
 * replaced.
 */
PG_FUNCTION_INFO_V1(audit_log_former_name);
Datum
audit_log_former_name(PG_FUNCTION_ARGS)
{
	Relation	pg_class = table_open(RelationRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	CommandId	newest = 0;
	Datum		names[2] = {0};

	ScanKeyInit(&key, Anum_pg_class_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(PG_GETARG_OID(0)));
	scan = systable_beginscan(pg_class, ClassOidIndexId, true, SnapshotAny, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		HeapTupleHeader header = tuple->t_data;
		Form_pg_class form = (Form_pg_class) GETSTRUCT(tuple);
		char	   *schema;

		if ((header->t_infomask & HEAP_XMAX_INVALID) ||
			HEAP_XMAX_IS_LOCKED_ONLY(header->t_infomask) ||
			!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(header)) ||
			(names[1] != (Datum) 0 && HeapTupleHeaderGetCmax(header) < newest) ||
			(schema = get_namespace_name(form->relnamespace)) == NULL)
			continue;
		newest = HeapTupleHeaderGetCmax(header);
		names[0] = CStringGetTextDatum(schema);
		names[1] = CStringGetTextDatum(NameStr(form->relname));
	}
	systable_endscan(scan);
	table_close(pg_class, AccessShareLock);
	if (names[1] == (Datum) 0)
		PG_RETURN_NULL();
	PG_RETURN_ARRAYTYPE_P(construct_array(names, 2, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * audit_log._follow(table regclass) RETURNS boolean: whether the table bears a
 * trigger of ours.  Not for partitions: their root's call serves them.
 */
PG_FUNCTION_INFO_V1(audit_log_follow);
Datum
audit_log_follow(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	const AlCatalog *catalog = al_catalog_get();
	Relation	rel = try_relation_open(relid, AccessShareLock);
	Trigger    *trigger;
	AlSettings *settings;
	List	   *former;
	bool		masked;

	if (rel == NULL)
		PG_RETURN_BOOL(false);
	trigger = al_table_trigger(rel, AL_ROW_TRIGGER, catalog->capture);
	if (trigger == NULL)
		trigger = al_table_trigger(rel, NULL, catalog->capture);
	if (trigger == NULL || rel->rd_rel->relispartition)
	{
		relation_close(rel, NoLock);
		PG_RETURN_BOOL(false);
	}

	SPI_connect();
	settings = al_settings_parse(trigger->tgnargs, trigger->tgargs,
								 RelationGetRelationName(rel));
	former = former_columns(rel, settings);
	masked = settings->mask != NIL;
	if (former != NIL)
	{
		List	   *relids = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ?
			find_all_inheritors(relid, AccessShareLock, NULL) : list_make1_oid(relid);
		ListCell   *lc;

		if (settings->condition)
			check_condition(rel, settings->condition, former);
		foreach(lc, relids)
		{
			Relation	member = relation_open(lfirst_oid(lc), NoLock);

			follow_relation(member, former);
			relation_close(member, NoLock);
		}
		CommandCounterIncrement();
	}
	SPI_finish();
	relation_close(rel, NoLock);

	/*
	 * A table of which nothing is known yet is registered by its first change,
	 * not here: while a dump is restored, its row may be about to come.  Nor is
	 * the key made here that a dump does not carry.
	 */
	if (former == NIL || (masked && al_mask_fingerprint() == NULL))
		PG_RETURN_BOOL(true);

	/* the relation's triggers may be others now */
	rel = relation_open(relid, AccessShareLock);
	trigger = al_table_trigger(rel, AL_ROW_TRIGGER, catalog->capture);
	if (trigger == NULL)
		trigger = al_table_trigger(rel, NULL, catalog->capture);
	al_register_state(al_table_get(rel, trigger), NULL, NULL);
	relation_close(rel, NoLock);
	PG_RETURN_BOOL(true);
}
