/*
 * decode.c
 *		The way back: from a value as the log writes it to a datum.
 *
 * Every value goes through its type's input function, so what the log cannot
 * stand for (a number in a column that is a date by now) is refused by the
 * type itself.  Arrays and composites are written in their own text syntax
 * first, with one call of the input function at the top: array_in, record_in
 * and domain_in then see to type modifiers, dimensions and constraints within
 * them, as they do for pg_dump's output.  Only json and jsonb take what is
 * there as it is.
 *
 * A decoder is made for a row type once (al_decode_prepare) and lives as long
 * as the memory context it was made in; all that is looked up for a type is
 * kept in it.  As in encode.c, composite types are compared with the type
 * cache each time.
 */
#include "audit_log.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

typedef enum AlReadRule
{
	READ_TEXT,					/* the input function of its text */
	READ_JSON,
	READ_JSONB,
	READ_ARRAY,
	READ_COMPOSITE
} AlReadRule;

typedef struct AlReader AlReader;

typedef struct AlReadField
{
	char	   *name;
	int			namelen;
	AlReader   *reader;
} AlReadField;

/* how values of one type are read */
struct AlReader
{
	AlReadRule	rule;			/* of the base type, if it is a domain */
	Oid			typid;
	Oid			basetype;
	int32		typmod;
	MemoryContext cxt;

	/* looked up when first needed: what is nested needs none of its own */
	bool		has_input;
	FmgrInfo	input;
	Oid			ioparam;
	void	   *domain;			/* domain_check's own */

	/* READ_ARRAY */
	AlReader   *element;
	char		delimiter;

	/* READ_COMPOSITE: attributes not dropped, in their order */
	uint64		identifier;
	MemoryContext fieldcxt;
	int			nfields;
	AlReadField *fields;
};

typedef struct AlDecodeColumn
{
	char	   *name;
	int			namelen;
	int			attno;			/* from 0 */
	bool		virtual;		/* computed when read, so never put back */
	AlReader   *reader;
} AlDecodeColumn;

struct AlDecoder
{
	int			natts;
	int			ncolumns;		/* not dropped, in jsonb's key order */
	AlDecodeColumn *columns;
	AlDecodeColumn **by_attno;	/* NULL: dropped */
};

static void append_text(AlReader *reader, const AlValue *value, StringInfo out);

static AlReader *
prepare_reader(Oid typid, int32 typmod, MemoryContext cxt)
{
	AlReader   *reader = MemoryContextAllocZero(cxt, sizeof(AlReader));
	Oid			output;
	bool		isvarlena;

	reader->typid = typid;
	reader->basetype = getBaseType(typid);
	reader->typmod = typmod;
	reader->cxt = cxt;
	reader->rule = READ_TEXT;

	if (reader->basetype == JSONOID)
		reader->rule = READ_JSON;
	else if (reader->basetype == JSONBOID)
		reader->rule = READ_JSONB;
	else if (get_typtype(reader->basetype) == TYPTYPE_COMPOSITE)
		reader->rule = READ_COMPOSITE;
	else
	{
		/* int2vector and oidvector have elements, but are no arrays here */
		getTypeOutputInfo(reader->basetype, &output, &isvarlena);
		if (output == F_ARRAY_OUT)
		{
			Oid			element = get_element_type(reader->basetype);
			int16		typlen;
			bool		typbyval;
			char		typalign;
			Oid			typioparam;
			Oid			input;

			reader->rule = READ_ARRAY;
			reader->element = prepare_reader(element, -1, cxt);
			get_type_io_data(element, IOFunc_input, &typlen, &typbyval,
							 &typalign, &reader->delimiter, &typioparam, &input);
		}
	}
	return reader;
}

static void
refresh_fields(AlReader *reader)
{
	TypeCacheEntry *type = lookup_type_cache(reader->basetype, TYPECACHE_TUPDESC);
	uint64		identifier;
	TupleDesc	tupdesc;
	MemoryContext old;

	if (type->tupDesc == NULL)
		elog(ERROR, "type %u is not composite", reader->basetype);
	if (type->tupDesc_identifier == reader->identifier)
		return;

	reader->identifier = 0;
	identifier = type->tupDesc_identifier;
	if (reader->fieldcxt != NULL)
		MemoryContextReset(reader->fieldcxt);
	else
		reader->fieldcxt = AllocSetContextCreate(reader->cxt,
												 "audit_log composite type",
												 ALLOCSET_SMALL_SIZES);
	reader->nfields = 0;

	old = MemoryContextSwitchTo(reader->fieldcxt);
	tupdesc = CreateTupleDescCopy(type->tupDesc);
	reader->fields = palloc(sizeof(AlReadField) * Max(tupdesc->natts, 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		AlReadField *field = &reader->fields[reader->nfields];

		if (att->attisdropped)
			continue;
		field->name = NameStr(att->attname);
		field->namelen = strlen(field->name);
		field->reader = prepare_reader(att->atttypid, att->atttypmod,
									   reader->fieldcxt);
		reader->nfields++;
	}
	MemoryContextSwitchTo(old);

	reader->identifier = identifier;
}

/* ------------------------------------------------------------------------
 * JSON values as texts of types
 * ------------------------------------------------------------------------
 */

/*
 * Quoted in a way that array_in and record_in both read: whatever stands
 * between the quotes is taken literally once these two are escaped.
 */
static void
append_quoted(StringInfo out, const char *text, int len)
{
	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < len; i++)
	{
		if (text[i] == '"' || text[i] == '\\')
			appendStringInfoCharMacro(out, '\\');
		appendStringInfoCharMacro(out, text[i]);
	}
	appendStringInfoCharMacro(out, '"');
}

static void
append_part(AlReader *reader, const AlValue *value, StringInfo out)
{
	StringInfoData part;

	/* no text of a number or a boolean needs quotes */
	if (value->kind == AL_NUMBER || value->kind == AL_BOOL)
	{
		append_text(reader, value, out);
		return;
	}
	if (value->kind == AL_STRING && reader->rule == READ_TEXT)
	{
		append_quoted(out, value->string, value->len);
		return;
	}

	initStringInfo(&part);
	append_text(reader, value, &part);
	append_quoted(out, part.data, part.len);
	pfree(part.data);
}

/*
 * A JSON array within a JSON array is the next dimension: encode.c writes no
 * other kind.
 */
static void
append_array(AlReader *reader, JsonbContainer *container, StringInfo out)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	item;
	bool		first = true;

	check_stack_depth();

	appendStringInfoCharMacro(out, '{');
	(void) JsonbIteratorNext(&it, &item, true);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		AlValue		value;

		if (token != WJB_ELEM)
			continue;
		if (!first)
			appendStringInfoCharMacro(out, reader->delimiter);
		first = false;

		al_jsonbuild_from_jsonb(&value, &item);
		if (value.kind == AL_NULL)
			appendStringInfoString(out, "NULL");
		else if (value.kind == AL_CONTAINER &&
				 JsonContainerIsArray(value.container))
			append_array(reader, value.container, out);
		else
			append_part(reader->element, &value, out);
	}
	appendStringInfoCharMacro(out, '}');
}

/*
 * Attributes that the object lacks were added since, and are NULL.  Keys that
 * the type lacks may be attributes dropped since, which lose their value as
 * they did in the tables themselves; but only if nothing is missing, for then
 * an attribute has been renamed and its value would get lost in silence.
 */
static void
append_composite(AlReader *reader, JsonbContainer *container, StringInfo out)
{
	int			found = 0;

	check_stack_depth();
	refresh_fields(reader);

	appendStringInfoCharMacro(out, '(');
	for (int i = 0; i < reader->nfields; i++)
	{
		AlReadField *field = &reader->fields[i];
		JsonbValue	item;
		AlValue		value;

		if (i > 0)
			appendStringInfoCharMacro(out, ',');
		if (getKeyJsonValueFromContainer(container, field->name,
										 field->namelen, &item) == NULL)
			continue;
		found++;
		al_jsonbuild_from_jsonb(&value, &item);
		if (value.kind != AL_NULL)
			append_part(field->reader, &value, out);
	}
	appendStringInfoCharMacro(out, ')');

	if (found < reader->nfields && found < (int) JsonContainerSize(container))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("a value of type %s in the log has other attributes than the type has now",
						format_type_be(reader->basetype)),
				 errdetail("The value is %s.",
						   JsonbToCString(NULL, container, 64))));
}

/* What the type's input function is to read; value is not AL_NULL. */
static void
append_text(AlReader *reader, const AlValue *value, StringInfo out)
{
	char	   *text;
	int			len;

	if (value->kind == AL_PG)
	{
		appendBinaryStringInfo(out, value->string, value->len);
		return;
	}

	switch (reader->rule)
	{
		case READ_ARRAY:
			if (value->kind == AL_CONTAINER &&
				JsonContainerIsArray(value->container))
			{
				append_array(reader, value->container, out);
				return;
			}
			break;
		case READ_COMPOSITE:
			if (value->kind == AL_CONTAINER &&
				JsonContainerIsObject(value->container))
			{
				append_composite(reader, value->container, out);
				return;
			}
			break;
		case READ_JSON:
		case READ_JSONB:
			if (value->kind == AL_CONTAINER)
				JsonbToCString(out, value->container, value->len);
			else
			{
				Jsonb	   *scalar = al_jsonbuild_scalar(value);

				JsonbToCString(out, &scalar->root, VARSIZE(scalar));
			}
			return;
		case READ_TEXT:
			break;
	}

	/* whatever it is, the input function says whether it can be read */
	text = al_jsonbuild_text(value, &len);
	appendBinaryStringInfo(out, text, len);
}

/* ------------------------------------------------------------------------
 * whole columns
 * ------------------------------------------------------------------------
 */

/* What the type's input function is to read, in the caller's (short-lived) memory. */
static char *
input_text(AlReader *reader, const AlValue *value)
{
	StringInfoData text;
	int			len;

	/* as most are, with no buffer in between */
	if (reader->rule == READ_TEXT || value->kind == AL_PG)
		return al_jsonbuild_text(value, &len);
	initStringInfo(&text);
	append_text(reader, value, &text);
	return text.data;
}

/* Under AL_FIXED_ALL. */
static Datum
read_value(AlReader *reader, const AlValue *value, bool *isnull)
{
	Datum		result;

	*isnull = value->kind == AL_NULL;
	if (*isnull)
		return (Datum) 0;

	/* not by way of its text, which may be long */
	if (reader->rule == READ_JSONB && value->kind != AL_PG)
	{
		result = JsonbPGetDatum(al_jsonbuild_scalar(value));
		if (reader->typid != reader->basetype)
			domain_check(result, false, reader->typid, &reader->domain, reader->cxt);
		return result;
	}

	if (!reader->has_input)
	{
		Oid			input;

		getTypeInputInfo(reader->typid, &input, &reader->ioparam);
		fmgr_info_cxt(input, &reader->input, reader->cxt);
		reader->has_input = true;
	}

	return InputFunctionCall(&reader->input, input_text(reader, value), reader->ioparam,
							 reader->typmod);
}

/*
 * A column's value as it stands in `changes`: an object with the only key $pg
 * and a string stands for that text.  (With anything but a string it stands
 * for itself; encode.c writes no such thing.)
 */
static void
recognize_pg(AlValue *out)
{
	JsonbValue	item;

	if (out->kind == AL_CONTAINER && al_encode_single_is_pg(out->container) &&
		getKeyJsonValueFromContainer(out->container, "$pg", 3, &item) != NULL &&
		item.type == jbvString)
	{
		out->kind = AL_PG;
		out->string = item.val.string.val;
		out->len = item.val.string.len;
	}
}

static int
compare_columns(const void *a, const void *b)
{
	const AlDecodeColumn *x = (const AlDecodeColumn *) a;
	const AlDecodeColumn *y = (const AlDecodeColumn *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

/* The descriptor need not outlive the call. */
AlDecoder *
al_decode_prepare(TupleDesc tupdesc, MemoryContext cxt)
{
	AlDecoder  *decoder = MemoryContextAllocZero(cxt, sizeof(AlDecoder));

	decoder->natts = tupdesc->natts;
	decoder->columns = MemoryContextAlloc(cxt, sizeof(AlDecodeColumn) *
										  Max(tupdesc->natts, 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		AlDecodeColumn *column = &decoder->columns[decoder->ncolumns];

		if (att->attisdropped)
			continue;
		column->name = MemoryContextStrdup(cxt, NameStr(att->attname));
		column->namelen = strlen(column->name);
		column->attno = i;
		column->virtual = AL_ATT_IS_VIRTUAL(att);
		column->reader = prepare_reader(att->atttypid, att->atttypmod, cxt);
		decoder->ncolumns++;
	}
	qsort(decoder->columns, decoder->ncolumns, sizeof(AlDecodeColumn),
		  compare_columns);
	decoder->by_attno = MemoryContextAllocZero(cxt, sizeof(AlDecodeColumn *) *
											   Max(tupdesc->natts, 1));
	for (int i = 0; i < decoder->ncolumns; i++)
		decoder->by_attno[decoder->columns[i].attno] = &decoder->columns[i];
	return decoder;
}

static void
decode_error_context(void *arg)
{
	const AlDecodeColumn *column = *(AlDecodeColumn **) arg;

	if (column != NULL)
		errcontext("column \"%s\" of a row in the log", column->name);
}

static void
read_columns(AlDecoder *decoder, Jsonb *object, const Bitmapset *wanted, Datum *values, bool *nulls)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	item;
	ErrorContextCallback callback;
	AlDecodeColumn *current = NULL;
	int			next = 0;

	for (int i = 0; i < decoder->natts; i++)
	{
		values[i] = (Datum) 0;
		nulls[i] = true;
	}

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a row in the log is a JSON object")));

	callback.callback = decode_error_context;
	callback.arg = &current;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	/* both sides are in jsonb's key order */
	it = JsonbIteratorInit(&object->root);
	while ((token = JsonbIteratorNext(&it, &item, true)) != WJB_DONE)
	{
		AlValue		value;
		int			order = 1;

		if (token != WJB_KEY)
			continue;

		while (next < decoder->ncolumns &&
			   (order = al_jsonbuild_key_cmp(decoder->columns[next].name,
											 decoder->columns[next].namelen,
											 item.val.string.val,
											 item.val.string.len)) < 0)
			next++;
		if (next >= decoder->ncolumns || order != 0)
		{
			current = NULL;
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("a row in the log has a column \"%.*s\" that is no column of the table",
							item.val.string.len, item.val.string.val)));
		}

		current = &decoder->columns[next];
		(void) JsonbIteratorNext(&it, &item, true);
		if (current->virtual ||
			(wanted != NULL && !bms_is_member(current->attno + 1, wanted)))
			continue;
		al_jsonbuild_from_jsonb(&value, &item);
		recognize_pg(&value);
		values[current->attno] = read_value(current->reader, &value,
											&nulls[current->attno]);
	}

	error_context_stack = callback.previous;
}

/*
 * A row's columns, in the descriptor's order.  Columns that the object lacks
 * are NULL; a key that is no column is an error (42703), so the caller leaves
 * out what has been dropped or renamed since.  wanted: attribute numbers of
 * those to be read, the others are NULL; NULL: all.
 *
 * Entering the fixed settings costs little where the caller has entered
 * AL_FIXED_ALL for all rows already.
 */
void
al_decode_columns(AlDecoder *decoder, Jsonb *object, const Bitmapset *wanted,
				  Datum *values, bool *nulls)
{
	AlFixed		saved;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		read_columns(decoder, object, wanted, values, nulls);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

Datum
al_decode_value(AlDecoder *decoder, int attno, const AlValue *value, bool pg, bool *isnull)
{
	AlDecodeColumn *column = decoder->by_attno[attno];
	AlValue		own = *value;
	ErrorContextCallback callback;
	Datum		result;

	if (column->virtual)
	{
		*isnull = true;
		return (Datum) 0;
	}
	callback.callback = decode_error_context;
	callback.arg = &column;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	if (pg)
		recognize_pg(&own);
	result = read_value(column->reader, &own, isnull);
	error_context_stack = callback.previous;
	return result;
}
