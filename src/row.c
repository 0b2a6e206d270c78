/*
 * row.c
 *		Rows to what the log says of them: record ids, whole rows, deltas.
 *
 * No catalogs, no SPI, and no state but the keys kept with the table.  The
 * caller has entered the fixed settings that the table needs; results are in
 * CurrentMemoryContext.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"

#include "audit_log.h"

static void
get_values(const AlTable *table, TupleTableSlot *slot, Datum *values, bool *nulls)
{
	slot_getsomeattrs(slot, table->last_attnum);
	for (int i = 0; i < table->ncolumns; i++)
	{
		AttrNumber	attnum = table->columns[i].attnum;

		values[i] = slot->tts_values[attnum - 1];
		nulls[i] = slot->tts_isnull[attnum - 1];
	}
}

static void
encode_column(const AlColumn *column, Datum value, bool isnull, AlValue *out)
{
	if (isnull)
	{
		out->kind = AL_NULL;
		return;
	}
	al_encode_value(column->encoder, value, out);
	if (column->masked)
	{
		int			len;
		char	   *text = al_jsonbuild_text(out, &len);

		al_mask_value(text, len, out);
	}
}

/* "Changed" means another image; equal pointers into TOAST need no detoasting. */
static bool
same_image(const AlColumn *column, Datum a, bool anull, Datum b, bool bnull)
{
	if (anull || bnull)
		return anull == bnull;
	if (!column->typbyval && column->typlen == -1)
	{
		struct varlena *va = (struct varlena *) DatumGetPointer(a);
		struct varlena *vb = (struct varlena *) DatumGetPointer(b);
		Size		size = VARSIZE_ANY(va);

		if (size == VARSIZE_ANY(vb) && memcmp(va, vb, size) == 0)
			return true;
	}
	return datum_image_eq(a, b, column->typbyval, column->typlen);
}

/* An integer's text is that of its JSON number. */
static char *
integer_text(const AlColumn *column, Datum value, int *len)
{
	char	   *text = palloc(MAXINT8LEN + 1);

	*len = pg_lltoa(column->typlen == 2 ? DatumGetInt16(value) :
					column->typlen == 4 ? DatumGetInt32(value) :
					DatumGetInt64(value), text);
	return text;
}

/*
 * A key column's text.  Of a jsonb column ->> would give a number and a string
 * of the same digits one text, and two records one id; so a string whose text
 * reads as JSON keeps its quotes.
 */
static char *
key_text(const AlColumn *column, const AlValue *value, int *len)
{
	char	   *text = al_jsonbuild_text(value, len);
	StringInfoData quoted;

	if (!column->json || value->kind != AL_STRING ||
		al_jsontext_try(text, *len) == NULL)
		return text;
	initStringInfo(&quoted);
	escape_json(&quoted, pnstrdup(text, *len));
	*len = quoted.len;
	return quoted.data;
}

/*
 * A record's id: its key's text as changes shows it; of several columns a JSON
 * array of the texts.
 */
static text *
make_record_id(const AlTable *table, const Datum *values, const bool *nulls)
{
	StringInfoData buf;

	if (table->nkeys == 0)
		return NULL;
	initStringInfo(&buf);
	for (int i = 0; i < table->nkeys; i++)
	{
		AlColumn   *column = table->keys[i];
		int			n = column - table->columns;
		AlValue		value;
		char	   *string;
		int			len;

		if (column->integer && !nulls[n])
			string = integer_text(column, values[n], &len);
		else
		{
			encode_column(column, values[n], nulls[n], &value);
			string = key_text(column, &value, &len);
		}
		if (table->nkeys == 1)
			return cstring_to_text_with_len(string, len);
		appendStringInfoString(&buf, i == 0 ? "[" : ", ");
		escape_json(&buf, pnstrdup(string, len));
	}
	appendStringInfoChar(&buf, ']');
	return cstring_to_text_with_len(buf.data, buf.len);
}

/*
 * Writes the names of the columns that are present as keys.  From one row to
 * the next these are mostly the same, so the last ones are kept.
 */
static void
add_keys(AlJsonFrame *frame, const AlTable *table, AlColumnKeys *last,
		 const bool *present)
{
	if (last->present != NULL &&
		memcmp(last->present, present, sizeof(bool) * table->ncolumns) == 0)
	{
		al_jsonbuild_keys(frame, &last->keys);
		return;
	}
	for (int i = 0; i < table->ncolumns; i++)
		if (present[i])
			al_jsonbuild_key(frame, table->columns[i].name, table->columns[i].namelen);

	if (last->present != NULL)
		pfree(last->present);
	last->present = NULL;		/* set when all is kept */
	al_jsonbuild_keep_keys(frame, &last->keys, table->cxt);
	last->present = MemoryContextAlloc(table->cxt, sizeof(bool) * Max(table->ncolumns, 1));
	memcpy(last->present, present, sizeof(bool) * table->ncolumns);
}

/* The row as changes has it: every tracked column that is not NULL. */
static Jsonb *
row_object(const AlTable *table, const Datum *values, const bool *nulls)
{
	StringInfoData buf;
	AlJsonFrame frame;
	bool	   *present = palloc(sizeof(bool) * Max(table->ncolumns, 1));
	int			n = 0;

	for (int i = 0; i < table->ncolumns; i++)
	{
		present[i] = !nulls[i];
		n += present[i];
	}
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	add_keys(&frame, table, table->row_keys, present);
	for (int i = 0; i < table->ncolumns; i++)
		if (!nulls[i])
		{
			AlValue		value;

			encode_column(&table->columns[i], values[i], false, &value);
			al_jsonbuild_value(&frame, &value);
		}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* one column of a delta: [old, new], or what differs inside two objects */
static void
add_difference(AlJsonFrame *frame, const AlTable *table, const AlColumn *column,
			   const AlValue *old, const AlValue *new)
{
	AlJsonFrame pair;
	AlValue		inner;

	/* without a key the whole old value must be there: it names the row */
	if (column->json && table->nkeys > 0 && al_jsonwalk_is_object(old) && al_jsonwalk_is_object(new) &&
		al_delta_objects(old, new, &inner))
	{
		al_jsonbuild_value(frame, &inner);
		return;
	}
	al_jsonbuild_array(&pair, frame->buf, 2);
	al_jsonbuild_value(&pair, old);
	al_jsonbuild_value(&pair, new);
	al_jsonbuild_close(&pair, frame);
}

/*
 * The delta from the old to the new row; NULL where nothing tracked differs.
 * key_changed tells whether a key column is among what differs.
 */
static Jsonb *
row_delta(const AlTable *table,
		  const Datum *oldvalues, const bool *oldnulls,
		  const Datum *newvalues, const bool *newnulls, bool *key_changed)
{
	StringInfoData buf;
	AlJsonFrame frame;
	bool	   *differs = palloc(sizeof(bool) * Max(table->ncolumns, 1));
	int			n = 0;

	*key_changed = false;
	for (int i = 0; i < table->ncolumns; i++)
	{
		differs[i] = !same_image(&table->columns[i], oldvalues[i], oldnulls[i],
								 newvalues[i], newnulls[i]);
		n += differs[i];
	}
	if (n == 0)
		return NULL;
	for (int i = 0; i < table->nkeys; i++)
		*key_changed |= differs[table->keys[i] - table->columns];
	if (table->nkeys == 0)
	{
		n = table->ncolumns;
		memset(differs, true, sizeof(bool) * n);
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	add_keys(&frame, table, table->delta_keys, differs);
	for (int i = 0; i < table->ncolumns; i++)
		if (differs[i])
		{
			AlValue		old;
			AlValue		new;

			encode_column(&table->columns[i], oldvalues[i], oldnulls[i], &old);
			encode_column(&table->columns[i], newvalues[i], newnulls[i], &new);
			add_difference(&frame, table, &table->columns[i], &old, &new);
		}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* ---- for entries ---- */

/* A whole row: record_id and changes of an INSERT, DELETE or SNAPSHOT. */
void
al_row_whole(const AlTable *table, TupleTableSlot *slot, AlEntry *entry)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(table->ncolumns, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(table->ncolumns, 1));

	get_values(table, slot, values, nulls);
	entry->record_id = make_record_id(table, values, nulls);
	entry->changes = row_object(table, values, nulls);
}

/*
 * An UPDATE: record ids and changes; false where nothing tracked differs.
 */
bool
al_row_difference(const AlTable *table, TupleTableSlot *old, TupleTableSlot *new,
				  AlEntry *entry)
{
	Size		n = Max(table->ncolumns, 1);
	Datum	   *oldvalues = palloc(sizeof(Datum) * n);
	bool	   *oldnulls = palloc(sizeof(bool) * n);
	Datum	   *newvalues = palloc(sizeof(Datum) * n);
	bool	   *newnulls = palloc(sizeof(bool) * n);
	bool		key_changed;

	get_values(table, old, oldvalues, oldnulls);
	get_values(table, new, newvalues, newnulls);
	entry->changes = row_delta(table, oldvalues, oldnulls, newvalues, newnulls,
							   &key_changed);
	if (entry->changes == NULL)
		return false;
	entry->record_id = make_record_id(table, newvalues, newnulls);
	if (key_changed)
	{
		text	   *id = make_record_id(table, oldvalues, oldnulls);

		if (VARSIZE(id) != VARSIZE(entry->record_id) ||
			memcmp(id, entry->record_id, VARSIZE(id)) != 0)
			entry->old_record_id = id;
	}
	return true;
}

/* The claim of the new row's user_column, NULL where there is none. */
const char *
al_row_user(const AlTable *table, TupleTableSlot *new)
{
	AlValue		value;
	bool		isnull;
	Datum		datum;
	char	   *string;
	int			len;

	if (table->user_column == NULL || new == NULL)
		return NULL;
	datum = slot_getattr(new, table->user_column->attnum, &isnull);
	if (isnull)
		return NULL;
	al_encode_value(table->user_column->encoder, datum, &value);
	string = al_jsonbuild_text(&value, &len);
	if (len == 0)
		return NULL;
	if (table->user_column->masked)
	{
		/* a masked column comes out nowhere in clear */
		al_mask_value(string, len, &value);
		string = al_jsonbuild_text(&value, &len);
	}
	return pnstrdup(string, len);
}

/* The record id of a row, of which only the key's columns are looked at. */
text *
al_row_record_id(const AlTable *table, TupleTableSlot *slot)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(table->ncolumns, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(table->ncolumns, 1));

	for (int i = 0; i < table->nkeys; i++)
	{
		int			n = table->keys[i] - table->columns;

		values[n] = slot_getattr(slot, table->keys[i]->attnum, &nulls[n]);
	}
	return make_record_id(table, values, nulls);
}

void
al_row_column(const AlColumn *column, Datum value, bool isnull, AlValue *out)
{
	encode_column(column, value, isnull, out);
}

/* The row as deltas see it: every tracked column, NULL as null. */
Jsonb *
al_row_object(const AlTable *table, TupleTableSlot *slot)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(table->ncolumns, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(table->ncolumns, 1));
	StringInfoData buf;
	AlJsonFrame frame;

	get_values(table, slot, values, nulls);
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, table->ncolumns);
	for (int i = 0; i < table->ncolumns; i++)
		al_jsonbuild_key(&frame, table->columns[i].name, table->columns[i].namelen);
	for (int i = 0; i < table->ncolumns; i++)
	{
		AlValue		value;

		encode_column(&table->columns[i], values[i], nulls[i], &value);
		al_jsonbuild_value(&frame, &value);
	}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* ---- for descriptions ---- */

/* Does the UPDATE change this column? */
bool
al_row_column_differs(const AlColumn *column, TupleTableSlot *old, TupleTableSlot *new)
{
	bool		oldnull;
	bool		newnull;
	Datum		oldvalue = slot_getattr(old, column->attnum, &oldnull);
	Datum		newvalue = slot_getattr(new, column->attnum, &newnull);

	return !same_image(column, oldvalue, oldnull, newvalue, newnull);
}

/* A column's value as the text that the log's ->> gives; NULL is no text. */
char *
al_row_column_text(const AlColumn *column, TupleTableSlot *slot, int *len)
{
	bool		isnull;
	Datum		datum = slot_getattr(slot, column->attnum, &isnull);
	AlValue		value;

	*len = 0;
	if (isnull)
		return "";
	encode_column(column, datum, false, &value);
	return al_jsonbuild_text(&value, len);
}
