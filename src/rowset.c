/*
 * rowset.c
 *		Rows of a plan as a relation that statements read: a tuplestore that
 *		stands in the FROM of what SPI runs, as transition tables do.
 *
 * Its columns are the row's number in the plan, where the row stands now
 * (tableoid, ctid), its key now, and the columns of the table under their own
 * names: so expressions of the table's indexes can be evaluated over it.  The
 * names of ours are such as the table has no column of.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "audit_log.h"

/* A column name that the table has not; not quoted. */
static char *
free_name(const AlPlanTable *table, const char *base)
{
	TupleDesc	desc = RelationGetDescr(table->rel);
	char	   *name = pstrdup(base);

	for (int i = 0; i < desc->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
		{
			/* begin anew with another name */
			name = psprintf("%s_%d", base, i);
			i = -1;
			base = name;
		}
	return name;
}

static void
init_column(AlRowset *rowset, AttrNumber attnum, const char *name, Form_pg_attribute as)
{
	TupleDescInitEntry(rowset->desc, attnum, name, as->atttypid, as->atttypmod, as->attndims);
	TupleDescInitEntryCollation(rowset->desc, attnum, as->attcollation);
}

static bool
has_column(const AlPlanTable *table, Form_pg_attribute att)
{
	return !att->attisdropped && !bms_is_member(att->attnum, table->virtual);
}

/* name is that under which statements find it */
AlRowset *
al_rowset_make(AlPlanTable *table, const char *name)
{
	AlRowset   *rowset = palloc0(sizeof(AlRowset));
	TupleDesc	desc = RelationGetDescr(table->rel);
	AttrNumber	n = 3 + table->nkeys;
	char	   *no = free_name(table, "audit_log_no");
	char	   *tableoid = free_name(table, "audit_log_tableoid");
	char	   *tid = free_name(table, "audit_log_ctid");

	for (int i = 0; i < desc->natts; i++)
		n += has_column(table, TupleDescAttr(desc, i));
	rowset->table = table;
	rowset->desc = CreateTemplateTupleDesc(n);
	rowset->name = pstrdup(name);
	rowset->no = pstrdup(quote_identifier(no));
	rowset->tableoid = pstrdup(quote_identifier(tableoid));
	rowset->tid = pstrdup(quote_identifier(tid));
	rowset->keys = palloc(sizeof(char *) * Max(table->nkeys, 1));
	rowset->columns = palloc0(sizeof(char *) * Max(desc->natts, 1));
	rowset->attnums = palloc0(sizeof(AttrNumber) * Max(desc->natts, 1));

	TupleDescInitEntry(rowset->desc, 1, no, INT4OID, -1, 0);
	TupleDescInitEntry(rowset->desc, 2, tableoid, OIDOID, -1, 0);
	TupleDescInitEntry(rowset->desc, 3, tid, TIDOID, -1, 0);
	n = 3;
	for (int i = 0; i < table->nkeys; i++)
	{
		char	   *key = free_name(table, psprintf("audit_log_key%d", i + 1));

		rowset->keys[i] = pstrdup(quote_identifier(key));
		init_column(rowset, ++n, key, TupleDescAttr(desc, table->keys[i] - 1));
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!has_column(table, att))
			continue;
		rowset->columns[i] = pstrdup(quote_identifier(NameStr(att->attname)));
		init_column(rowset, ++n, NameStr(att->attname), att);
		rowset->attnums[i] = n;
	}
	AL_TUPLE_DESC_FINALIZE(rowset->desc);
	rowset->store = tuplestore_begin_heap(false, false, Max(work_mem, maintenance_work_mem));
	return rowset;
}

/*
 * present: its columns as they stand now, else as they are to be.  columns:
 * attribute numbers of those that are looked at, the others are NULL; with 0
 * among them, all.
 */
void
al_rowset_add(AlRowset *rowset, AlPlanRow *row, bool present, const Bitmapset *columns)
{
	AlPlanTable *table = rowset->table;
	TupleDesc	desc = RelationGetDescr(table->rel);
	HeapTuple	tuple = present ? row->tuple : row->target;
	Datum	   *from = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *from_nulls = palloc(sizeof(bool) * Max(desc->natts, 1));
	Datum	   *values = palloc0(sizeof(Datum) * rowset->desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * rowset->desc->natts);

	memset(nulls, true, sizeof(bool) * rowset->desc->natts);
	values[0] = Int32GetDatum(row->no);
	nulls[0] = false;
	if (row->present)
	{
		values[1] = ObjectIdGetDatum(row->tableoid);
		values[2] = PointerGetDatum(&row->tuple->t_self);
		nulls[1] = nulls[2] = false;
		for (int i = 0; i < table->nkeys; i++)
			values[3 + i] = heap_getattr(row->tuple, table->keys[i], desc, &nulls[3 + i]);
	}
	if (tuple != NULL && !bms_is_empty(columns))
	{
		bool		all = bms_is_member(0, columns);

		heap_deform_tuple(tuple, desc, from, from_nulls);
		for (int i = 0; i < desc->natts; i++)
			if (rowset->attnums[i] != 0 && (all || bms_is_member(i + 1, columns)))
			{
				values[rowset->attnums[i] - 1] = from[i];
				nulls[rowset->attnums[i] - 1] = from_nulls[i];
			}
	}
	tuplestore_putvalues(rowset->store, rowset->desc, values, nulls);
	rowset->nrows++;
	pfree(from);
	pfree(from_nulls);
	pfree(values);
	pfree(nulls);
}

/* A row of which nothing is known but its key; values by attribute number from 0. */
void
al_rowset_add_key(AlRowset *rowset, AlPlanRow *row, const Datum *values, const bool *nulls)
{
	Datum	   *put = palloc0(sizeof(Datum) * rowset->desc->natts);
	bool	   *put_nulls = palloc(sizeof(bool) * rowset->desc->natts);

	memset(put_nulls, true, sizeof(bool) * rowset->desc->natts);
	put[0] = Int32GetDatum(row->no);
	put_nulls[0] = false;
	for (int i = 0; i < rowset->table->nkeys; i++)
	{
		put[3 + i] = values[rowset->table->keys[i] - 1];
		put_nulls[3 + i] = nulls[rowset->table->keys[i] - 1];
	}
	tuplestore_putvalues(rowset->store, rowset->desc, put, put_nulls);
	rowset->nrows++;
	pfree(put);
	pfree(put_nulls);
}

/* For the statements of the current SPI connection. */
void
al_rowset_register(AlRowset *rowset)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int			rc;

	enr->md.name = rowset->name;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = rowset->desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = rowset->nrows;
	enr->reldata = rowset->store;
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register relation: %s", SPI_result_code_string(rc));
}

void
al_rowset_free(AlRowset *rowset)
{
	SPI_unregister_relation(rowset->name);
	tuplestore_end(rowset->store);
	pfree(rowset);
}

/*
 * The condition under which row (of the table) is the one that set (a rowset)
 * means, both as names in FROM.  By the key, so that it is found though a
 * trigger has changed it meanwhile; without a key by its place.
 */
char *
al_rowset_same_row(AlRowset *rowset, const char *row, const char *set)
{
	AlPlanTable *table = rowset->table;
	TupleDesc	desc = RelationGetDescr(table->rel);
	StringInfoData buf;

	initStringInfo(&buf);
	if (table->nkeys == 0)
		appendStringInfo(&buf, "%s.ctid OPERATOR(pg_catalog.=) %s.%s AND %s.tableoid OPERATOR(pg_catalog.=) %s.%s",
						 row, set, rowset->tid, row, set, rowset->tableoid);
	for (int i = 0; i < table->nkeys; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, table->keys[i] - 1);
		TypeCacheEntry *type = lookup_type_cache(att->atttypid, TYPECACHE_EQ_OPR);

		if (!OidIsValid(type->eq_opr))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not identify an equality operator for type %s",
							format_type_be(att->atttypid))));
		if (i > 0)
			appendStringInfoString(&buf, " AND ");
		generate_operator_clause(&buf, psprintf("%s.%s", row, quote_identifier(NameStr(att->attname))),
								 att->atttypid, type->eq_opr,
								 psprintf("%s.%s", set, rowset->keys[i]), att->atttypid);
	}
	return buf.data;
}
