/*
 * obstacle.c
 *		What would keep the rows of a plan from being written: keys that other
 *		rows have, parents that are not there, children that would be left
 *		alone.  Found by queries over the rows as they are to be, before
 *		anything is written.
 *
 * Rows are written in this order, and foreign keys are checked at the end: so
 * a key is free that a row has which is deleted; one that a row has which gets
 * another needs that row to make way first (park, replace).
 *
 * Lives as long as a call; the caller is connected to SPI.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relation.h"
#include "access/sysattr.h"
#include "access/table.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

typedef struct Place
{
	Oid			tableoid;
	ItemPointerData tid;
} Place;

typedef struct PlaceEntry
{
	Place		place;
	AlPlanRow  *row;
} PlaceEntry;

typedef struct Search
{
	AlPlan	   *plan;
	HTAB	   *by_place;
	bool		changed;		/* a row was left out, so all is to be looked at anew */
} Search;

/* ---- rows of the plan by where they stand ---- */

static void
set_place(Place *place, Oid tableoid, ItemPointer tid)
{
	memset(place, 0, sizeof(Place));
	place->tableoid = tableoid;
	place->tid = *tid;
}

static void
note_places(Search *search)
{
	HASHCTL		ctl = {.keysize = sizeof(Place),.entrysize = sizeof(PlaceEntry),.hcxt = CurrentMemoryContext};
	ListCell   *lc;

	search->by_place = hash_create("audit_log places", 256, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, search->plan->tables)
	{
		AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
		{
			AlPlanRow  *row = table->rows[i];
			Place		place;

			if (!row->present)
				continue;
			set_place(&place, row->tableoid, &row->tuple->t_self);
			((PlaceEntry *) hash_search(search->by_place, &place, HASH_ENTER, NULL))->row = row;
		}
	}
}

/* Columns first and first + 1 of a result are tableoid and ctid. */
static AlPlanRow *
row_at(Search *search, HeapTuple result, TupleDesc desc, int first)
{
	bool		isnull;
	Datum		tableoid = SPI_getbinval(result, desc, first, &isnull);
	Datum		tid = SPI_getbinval(result, desc, first + 1, &isnull);
	Place		place;
	PlaceEntry *entry;

	if (isnull)
		return NULL;
	set_place(&place, DatumGetObjectId(tableoid), (ItemPointer) DatumGetPointer(tid));
	entry = hash_search(search->by_place, &place, HASH_FIND, NULL);
	return entry ? entry->row : NULL;
}

static AlPlanRow *
row_of(AlPlanTable *table, HeapTuple result, TupleDesc desc, int column)
{
	bool		isnull;

	return table->rows[DatumGetInt32(SPI_getbinval(result, desc, column, &isnull))];
}

static void
leave_out(Search *search, AlPlanRow *row, const char *text)
{
	if (row->left_out)
		return;
	al_plan_leave_out(row, text);
	search->changed = true;
}

static const char *
only(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static char *
qualified(Relation rel)
{
	return quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
									  RelationGetRelationName(rel));
}

/* ---- keys ---- */

/* one unique index or exclusion constraint */
typedef struct Key
{
	Relation	index;
	char	   *name;
	bool		immediate;		/* no two rows may have it at any time */
	bool		nulls_equal;
	int			n;
	char	  **expressions;	/* over a relation with the table's columns */
	Oid		   *types;
	Oid		   *operators;
	char	   *predicate;		/* NULL: none */
	Bitmapset  *columns;		/* that it depends on */
	AttrNumber *attnums;		/* 0: an expression */
} Key;

static void
add_columns(Key *key, Node *expression)
{
	Bitmapset  *found = NULL;
	int			i = -1;

	pull_varattnos(expression, 1, &found);
	while ((i = bms_next_member(found, i)) >= 0)
		key->columns = bms_add_member(key->columns, i + FirstLowInvalidHeapAttributeNumber > 0 ?
									  i + FirstLowInvalidHeapAttributeNumber : 0);
}

static char *
with_collation(char *expression, Oid type, Oid collation)
{
	if (!OidIsValid(collation) || !type_is_collatable(type))
		return expression;
	return psprintf("(%s COLLATE %s)", expression, generate_collation_name(collation));
}

/* false: it is no key */
static bool
open_key(AlPlanTable *table, Relation index, Key *key)
{
	IndexInfo  *info;
	TupleDesc	desc = RelationGetDescr(table->rel);
	List	   *context = deparse_context_for(RelationGetRelationName(table->rel), table->relid);
	ListCell   *expression;

	if ((!index->rd_index->indisunique && !index->rd_index->indisexclusion) ||
		!index->rd_index->indislive)
		return false;
	memset(key, 0, sizeof(Key));
	info = BuildIndexInfo(index);
	if (!index->rd_index->indisexclusion && index->rd_rel->relam != BTREE_AM_OID)
		return false;
	key->index = index;
	key->name = RelationGetRelationName(index);
	key->immediate = index->rd_index->indimmediate;
	key->nulls_equal = index->rd_index->indnullsnotdistinct;
	key->n = IndexRelationGetNumberOfKeyAttributes(index);
	key->expressions = palloc(sizeof(char *) * key->n);
	key->types = palloc(sizeof(Oid) * key->n);
	key->operators = palloc(sizeof(Oid) * key->n);
	key->attnums = palloc(sizeof(AttrNumber) * key->n);
	expression = list_head(info->ii_Expressions);
	for (int i = 0; i < key->n; i++)
	{
		AttrNumber	attnum = info->ii_IndexAttrNumbers[i];

		key->attnums[i] = attnum;
		if (attnum != 0)
		{
			Form_pg_attribute att = TupleDescAttr(desc, attnum - 1);

			key->types[i] = att->atttypid;
			key->expressions[i] = pstrdup(quote_identifier(NameStr(att->attname)));
			key->columns = bms_add_member(key->columns, attnum);
		}
		else
		{
			Node	   *node = lfirst(expression);

			expression = lnext(info->ii_Expressions, expression);
			key->types[i] = exprType(node);
			key->expressions[i] = psprintf("(%s)", deparse_expression(node, context, false, false));
			add_columns(key, node);
		}
		key->expressions[i] = with_collation(key->expressions[i], key->types[i],
											 index->rd_indcollation[i]);
		key->operators[i] = info->ii_ExclusionOps != NULL ? info->ii_ExclusionOps[i] :
			get_opfamily_member(index->rd_opfamily[i], index->rd_opcintype[i],
								index->rd_opcintype[i], BTEqualStrategyNumber);
	}
	if (info->ii_Predicate != NIL)
	{
		key->predicate = deparse_expression((Node *) make_ands_explicit(info->ii_Predicate),
											context, false, false);
		add_columns(key, (Node *) info->ii_Predicate);
	}
	return true;
}

/* The key over a relation: extra is what else is selected. */
static char *
key_over(const Key *key, const char *relation, const char *extra)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "(SELECT %s", extra);
	for (int i = 0; i < key->n; i++)
		appendStringInfo(&buf, ", %s AS audit_log_e%d", key->expressions[i], i);
	appendStringInfo(&buf, " FROM %s%s%s)", relation, key->predicate ? " WHERE " : "",
					 key->predicate ? key->predicate : "");
	return buf.data;
}

static char *
keys_meet(const Key *key, const char *a, const char *b)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < key->n; i++)
	{
		char	   *left = psprintf("%s.audit_log_e%d", a, i);
		char	   *right = psprintf("%s.audit_log_e%d", b, i);

		appendStringInfoString(&buf, i > 0 ? " AND (" : "(");
		generate_operator_clause(&buf, left, key->types[i], key->operators[i], right, key->types[i]);
		if (key->nulls_equal)
			appendStringInfo(&buf, " OR %s IS NULL AND %s IS NULL", left, right);
		appendStringInfoChar(&buf, ')');
	}
	return buf.data;
}

/* Does it get another key? */
static bool
writes(const AlPlanRow *row, Bitmapset *columns)
{
	/* 0 is the whole row, as expressions have it */
	return !row->left_out &&
		(row->action == AL_PLAN_INSERT ||
		 (row->action == AL_PLAN_UPDATE &&
		  (bms_overlap(row->columns, columns) || bms_is_member(0, columns) ||
		   bms_overlap(row->table->generated, columns))));
}

static AlRowset *
aims(AlPlanTable *table, Bitmapset *columns, const char *name)
{
	AlRowset   *rowset = al_rowset_make(table, name);

	for (int i = 0; i < table->nrows; i++)
		if (writes(table->rows[i], columns))
			al_rowset_add(rowset, table->rows[i], false, columns);
	if (rowset->nrows > 0)
		al_rowset_register(rowset);
	return rowset;
}

/* ---- making way ---- */

/* Would deleting a row do more than what a foreign key checks at the end? */
static bool
deletion_acts(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		HeapTuple	tuple;
		char		action;

		if (RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_PK ||
			(trigger->tgtype & TRIGGER_TYPE_DELETE) == 0)
			continue;
		tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(trigger->tgconstraint));
		if (!HeapTupleIsValid(tuple))
			continue;
		action = ((Form_pg_constraint) GETSTRUCT(tuple))->confdeltype;
		ReleaseSysCache(tuple);
		if (action != FKCONSTR_ACTION_NOACTION)
			return true;
	}
	return false;
}

/*
 * An expression for values of a column that no row has, now or then: r is a row
 * of a rowset, audit_log_aims are all rows to be (rewrite.c).  NULL: there is
 * none.
 */
static char *
parking_expression(AlPlanTable *table, AttrNumber attnum, const char *no)
{
	Form_pg_attribute att = TupleDescAttr(RelationGetDescr(table->rel), attnum - 1);
	const char *column = quote_identifier(NameStr(att->attname));
	const char *greatest = psprintf("(SELECT pg_catalog.max(m.v) FROM (SELECT t.%s AS v FROM %s%s t "
									"UNION ALL SELECT a.%s FROM audit_log_aims a) m)",
									column, only(table->rel), table->name, column);

	switch (att->atttypid)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case NUMERICOID:
		case DATEOID:
			return psprintf("%s OPERATOR(pg_catalog.+) 1 OPERATOR(pg_catalog.+) r.%s", greatest, no);
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return psprintf("%s OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => 1 OPERATOR(pg_catalog.+) r.%s)",
							greatest, no);
		case UUIDOID:
			return pstrdup("pg_catalog.gen_random_uuid()");
		case TEXTOID:
			return pstrdup("pg_catalog.gen_random_uuid()::pg_catalog.text");
		case VARCHAROID:
			if (att->atttypmod < 0 || att->atttypmod - VARHDRSZ >= 36)
				return pstrdup("pg_catalog.gen_random_uuid()::pg_catalog.text");
			return NULL;
		case BYTEAOID:
			return pstrdup("pg_catalog.uuid_send(pg_catalog.gen_random_uuid())");
		default:
			break;
	}
	if (get_typtype(att->atttypid) == TYPTYPE_RANGE)
		return psprintf("'empty'::%s", format_type_with_typemod(att->atttypid, att->atttypmod));
	return NULL;
}

static void
set_parking(Search *search, AlPlanRow *row, AttrNumber attnum, const char *expression)
{
	AlPlanTable *table = row->table;
	MemoryContext old = MemoryContextSwitchTo(search->plan->cxt);

	if (table->parking == NULL)
		table->parking = palloc0(sizeof(char *) * RelationGetDescr(table->rel)->natts);
	if (table->parking[attnum - 1] == NULL)
		table->parking[attnum - 1] = pstrdup(expression);
	row->park = bms_add_member(row->park, attnum);
	MemoryContextSwitchTo(old);
}

static bool
may_park(const AlPlanTable *table, AttrNumber attnum)
{
	Form_pg_attribute att;

	if (attnum == 0 || bms_is_member(attnum, table->generated))
		return false;
	for (int i = 0; i < table->nkeys; i++)
		if (table->keys[i] == attnum)
			return false;		/* by which it is found */
	att = TupleDescAttr(RelationGetDescr(table->rel), attnum - 1);
	return att->attidentity != ATTRIBUTE_IDENTITY_ALWAYS;
}

/*
 * A row has a key that another one gets while it keeps existing, too: it makes
 * way.  By NULL where it may; else by DELETE and INSERT where no foreign key
 * acts on that; else by a value of its own.  Its children keep their parent in
 * each of these.
 */
static void
make_way(Search *search, AlPlanRow *row, const Key *key, const char *no)
{
	AlPlanTable *table = row->table;
	TupleDesc	desc = RelationGetDescr(table->rel);

	if (row->replace || bms_overlap(row->park, key->columns))
		return;
	for (int i = 0; i < key->n; i++)
	{
		AttrNumber	attnum = key->attnums[i];

		if (may_park(table, attnum) && !key->nulls_equal &&
			!TupleDescAttr(desc, attnum - 1)->attnotnull &&
			get_typtype(TupleDescAttr(desc, attnum - 1)->atttypid) != TYPTYPE_DOMAIN)
		{
			set_parking(search, row, attnum, "NULL");
			return;
		}
	}
	if (!deletion_acts(table->rel))
	{
		row->replace = true;
		return;
	}
	for (int i = 0; i < key->n; i++)
	{
		AttrNumber	attnum = key->attnums[i];
		char	   *expression = may_park(table, attnum) ? parking_expression(table, attnum, no) : NULL;

		if (expression != NULL)
		{
			set_parking(search, row, attnum, expression);
			break;
		}
	}
	if (!bms_overlap(row->park, key->columns))
		leave_out(search, row, psprintf("its key is swapped with another row's (\"%s\"), and no value can stand in between",
										key->name));
}

/* ---- keys that are taken ---- */

static char *
record_text(const AlPlanRow *row)
{
	return row->id ? psprintf(" (record %s)", row->id) : "";
}

static void
check_against_table(Search *search, AlPlanTable *table, const Key *key, AlRowset *rowset)
{
	StringInfoData sql;
	uint64		n;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.%s, t.audit_log_t, t.audit_log_c FROM %s n JOIN %s t ON %s",
					 rowset->no, key_over(key, rowset->name, rowset->no),
					 key_over(key, psprintf("%s%s", only(table->rel), table->name),
							  "tableoid AS audit_log_t, ctid AS audit_log_c"),
					 keys_meet(key, "t", "n"));
	n = al_run(sql.data, false);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	result = SPI_tuptable->vals[i];
		AlPlanRow  *row = row_of(table, result, SPI_tuptable->tupdesc, 1);
		AlPlanRow  *other = row_at(search, result, SPI_tuptable->tupdesc, 2);

		if (row == other || row->left_out)
			continue;
		if (other != NULL && !other->left_out && other->action == AL_PLAN_DELETE)
			continue;
		/* whether it gets the very same key again, the rows to be tell */
		if (other != NULL && writes(other, key->columns))
		{
			if (key->immediate && row->action == AL_PLAN_UPDATE)
				make_way(search, other, key, rowset->no);
			continue;
		}
		leave_out(search, row, psprintf("key taken by another row%s: \"%s\"",
										other ? record_text(other) : "", key->name));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
check_among_aims(Search *search, AlPlanTable *table, const Key *key, AlRowset *rowset)
{
	StringInfoData sql;
	uint64		n;

	if (rowset->nrows < 2)
		return;
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.%s, m.%s FROM %s n JOIN %s m ON %s AND n.%s OPERATOR(pg_catalog.>) m.%s",
					 rowset->no, rowset->no, key_over(key, rowset->name, rowset->no),
					 key_over(key, rowset->name, rowset->no), keys_meet(key, "m", "n"),
					 rowset->no, rowset->no);
	n = al_run(sql.data, false);
	for (uint64 i = 0; i < n; i++)
	{
		AlPlanRow  *row = row_of(table, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);
		AlPlanRow  *other = row_of(table, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2);

		if (!other->left_out)
			leave_out(search, row, psprintf("key taken by another row%s: \"%s\"",
											record_text(other), key->name));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
check_keys(Search *search, AlPlanTable *table)
{
	List	   *indexes = RelationGetIndexList(table->rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);
		Key			key;
		AlRowset   *rowset;

		if (open_key(table, index, &key))
		{
			rowset = aims(table, key.columns, "audit_log_rows");
			if (rowset->nrows > 0)
			{
				check_against_table(search, table, &key, rowset);
				check_among_aims(search, table, &key, rowset);
				al_rowset_free(rowset);
			}
			else
				tuplestore_end(rowset->store);
		}
		index_close(index, AccessShareLock);
	}
}

/* ---- foreign keys ---- */

typedef struct ForeignKey
{
	char	   *name;
	Oid			child;
	Oid			parent;
	char		on_update;
	char		on_delete;
	int			n;
	AttrNumber	child_columns[INDEX_MAX_KEYS];
	AttrNumber	parent_columns[INDEX_MAX_KEYS];
	Oid			parent_child[INDEX_MAX_KEYS];	/* operators: parent = child */
	Oid			parent_parent[INDEX_MAX_KEYS];
} ForeignKey;

static bool
open_foreign_key(Oid constraint, ForeignKey *key)
{
	HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(constraint));
	Form_pg_constraint form;
	Oid			child_child[INDEX_MAX_KEYS];
	int			nset;
	AttrNumber	set[INDEX_MAX_KEYS];

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_constraint) GETSTRUCT(tuple);
	if (form->contype != CONSTRAINT_FOREIGN || !AL_CONSTRAINT_ENFORCED(form) ||
		AL_CONSTRAINT_PERIOD(form))
	{
		ReleaseSysCache(tuple);
		return false;
	}
	memset(key, 0, sizeof(ForeignKey));
	key->name = pstrdup(NameStr(form->conname));
	key->child = form->conrelid;
	key->parent = form->confrelid;
	key->on_update = form->confupdtype;
	key->on_delete = form->confdeltype;
	DeconstructFkConstraintRow(tuple, &key->n, key->child_columns, key->parent_columns,
							   key->parent_child, key->parent_parent, child_child, &nset, set);
	ReleaseSysCache(tuple);
	return true;
}

static Bitmapset *
columns_of(const AttrNumber *attnums, int n)
{
	Bitmapset  *columns = NULL;

	for (int i = 0; i < n; i++)
		columns = bms_add_member(columns, attnums[i]);
	return columns;
}

static void
add_match(StringInfo buf, const Oid *operators, int n,
		  const char *left, Relation left_rel, const AttrNumber *left_columns,
		  const char *right, Relation right_rel, const AttrNumber *right_columns)
{
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute l = TupleDescAttr(RelationGetDescr(left_rel), left_columns[i] - 1);
		Form_pg_attribute r = TupleDescAttr(RelationGetDescr(right_rel), right_columns[i] - 1);

		if (i > 0)
			appendStringInfoString(buf, " AND ");
		generate_operator_clause(buf, psprintf("%s.%s", left, quote_identifier(NameStr(l->attname))),
								 l->atttypid, operators[i],
								 psprintf("%s.%s", right, quote_identifier(NameStr(r->attname))),
								 r->atttypid);
		/* the parent's collation rules, as in the server's own check */
		if (OidIsValid(l->attcollation) && l->attcollation != r->attcollation)
			appendStringInfo(buf, " COLLATE %s", generate_collation_name(l->attcollation));
	}
}

/* As the caller where he may read the table, else as its owner. */
static uint64
look_at(Relation rel, const char *sql)
{
	return al_own_may_read(RelationGetRelid(rel), GetUserId()) ? al_run(sql, false) :
		al_run_as(rel->rd_rel->relowner, sql);
}

/*
 * Drops from a list of rows those for which a row to be of the parent table has
 * what they need: columns of the table of set (registered) against that.
 */
static List *
without_provided(Search *search, List *rows, AlPlanTable *table, AlRowset *set,
				 const AttrNumber *columns, const Oid *operators, const ForeignKey *key)
{
	AlPlanTable *parent = al_plan_table(search->plan, key->parent);
	AlRowset   *aimed;
	StringInfoData sql;
	uint64		n;

	if (parent == NULL || rows == NIL)
		return rows;
	aimed = aims(parent, columns_of(key->parent_columns, key->n), "audit_log_parents");
	if (aimed->nrows == 0)
	{
		tuplestore_end(aimed->store);
		return rows;
	}
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.%s FROM %s n JOIN %s q ON ", set->no, set->name, aimed->name);
	add_match(&sql, operators, key->n, "q", parent->rel, key->parent_columns, "n", table->rel, columns);
	n = al_run(sql.data, false);
	if (n > 0)
	{
		Bitmapset  *provided = NULL;
		List	   *rest = NIL;
		ListCell   *lc;

		for (uint64 i = 0; i < n; i++)
			provided = bms_add_member(provided,
									  row_of(table, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1)->no);
		foreach(lc, rows)
			if (!bms_is_member(((AlPlanRow *) lfirst(lc))->no, provided))
				rest = lappend(rest, lfirst(lc));
		rows = rest;
	}
	SPI_freetuptable(SPI_tuptable);
	al_rowset_free(aimed);
	return rows;
}

/* Rows to be of a child table need their parents. */
static void
check_parents(Search *search, AlPlanTable *table, const ForeignKey *key)
{
	AlRowset   *rowset = aims(table, columns_of(key->child_columns, key->n), "audit_log_rows");
	Relation	parent;
	Bitmapset  *parent_columns = columns_of(key->parent_columns, key->n);
	StringInfoData sql;
	List	   *rows = NIL;
	ListCell   *lc;
	uint64		n;

	if (rowset->nrows == 0)
	{
		tuplestore_end(rowset->store);
		return;
	}
	parent = table_open(key->parent, AccessShareLock);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.%s, p.tableoid, p.ctid FROM %s n LEFT JOIN %s%s p ON ",
					 rowset->no, rowset->name, only(parent), qualified(parent));
	add_match(&sql, key->parent_child, key->n, "p", parent, key->parent_columns,
			  "n", table->rel, key->child_columns);
	for (int i = 0; i < key->n; i++)
		appendStringInfo(&sql, "%s n.%s IS NOT NULL", i == 0 ? " WHERE" : " AND",
						 rowset->columns[key->child_columns[i] - 1]);
	n = look_at(parent, sql.data);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	result = SPI_tuptable->vals[i];
		AlPlanRow  *row = row_of(table, result, SPI_tuptable->tupdesc, 1);
		AlPlanRow  *there = row_at(search, result, SPI_tuptable->tupdesc, 2);
		bool		isnull;

		(void) SPI_getbinval(result, SPI_tuptable->tupdesc, 2, &isnull);
		if (isnull || (there != NULL && !there->left_out &&
					   (there->action == AL_PLAN_DELETE || writes(there, parent_columns))))
			rows = lappend(rows, row);
	}
	SPI_freetuptable(SPI_tuptable);
	rows = without_provided(search, rows, table, rowset, key->child_columns, key->parent_child, key);
	foreach(lc, rows)
		leave_out(search, lfirst(lc), psprintf("parent missing in table %s: foreign key \"%s\"",
											   qualified(parent), key->name));
	al_rowset_free(rowset);
	table_close(parent, NoLock);
}

/* Rows that go, or get another key, must not be needed by those that stay. */
static void
check_children(Search *search, AlPlanTable *table, const ForeignKey *key)
{
	AlRowset   *rowset = al_rowset_make(table, "audit_log_rows");
	AlPlanTable *child_table = al_plan_table(search->plan, key->child);
	Bitmapset  *parent_columns = columns_of(key->parent_columns, key->n);
	Bitmapset  *child_columns = columns_of(key->child_columns, key->n);
	Relation	child;
	StringInfoData sql;
	List	   *rows = NIL;
	List	   *restricted = NIL;
	Bitmapset  *seen = NULL;
	ListCell   *lc;
	uint64		n;
	bool		acted = false;

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];
		char		action;

		if (row->left_out || !row->present)
			continue;
		if (row->action == AL_PLAN_DELETE)
			action = key->on_delete;
		else if (row->action == AL_PLAN_UPDATE && bms_overlap(row->columns, parent_columns))
			action = row->replace ? key->on_delete : key->on_update;
		else
			continue;
		/* the others act */
		if (action == FKCONSTR_ACTION_NOACTION || action == FKCONSTR_ACTION_RESTRICT)
			al_rowset_add(rowset, row, true, parent_columns);
		else
			acted = true;
	}
	/* it may act on rows whose parent has been replaced by another one */
	if (acted && child_table != NULL)
		child_table->again = true;
	if (rowset->nrows == 0)
	{
		tuplestore_end(rowset->store);
		return;
	}
	al_rowset_register(rowset);
	child = table_open(key->child, AccessShareLock);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.%s, c.tableoid, c.ctid FROM %s n JOIN %s%s c ON ",
					 rowset->no, rowset->name, only(child), qualified(child));
	add_match(&sql, key->parent_child, key->n, "n", table->rel, key->parent_columns,
			  "c", child, key->child_columns);
	n = look_at(child, sql.data);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	result = SPI_tuptable->vals[i];
		AlPlanRow  *there = row_at(search, result, SPI_tuptable->tupdesc, 2);
		AlPlanRow  *row;

		if (there != NULL && !there->left_out &&
			(there->action == AL_PLAN_DELETE ||
			 (there->action == AL_PLAN_UPDATE && bms_overlap(there->columns, child_columns))))
			continue;
		row = row_of(table, result, SPI_tuptable->tupdesc, 1);
		if (bms_is_member(row->no, seen))
			continue;
		seen = bms_add_member(seen, row->no);
		/* which does not care whether another row has the key then */
		if ((row->action == AL_PLAN_DELETE ? key->on_delete : key->on_update) == FKCONSTR_ACTION_RESTRICT &&
			!row->replace)
			restricted = lappend(restricted, row);
		else
			rows = lappend(rows, row);
	}
	SPI_freetuptable(SPI_tuptable);
	rows = without_provided(search, rows, table, rowset, key->parent_columns, key->parent_parent, key);
	rows = list_concat(rows, restricted);
	foreach(lc, rows)
		leave_out(search, lfirst(lc), psprintf("still referenced by table %s: foreign key \"%s\"",
											   qualified(child), key->name));
	al_rowset_free(rowset);
	table_close(child, NoLock);
}

static void
check_foreign_keys(Search *search, AlPlanTable *table)
{
	TriggerDesc *triggers = table->rel->trigdesc;
	List	   *done = NIL;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		Trigger    *trigger = &triggers->triggers[i];
		int			type = RI_FKey_trigger_type(trigger->tgfoid);
		ForeignKey	key;

		if (type == RI_TRIGGER_NONE || !OidIsValid(trigger->tgconstraint))
			continue;
		/* each has two triggers on either side, and both sides may be the same table */
		if (list_member_oid(done, trigger->tgconstraint) ||
			!open_foreign_key(trigger->tgconstraint, &key))
			continue;
		done = lappend_oid(done, trigger->tgconstraint);
		/* the constraints of single partitions repeat the whole's */
		if (key.child == table->relid)
			check_parents(search, table, &key);
		if (key.parent == table->relid)
			check_children(search, table, &key);
	}
}

/* ---- all of it ---- */

static void
look(Search *search)
{
	ListCell   *lc;

	search->changed = false;
	foreach(lc, search->plan->tables)
	{
		AlPlanTable *table = lfirst(lc);

		for (int i = 0; i < table->nrows; i++)
		{
			table->rows[i]->replace = false;
			table->rows[i]->park = NULL;
		}
		table->again = false;
	}
	foreach(lc, search->plan->tables)
		check_keys(search, lfirst(lc));
	foreach(lc, search->plan->tables)
		check_foreign_keys(search, lfirst(lc));
}

/*
 * Leaves out the rows that cannot be written, each with its conflict; since
 * that may make others impossible, until nothing changes.  Says of the rest which
 * rows have to make way.
 */
void
al_obstacle_find(AlPlan *plan)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log obstacles",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Search		search = {plan, NULL, false};

	note_places(&search);
	do
		look(&search);
	while (search.changed);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}
