/*
 * column_changes.c
 *		The changes of one row laid out as rows, one a value, for view
 *		column_changes.
 *
 * No state outlives a call.
 */
#include "audit_log.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* Where the rows of audit_log_change_columns go. */
typedef struct ColumnRows
{
	ReturnSetInfo *rsinfo;
	MemoryContext row_context;	/* reset after each row */
} ColumnRows;

/*
 * Puts one row.  old and new are NULL where there was or is no value.  column
 * is the first key of a place, the others are the path.
 */
static void
put_column_row(ColumnRows *rows, const AlPlace *place, const AlValue *old,
			   const AlValue *new)
{
	MemoryContext caller = MemoryContextSwitchTo(rows->row_context);
	Datum		values[4];
	bool		nulls[4] = {false};
	const AlPlace *at;
	Datum	   *path;
	int			depth = 0;

	for (at = place; at->parent != NULL; at = at->parent)
		depth++;

	/* a column's own null is SQL NULL */
	if (depth == 0)
	{
		if (old != NULL && old->kind == AL_NULL)
			old = NULL;
		if (new != NULL && new->kind == AL_NULL)
			new = NULL;
	}

	path = palloc(sizeof(Datum) * Max(depth, 1));
	for (int i = depth; i > 0; i--, place = place->parent)
		path[i - 1] = PointerGetDatum(cstring_to_text_with_len(place->key, place->keylen));

	values[0] = PointerGetDatum(cstring_to_text_with_len(place->key, place->keylen));
	values[1] = PointerGetDatum(depth == 0 ? construct_empty_array(TEXTOID) :
								construct_array(path, depth, TEXTOID, -1, false,
												TYPALIGN_INT));
	nulls[2] = old == NULL;
	values[2] = nulls[2] ? (Datum) 0 : JsonbPGetDatum(al_jsonbuild_scalar(old));
	nulls[3] = new == NULL;
	values[3] = nulls[3] ? (Datum) 0 : JsonbPGetDatum(al_jsonbuild_scalar(new));

	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc, values, nulls);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->row_context);
}

/* One row a leaf of a nested delta. */
static void
put_delta_rows(ColumnRows *rows, const JsonbContainer *nested, const AlPlace *parent)
{
	AlJsonWalk	walk;

	check_stack_depth();

	al_jsonwalk_begin(&walk, nested);
	while (al_jsonwalk_next(&walk))
	{
		AlPlace		place = {parent, walk.key, walk.keylen};
		AlDelta		delta;

		al_deltaread_key(&walk, parent, &delta);

		switch (delta.kind)
		{
			case AL_DELTA_NESTED:
				put_delta_rows(rows, delta.new.container, &place);
				break;
			case AL_DELTA_ADDED:
				put_column_row(rows, &place, NULL, &delta.new);
				break;
			case AL_DELTA_REMOVED:
				put_column_row(rows, &place, &delta.old, NULL);
				break;
			case AL_DELTA_CHANGED:
				/* of a table without key the unchanged columns are there too */
				if (!al_jsonbuild_image_eq(&delta.old, &delta.new))
					put_column_row(rows, &place, &delta.old, &delta.new);
				break;
		}
	}
}

PG_FUNCTION_INFO_V1(audit_log_change_columns);

/*
 * audit_log_change_columns(changes jsonb, action text,
 *		OUT column_name text, OUT path text[], OUT old_value jsonb,
 *		OUT new_value jsonb) RETURNS SETOF record
 *
 * What view column_changes shows of one change.
 */
Datum
audit_log_change_columns(PG_FUNCTION_ARGS)
{
	ColumnRows	rows;
	AlValue		changes;
	char	   *action;
	AlJsonWalk	walk;

	InitMaterializedSRF(fcinfo, 0);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	action = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(action, "TRUNCATE") == 0)
		return (Datum) 0;

	if (strcmp(action, "INSERT") != 0 && strcmp(action, "SNAPSHOT") != 0 &&
		strcmp(action, "UPDATE") != 0 && strcmp(action, "DELETE") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized action: \"%s\"", action),
				 errhint("Actions are INSERT, UPDATE, DELETE, TRUNCATE and SNAPSHOT.")));

	al_jsonbuild_from_root(&changes, PG_GETARG_JSONB_P(0));
	if (!al_jsonwalk_is_object(&changes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes of a row must be a JSON object")));

	rows.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rows.row_context = AllocSetContextCreate(CurrentMemoryContext,
											 "audit_log column changes",
											 ALLOCSET_DEFAULT_SIZES);

	if (strcmp(action, "UPDATE") == 0)
		put_delta_rows(&rows, changes.container, NULL);
	else
	{
		bool		is_delete = strcmp(action, "DELETE") == 0;

		al_jsonwalk_begin(&walk, changes.container);
		while (al_jsonwalk_next(&walk))
		{
			AlPlace		place = {NULL, walk.key, walk.keylen};

			put_column_row(&rows, &place,
						   is_delete ? &walk.value : NULL,
						   is_delete ? NULL : &walk.value);
		}
	}

	MemoryContextDelete(rows.row_context);
	return (Datum) 0;
}
