/*
 * fidelity.c
 *		A whole row as the log writes it, and the row made of that again.
 *
 * For sql_tests/fidelity.sql, which declares these two functions itself and
 * compares the images: they show encode.c and decode.c at work on any value,
 * without a tracked table and a log in between.  The extension's own SQL does
 * not use them.
 */
#include "audit_log.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

typedef struct RowColumn
{
	char	   *name;
	int			namelen;
	int			attno;			/* from 0 */
	AlEncoder  *encoder;
} RowColumn;

static int
compare_columns(const void *a, const void *b)
{
	const RowColumn *x = (const RowColumn *) a;
	const RowColumn *y = (const RowColumn *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

/* Apart, for what PG_TRY stands in should have no variables of its own. */
static pg_noinline void
append_row(RowColumn *columns, int ncolumns, Datum *values, AlFixedNeed need,
		   StringInfo buf)
{
	AlFixed		saved;

	al_fixed_enter(&saved, need);
	PG_TRY();
	{
		AlJsonFrame frame;

		al_jsonbuild_object(&frame, buf, ncolumns);
		for (int i = 0; i < ncolumns; i++)
			al_jsonbuild_key(&frame, columns[i].name, columns[i].namelen);
		for (int i = 0; i < ncolumns; i++)
		{
			AlValue		value;

			al_encode_value(columns[i].encoder, values[columns[i].attno], &value);
			al_jsonbuild_value(&frame, &value);
		}
		al_jsonbuild_close(&frame, NULL);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

PG_FUNCTION_INFO_V1(audit_log_encode_row);

/*
 * audit_log_encode_row(record) returns jsonb
 *
 * A row as an INSERT's changes would show it: columns that are NULL left out.
 */
Datum
audit_log_encode_row(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row;
	TupleDesc	tupdesc;
	int			natts;
	Datum	   *values;
	bool	   *nulls;
	RowColumn  *columns;
	int			ncolumns = 0;
	AlFixedNeed need = AL_FIXED_NOTHING;
	HeapTupleData tuple;
	StringInfoData buf;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();

	row = PG_GETARG_HEAPTUPLEHEADER(0);
	tupdesc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
									 HeapTupleHeaderGetTypMod(row));
	natts = tupdesc->natts;
	values = palloc(sizeof(Datum) * Max(natts, 1));
	nulls = palloc(sizeof(bool) * Max(natts, 1));
	columns = palloc(sizeof(RowColumn) * Max(natts, 1));

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, tupdesc, values, nulls);

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		RowColumn  *column = &columns[ncolumns];

		if (att->attisdropped || nulls[i])
			continue;
		column->name = NameStr(att->attname);
		column->namelen = strlen(column->name);
		column->attno = i;
		column->encoder = al_encode_prepare(att->atttypid, att->atttypmod,
											CurrentMemoryContext);
		need = Max(need, al_encode_need(column->encoder));
		ncolumns++;
	}
	qsort(columns, ncolumns, sizeof(RowColumn), compare_columns);
	for (int i = 1; i < ncolumns; i++)
	{
		if (compare_columns(&columns[i - 1], &columns[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" occurs more than once", columns[i].name)));
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	append_row(columns, ncolumns, values, need, &buf);
	ReleaseTupleDesc(tupdesc);
	PG_RETURN_JSONB_P(al_jsonbuild_finish(&buf));
}

PG_FUNCTION_INFO_V1(audit_log_decode_row);

/*
 * audit_log_decode_row(anyelement, jsonb) returns anyelement
 *
 * The row that the object of an INSERT's changes stands for, of the type of
 * the first argument (NULL::mine).
 */
Datum
audit_log_decode_row(PG_FUNCTION_ARGS)
{
	Oid			typid = get_fn_expr_argtype(fcinfo->flinfo, 0);
	TupleDesc	tupdesc;
	AlDecoder  *decoder;
	Datum	   *values;
	bool	   *nulls;
	HeapTuple	tuple;

	if (!OidIsValid(typid) || get_typtype(typid) != TYPTYPE_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the first argument must be of a table's row type"),
				 errhint("Write NULL::name_of_the_table.")));
	if (PG_ARGISNULL(1))
		PG_RETURN_NULL();

	tupdesc = lookup_rowtype_tupdesc_copy(typid, -1);
	decoder = al_decode_prepare(tupdesc, CurrentMemoryContext);
	values = palloc(sizeof(Datum) * Max(tupdesc->natts, 1));
	nulls = palloc(sizeof(bool) * Max(tupdesc->natts, 1));
	al_decode_columns(decoder, PG_GETARG_JSONB_P(1), NULL, values, nulls);
	tuple = heap_form_tuple(tupdesc, values, nulls);
	PG_RETURN_DATUM(heap_copy_tuple_as_datum(tuple, tupdesc));
}
