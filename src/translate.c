/*
 * translate.c
 *		What the log says, under the names and types of today: record ids through
 *		the types of the key, columns and the objects of changes.
 *
 * Nothing is kept.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "audit_log.h"

/* ---- record ids ---- */

/* Are values of the type shown as JSON of more than a text? */
static bool
is_nested(Oid type)
{
	type = getBaseType(type);
	return type == JSONOID || type == JSONBOID || type_is_array(type) ||
		get_typtype(type) == TYPTYPE_COMPOSITE;
}

/*
 * What stands for a key's text as a column's value.  Of types whose values are
 * JSON of more than a text it is that JSON, as record_id shows it.
 */
void
al_translate_key_text(Oid type, char *text, int len, AlValue *out)
{
	Jsonb	   *json;

	out->kind = AL_STRING;
	out->string = text;
	out->len = len;
	if (!is_nested(type))
		return;
	type = getBaseType(type);
	json = al_jsontext_try(text, len);
	if (json == NULL || (type != JSONOID && type != JSONBOID && JB_ROOT_IS_SCALAR(json)))
		return;
	al_jsonbuild_from_root(out, json);
	/* what as JSON would mean something else is read as the type's own text */
	if (out->kind == AL_NULL ||
		(out->kind == AL_CONTAINER && al_encode_single_is_pg(out->container)))
	{
		out->kind = AL_PG;
		out->string = text;
		out->len = len;
	}
}

/* A value of a type that is_nested(). */
static Datum
nested_value(Form_pg_attribute att, char *text)
{
	TupleDesc	desc = CreateTemplateTupleDesc(1);
	AlValue		value;
	bool		isnull;

	TupleDescInitEntry(desc, 1, NameStr(att->attname), att->atttypid, att->atttypmod, 0);
	AL_TUPLE_DESC_FINALIZE(desc);
	al_translate_key_text(att->atttypid, text, strlen(text), &value);
	return al_decode_value(al_decode_prepare(desc, CurrentMemoryContext), 0, &value, true, &isnull);
}

/* A key column's value from the text that a record id has of it. */
static Datum
key_value(const AlColumn *column, TupleDesc desc, char *text)
{
	Form_pg_attribute att = TupleDescAttr(desc, column->attnum - 1);
	Oid			input;
	Oid			ioparam;

	if (is_nested(att->atttypid))
		return nested_value(att, text);
	getTypeInputInfo(att->atttypid, &input, &ioparam);
	return OidInputFunctionCall(input, text, ioparam, att->atttypmod);
}

/* The key's texts of an id; an error where they are not as many as columns. */
static char **
key_texts(const AlTable *table, const char *record_id)
{
	char	  **texts = palloc(sizeof(char *) * table->nkeys);
	Jsonb	   *json;
	AlJsonWalk	walk;
	int			n = 0;

	if (table->nkeys == 1)
	{
		texts[0] = pstrdup(record_id);
		return texts;
	}
	json = al_jsontext_try(record_id, strlen(record_id));
	if (json != NULL && JB_ROOT_IS_ARRAY(json) && !JB_ROOT_IS_SCALAR(json) &&
		JB_ROOT_COUNT(json) == (uint32) table->nkeys)
	{
		al_jsonwalk_begin(&walk, &json->root);
		while (al_jsonwalk_next(&walk))
		{
			int			len;
			char	   *text;

			if (walk.value.kind == AL_NULL)
				break;
			text = al_jsonbuild_text(&walk.value, &len);
			texts[n++] = pnstrdup(text, len);
		}
	}
	if (n < table->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no record_id of table \"%s.%s\"", record_id,
						table->schema, table->name),
				 errdetail("Its key has %d columns.", table->nkeys),
				 errhint("Give a JSON array of their texts, or audit_log.record_id(row).")));
	return texts;
}

/* The key's values, in the order of table->keys; under AL_FIXED_ALL. */
Datum *
al_translate_keys(const AlTable *table, TupleDesc desc, const char *record_id)
{
	char	  **texts = key_texts(table, record_id);
	Datum	   *values = palloc(sizeof(Datum) * table->nkeys);

	for (int i = 0; i < table->nkeys; i++)
		values[i] = key_value(table->keys[i], desc, texts[i]);
	return values;
}

static char *
normal_id(const AlTable *table, TupleDesc desc, const char *record_id)
{
	Datum	   *keys = al_translate_keys(table, desc, record_id);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	text	   *id;

	for (int i = 0; i < desc->natts; i++)
		slot->tts_isnull[i] = true;
	for (int i = 0; i < table->nkeys; i++)
	{
		slot->tts_values[table->keys[i]->attnum - 1] = keys[i];
		slot->tts_isnull[table->keys[i]->attnum - 1] = false;
	}
	ExecStoreVirtualTuple(slot);
	id = al_row_record_id(table, slot);
	ExecDropSingleTupleTableSlot(slot);
	return text_to_cstring(id);
}

char *
al_translate_normal_id(const AlTable *table, Relation rel, const char *record_id)
{
	AlFixed		saved;
	char	   *volatile id = NULL;

	if (table->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" has no key", table->schema, table->name),
				 errdetail("Its records are told apart by their whole row.")));
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		id = normal_id(table, RelationGetDescr(rel), record_id);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return id;
}

pg_noinline char *
al_translate_normal_id_as_caller(const AlTable *table, Relation rel, const char *record_id)
{
	AlOwn		saved;
	char	   *volatile result = NULL;

	/* types may be the user's own */
	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		result = al_translate_normal_id(table, rel, record_id);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return result;
}

char *
al_translate_id(const AlTable *table, Relation rel, const AlState *state, const char *record_id)
{
	if (record_id == NULL || state->key_same_texts || state->key_masked || state->era != 0 ||
		table->nkeys == 0)
		return unconstify(char *, record_id);
	return al_translate_normal_id_as_caller(table, rel, record_id);
}

/* ---- columns ---- */

Bitmapset *
al_translate_added(Relation rel, const AlState *then)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *added = NULL;

	if (then == NULL)
		return NULL;
	for (int i = 0; i < desc->natts; i++)
		if (!TupleDescAttr(desc, i)->attisdropped)
			added = bms_add_member(added, i + 1);
	for (int i = 0; i < then->ncolumns; i++)
		if (then->columns[i].attnum != 0)
			added = bms_del_member(added, then->columns[i].attnum);
	return added;
}

typedef struct Translated
{
	const char *name;
	int			namelen;
	AlValue		value;
} Translated;

static int
compare_translated(const void *a, const void *b)
{
	const Translated *x = a;
	const Translated *y = b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

Jsonb *
al_translate_changes(const AlState *state, Relation rel, Jsonb *object)
{
	Translated *pairs = palloc(sizeof(Translated) * Max(JB_ROOT_COUNT(object), 1));
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	int			n = 0;

	al_jsonwalk_begin(&walk, &object->root);
	while (al_jsonwalk_next(&walk))
	{
		const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);

		if (column == NULL || column->attnum == 0)
			continue;
		pairs[n].name = NameStr(TupleDescAttr(RelationGetDescr(rel), column->attnum - 1)->attname);
		pairs[n].namelen = strlen(pairs[n].name);
		pairs[n++].value = walk.value;
	}
	qsort(pairs, n, sizeof(Translated), compare_translated);
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < n; i++)
		al_jsonbuild_key(&frame, pairs[i].name, pairs[i].namelen);
	for (int i = 0; i < n; i++)
		al_jsonbuild_value(&frame, &pairs[i].value);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}
