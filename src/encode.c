/*
 * encode.c
 *		A column's value as the log writes it.
 *
 * How values of a type are written is decided once a column
 * (al_encode_prepare); al_encode_value then follows that rule for each row.
 * This is the write path of every audited table: what can be pointed to is not
 * copied, and where the output function's text would be taken apart again, it
 * is not asked.
 *
 * The contract is that the type's input function makes the same image of what
 * stands here.  Where it would not do so of the plain JSON form, the column's
 * value becomes AL_PG, the output function's text.  Arrays and composites are
 * AL_PG as a whole as soon as one value in them would have to be.
 *
 * An encoder lives as long as the memory context it was prepared in.  Nothing
 * in it becomes stale: names of enum labels are looked up each time, and what
 * a composite type consists of is compared with the type cache each time.
 */
#include "audit_log.h"

#include <math.h>

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"
#include "utils/uuid.h"

/* elements of an array between two clean-ups of what encoding them left */
#define ELEMENTS_PER_RESET	256

typedef enum AlRule
{
	RULE_BOOL,
	RULE_INT2,
	RULE_INT4,
	RULE_INT8,
	RULE_FLOAT4,
	RULE_FLOAT8,
	RULE_NUMERIC,
	RULE_TEXT,					/* the varlena's bytes are the text */
	RULE_NAME,
	RULE_UUID,
	RULE_DATETIME,
	RULE_JSON,
	RULE_JSONB,
	RULE_ARRAY,
	RULE_COMPOSITE,
	RULE_OUTPUT					/* what the output function says */
} AlRule;

typedef struct AlField
{
	char	   *name;
	int			namelen;
	int			attno;			/* from 0 */
	AlEncoder  *encoder;
} AlField;

struct AlEncoder
{
	AlRule		rule;
	Oid			typid;			/* never a domain */
	FmgrInfo	output;
	AlFixedNeed need;			/* of the plain form: the caller's to enter */
	AlFixedNeed text_need;		/* of the output function: entered here if it
								 * is asked instead of the plain form */
	bool		verify;			/* whether its text is in the database's
								 * encoding: not all types care */
	MemoryContext cxt;

	/* RULE_ARRAY */
	AlEncoder  *element;
	int16		elemlen;
	bool		elembyval;
	char		elemalign;

	/* RULE_COMPOSITE: the attributes not dropped, in jsonb's key order */
	uint64		identifier;		/* type cache's, of what stands below */
	MemoryContext fieldcxt;
	TupleDesc	tupdesc;
	AlFixedNeed field_need;		/* may grow beyond need with ALTER TYPE */
	int			nfields;
	AlField    *fields;
};

/* what goes through an array's elements, of all dimensions */
typedef struct ElementWalk
{
	AlEncoder  *encoder;
	int			ndim;
	int		   *dims;
	Datum	   *values;
	bool	   *nulls;
	int			next;
	MemoryContext scratch;		/* NULL: not worth it */
} ElementWalk;

static bool append_value(AlEncoder *encoder, Datum value, AlJsonFrame *frame,
						 bool element);
static void refresh_fields(AlEncoder *encoder);

/*
 * What the text of a type's output function depends on.  Types that stand
 * nowhere here may depend on anything: those of extensions and users, money,
 * those named reg..., and built-in types of versions yet to come.
 */
static AlFixedNeed
text_need_of(Oid typid)
{
	Oid			element;

	switch (typid)
	{
		case BOOLOID:
		case CHAROID:
		case NAMEOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case INT2VECTOROID:
		case OIDOID:
		case OIDVECTOROID:
		case TIDOID:
		case XIDOID:
		case XID8OID:
		case CIDOID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case REFCURSOROID:
		case UUIDOID:
		case BITOID:
		case VARBITOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case JSONOID:
		case JSONBOID:
		case JSONPATHOID:
		case XMLOID:
		case TSVECTOROID:
		case TSQUERYOID:
		case PG_LSNOID:
		case TXID_SNAPSHOTOID:
		case PG_SNAPSHOTOID:
		case ACLITEMOID:
			return AL_FIXED_NOTHING;

		case FLOAT4OID:
		case FLOAT8OID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case BYTEAOID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return AL_FIXED_VARIABLES;

		default:
			break;
	}

	switch (get_typtype(typid))
	{
		case TYPTYPE_DOMAIN:
			return text_need_of(getBaseType(typid));
		case TYPTYPE_ENUM:
			return AL_FIXED_NOTHING;
		case TYPTYPE_RANGE:
			return text_need_of(get_range_subtype(typid));
		case TYPTYPE_MULTIRANGE:
			return text_need_of(get_multirange_range(typid));
		case TYPTYPE_BASE:
			element = get_element_type(typid);
			if (OidIsValid(element))
				return text_need_of(element);
			break;
		default:
			break;
	}

	/* composite types change: all, so that it stays true */
	return AL_FIXED_ALL;
}

/*
 * The column's typmod is part of the interface because the type's text may
 * depend on it one day; today no rule does.
 */
AlEncoder *
al_encode_prepare(Oid typid, int32 typmod pg_attribute_unused(), MemoryContext cxt)
{
	AlEncoder  *encoder = MemoryContextAllocZero(cxt, sizeof(AlEncoder));
	Oid			output;
	bool		isvarlena;
	bool		named = true;

	encoder->cxt = cxt;
	encoder->typid = getBaseType(typid);
	getTypeOutputInfo(encoder->typid, &output, &isvarlena);
	fmgr_info_cxt(output, &encoder->output, cxt);
	encoder->text_need = text_need_of(encoder->typid);
	encoder->verify = encoder->typid >= FirstNormalObjectId &&
		get_typtype(encoder->typid) != TYPTYPE_ENUM;

	switch (encoder->typid)
	{
		case BOOLOID:
			encoder->rule = RULE_BOOL;
			break;
		case INT2OID:
			encoder->rule = RULE_INT2;
			break;
		case INT4OID:
			encoder->rule = RULE_INT4;
			break;
		case INT8OID:
			encoder->rule = RULE_INT8;
			break;
		case FLOAT4OID:
			encoder->rule = RULE_FLOAT4;
			break;
		case FLOAT8OID:
			encoder->rule = RULE_FLOAT8;
			break;
		case NUMERICOID:
			encoder->rule = RULE_NUMERIC;
			break;
		case NAMEOID:
			encoder->rule = RULE_NAME;
			break;
		case UUIDOID:
			encoder->rule = RULE_UUID;
			break;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			encoder->rule = RULE_DATETIME;
			break;
		case JSONOID:
			encoder->rule = RULE_JSON;
			break;
		case JSONBOID:
			encoder->rule = RULE_JSONB;
			break;
		default:
			named = false;
			break;
	}
	if (named)
	{
		encoder->need = AL_FIXED_NOTHING;
		return encoder;
	}

	/*
	 * Compared are addresses of C functions: a type of an extension may name
	 * textout as its own output function under another OID (citext does).
	 */
	if (get_typlen(encoder->typid) == -1 &&
		(encoder->output.fn_addr == textout ||
		 encoder->output.fn_addr == varcharout ||
		 encoder->output.fn_addr == bpcharout))
	{
		encoder->rule = RULE_TEXT;
		encoder->need = AL_FIXED_NOTHING;
	}
	else if (get_typtype(encoder->typid) == TYPTYPE_COMPOSITE)
	{
		encoder->rule = RULE_COMPOSITE;
		refresh_fields(encoder);
		encoder->need = encoder->field_need;
	}
	else if (output == F_ARRAY_OUT)
	{
		/* not so int2vector and oidvector, whose texts are their own */
		Oid			element = get_element_type(encoder->typid);

		encoder->rule = RULE_ARRAY;
		encoder->element = al_encode_prepare(element, -1, cxt);
		encoder->need = encoder->element->need;
		get_typlenbyvalalign(element, &encoder->elemlen,
							 &encoder->elembyval, &encoder->elemalign);
	}
	else
	{
		encoder->rule = RULE_OUTPUT;
		encoder->need = encoder->text_need;
	}
	return encoder;
}

AlFixedNeed
al_encode_need(const AlEncoder *encoder)
{
	return encoder->need;
}

static int
compare_fields(const void *a, const void *b)
{
	const AlField *x = (const AlField *) a;
	const AlField *y = (const AlField *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

/*
 * Makes the list of a composite type's fields the one that the type has now.
 * The identifier is set last: an error on the way leaves an entry that the
 * next call builds again.
 */
static void
refresh_fields(AlEncoder *encoder)
{
	TypeCacheEntry *type = lookup_type_cache(encoder->typid, TYPECACHE_TUPDESC);
	MemoryContext old;
	TupleDesc	tupdesc;
	uint64		identifier;

	if (type->tupDesc == NULL)
		elog(ERROR, "type %u is not composite", encoder->typid);
	if (type->tupDesc_identifier == encoder->identifier)
		return;

	encoder->identifier = 0;
	identifier = type->tupDesc_identifier;
	if (encoder->fieldcxt != NULL)
		MemoryContextReset(encoder->fieldcxt);
	else
		encoder->fieldcxt = AllocSetContextCreate(encoder->cxt,
												  "audit_log composite type",
												  ALLOCSET_SMALL_SIZES);
	encoder->nfields = 0;
	encoder->field_need = AL_FIXED_NOTHING;

	/* with constraints, for they hold the values of columns added later */
	old = MemoryContextSwitchTo(encoder->fieldcxt);
	tupdesc = CreateTupleDescCopyConstr(type->tupDesc);
	encoder->tupdesc = tupdesc;
	encoder->fields = palloc(sizeof(AlField) * Max(tupdesc->natts, 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		AlField    *field = &encoder->fields[encoder->nfields];

		if (att->attisdropped)
			continue;
		field->name = NameStr(att->attname);
		field->namelen = strlen(field->name);
		field->attno = i;
		field->encoder = al_encode_prepare(att->atttypid, att->atttypmod,
										   encoder->fieldcxt);
		encoder->field_need = Max(encoder->field_need, field->encoder->need);
		encoder->nfields++;
	}
	qsort(encoder->fields, encoder->nfields, sizeof(AlField), compare_fields);
	MemoryContextSwitchTo(old);

	encoder->identifier = identifier;
}

/* ------------------------------------------------------------------------
 * single values
 * ------------------------------------------------------------------------
 */

static inline void
set_string(AlValue *out, AlValueKind kind, const char *string, int len)
{
	out->kind = kind;
	out->string = string;
	out->len = len;
}

static inline void
set_constant(AlValue *out, AlValueKind kind, const char *string)
{
	set_string(out, kind, string, strlen(string));
}

static inline void
set_number(AlValue *out, Numeric number)
{
	out->kind = AL_NUMBER;
	out->number = number;
}

/*
 * A type's text, output or the datum's own bytes.  Those of built-in types are
 * right; of others, jsonb must not hold what no client could be sent and no
 * restore would read.
 */
static inline void
set_text(AlEncoder *encoder, AlValue *out, AlValueKind kind,
		 const char *string, int len)
{
	if (encoder->verify)
		(void) pg_verifymbstr(string, len, false);
	set_string(out, kind, string, len);
}

static inline void
set_output(AlEncoder *encoder, AlValue *out, AlValueKind kind, Datum value)
{
	char	   *text = OutputFunctionCall(&encoder->output, value);

	set_text(encoder, out, kind, text, strlen(text));
}

/*
 * A float is the number that its shortest exact text names, as in to_jsonb.
 * Whole numbers below 2^24 and 2^53 are their own shortest text.
 */
static void
encode_float(AlValue *out, double value, bool single)
{
	char		buf[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (isnan(value))
		set_constant(out, AL_PG, "NaN");
	else if (isinf(value))
		set_constant(out, AL_PG, value > 0 ? "Infinity" : "-Infinity");
	else if (value == 0 && signbit(value))
		set_constant(out, AL_PG, "-0");
	else if (fabs(value) < (single ? 16777216.0 : 9007199254740992.0) &&
			 value == (double) (int64) value)
		set_number(out, int64_to_numeric((int64) value));
	else
	{
		if (single)
			float_to_shortest_decimal_buf((float) value, buf);
		else
			double_to_shortest_decimal_buf(value, buf);
		set_number(out,
				   DatumGetNumeric(DirectFunctionCall3(numeric_in,
													   CStringGetDatum(buf),
													   ObjectIdGetDatum(InvalidOid),
													   Int32GetDatum(-1))));
	}
}

/*
 * NaN and the infinities consist of a header alone, two bytes or, in data that
 * pg_upgrade brought from very old versions, four.  A longer value needs no
 * look inside, so that one with the short varlena header can stay as it is.
 */
static void
encode_numeric(AlValue *out, Datum value)
{
	struct varlena *raw = (struct varlena *) DatumGetPointer(value);
	Numeric		number;

	if (!VARATT_IS_EXTENDED(raw) || VARATT_IS_SHORT(raw))
	{
		if (VARSIZE_ANY_EXHDR(raw) > 4)
		{
			set_number(out, (Numeric) raw);
			return;
		}
	}

	number = DatumGetNumeric(value);
	if (numeric_is_nan(number) || numeric_is_inf(number))
		set_constant(out, AL_PG,
					 DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(number))));
	else
		set_number(out, number);
}

static void
encode_uuid(AlValue *out, const pg_uuid_t *uuid)
{
	static const char digits[] = "0123456789abcdef";
	char	   *text = palloc(2 * UUID_LEN + 4);
	char	   *p = text;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = digits[uuid->data[i] >> 4];
		*p++ = digits[uuid->data[i] & 0xF];
	}
	set_string(out, AL_STRING, text, p - text);
}

/*
 * Dates and times as to_jsonb writes them; their input functions read all of
 * it back (verified at both ends of each type's range: years of five digits,
 * BC, infinity, 24:00:00, zones with seconds).
 */
static void
encode_datetime(AlValue *out, Datum value, Oid typid)
{
	static const int zone = 0;

	set_constant(out, AL_STRING,
				 JsonEncodeDateTime(NULL, value, typid,
									typid == TIMESTAMPTZOID ? &zone : NULL));
}

/*
 * Whether a container is an object whose only key is $pg: as a whole column's
 * value that would read as the text of something else.
 */
bool
al_encode_is_pg(const JsonbContainer *container)
{
	return JsonContainerIsObject(container) &&
		JsonContainerSize(container) == 1 &&
		getJsonbLength(container, 0) == 3 &&
		memcmp(&container->children[2], "$pg", 3) == 0;
}

static void
encode_jsonb(AlValue *out, Jsonb *root, bool whole)
{
	al_jsonbuild_from_root(out, root);

	if (out->kind == AL_NULL)
		set_constant(out, AL_PG, "null");
	else if (whole && out->kind == AL_CONTAINER &&
			 al_encode_is_pg(out->container))
		set_constant(out, AL_PG,
					 JsonbToCString(NULL, out->container, out->len));
}

static void
encode_json(AlValue *out, Datum value, bool whole)
{
	struct varlena *json = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));
	const char *text = VARDATA_ANY(json);
	int			len = VARSIZE_ANY_EXHDR(json);
	Jsonb	   *root = al_jsontext_parse(text, len);

	if (root != NULL)
		encode_jsonb(out, root, whole);
	else
		set_string(out, AL_PG, text, len);
}

/*
 * whole says that the value is a column's, and not part of an array or a
 * composite.
 */
static void
encode_single(AlEncoder *encoder, Datum value, AlValue *out, bool whole)
{
	switch (encoder->rule)
	{
		case RULE_BOOL:
			out->kind = AL_BOOL;
			out->boolean = DatumGetBool(value);
			break;
		case RULE_INT2:
			set_number(out, int64_to_numeric(DatumGetInt16(value)));
			break;
		case RULE_INT4:
			set_number(out, int64_to_numeric(DatumGetInt32(value)));
			break;
		case RULE_INT8:
			set_number(out, int64_to_numeric(DatumGetInt64(value)));
			break;
		case RULE_FLOAT4:
			encode_float(out, DatumGetFloat4(value), true);
			break;
		case RULE_FLOAT8:
			encode_float(out, DatumGetFloat8(value), false);
			break;
		case RULE_NUMERIC:
			encode_numeric(out, value);
			break;
		case RULE_TEXT:
			{
				struct varlena *text = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));

				set_text(encoder, out, AL_STRING,
						 VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
				break;
			}
		case RULE_NAME:
			set_constant(out, AL_STRING, NameStr(*DatumGetName(value)));
			break;
		case RULE_UUID:
			encode_uuid(out, DatumGetUUIDP(value));
			break;
		case RULE_DATETIME:
			encode_datetime(out, value, encoder->typid);
			break;
		case RULE_JSON:
			encode_json(out, value, whole);
			break;
		case RULE_JSONB:
			encode_jsonb(out, DatumGetJsonbP(value), whole);
			break;
		case RULE_OUTPUT:
			set_output(encoder, out, AL_STRING, value);
			break;
		case RULE_ARRAY:
		case RULE_COMPOSITE:
			elog(ERROR, "type %u is not a single value", encoder->typid);
			break;
	}
}

/* ------------------------------------------------------------------------
 * arrays and composites
 *
 * These write into the buffer of the outermost container, and return false
 * where a value has no plain form; what is written until then is void.
 * ------------------------------------------------------------------------
 */

static bool
append_dimension(ElementWalk *walk, int dim, StringInfo buf, AlJsonFrame *parent)
{
	AlJsonFrame frame;

	al_jsonbuild_array(&frame, buf, walk->dims[dim]);
	for (int i = 0; i < walk->dims[dim]; i++)
	{
		if (dim + 1 < walk->ndim)
		{
			if (!append_dimension(walk, dim + 1, buf, &frame))
				return false;
			continue;
		}

		if (walk->nulls[walk->next])
		{
			AlValue		null = {.kind = AL_NULL};

			al_jsonbuild_value(&frame, &null);
		}
		else if (!append_value(walk->encoder, walk->values[walk->next], &frame, true))
			return false;

		if (++walk->next % ELEMENTS_PER_RESET == 0)
		{
			CHECK_FOR_INTERRUPTS();
			if (walk->scratch != NULL)
				MemoryContextReset(walk->scratch);
		}
	}
	al_jsonbuild_close(&frame, parent);
	return true;
}

static bool
append_array(AlEncoder *encoder, Datum value, StringInfo buf, AlJsonFrame *parent)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int			ndim = ARR_NDIM(array);
	ElementWalk walk;
	int			nelems;
	bool		plain;
	MemoryContext old = CurrentMemoryContext;

	for (int i = 0; i < ndim; i++)
	{
		if (ARR_LBOUND(array)[i] != 1)
			return false;
	}

	if (ArrayGetNItems(ndim, ARR_DIMS(array)) == 0)
	{
		AlJsonFrame frame;

		al_jsonbuild_array(&frame, buf, 0);
		al_jsonbuild_close(&frame, parent);
		return true;
	}

	/* arrays within arrays, through a domain, would read as dimensions */
	if (encoder->element->rule == RULE_ARRAY)
		return false;

	deconstruct_array(array, ARR_ELEMTYPE(array), encoder->elemlen,
					  encoder->elembyval, encoder->elemalign,
					  &walk.values, &walk.nulls, &nelems);
	walk.encoder = encoder->element;
	walk.ndim = ndim;
	walk.dims = ARR_DIMS(array);
	walk.next = 0;
	walk.scratch = NULL;

	/* buf grows in its own context, whatever is current */
	if (nelems > ELEMENTS_PER_RESET)
	{
		walk.scratch = AllocSetContextCreate(old, "audit_log array elements",
											 ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(walk.scratch);
	}
	plain = append_dimension(&walk, 0, buf, parent);
	MemoryContextSwitchTo(old);
	if (walk.scratch != NULL)
		MemoryContextDelete(walk.scratch);

	pfree(walk.values);
	pfree(walk.nulls);
	return plain;
}

static bool
append_fields(AlEncoder *encoder, HeapTupleHeader row, StringInfo buf,
			  AlJsonFrame *parent)
{
	int			natts = encoder->tupdesc->natts;
	Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	HeapTupleData tuple;
	AlJsonFrame frame;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, encoder->tupdesc, values, nulls);

	al_jsonbuild_object(&frame, buf, encoder->nfields);
	for (int i = 0; i < encoder->nfields; i++)
		al_jsonbuild_key(&frame, encoder->fields[i].name, encoder->fields[i].namelen);
	for (int i = 0; i < encoder->nfields; i++)
	{
		AlField    *field = &encoder->fields[i];

		if (nulls[field->attno])
		{
			AlValue		null = {.kind = AL_NULL};

			al_jsonbuild_value(&frame, &null);
		}
		else if (!append_value(field->encoder, values[field->attno], &frame, false))
			return false;
	}
	al_jsonbuild_close(&frame, parent);
	return true;
}

static bool
append_composite(AlEncoder *encoder, Datum value, StringInfo buf,
				 AlJsonFrame *parent)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(value);
	AlFixed		saved;
	volatile bool plain = false;

	check_stack_depth();

	/* cannot be, but then the output function knows what it is */
	if (HeapTupleHeaderGetTypeId(row) != encoder->typid)
		return false;

	refresh_fields(encoder);
	if (encoder->field_need <= encoder->need)
		return append_fields(encoder, row, buf, parent);

	/*
	 * The type has got a field since the caller asked that needs more fixed
	 * settings than he was told.
	 */
	al_fixed_enter(&saved, encoder->field_need);
	PG_TRY();
	{
		plain = append_fields(encoder, row, buf, parent);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return plain;
}

/* element says that the value stands directly in a JSON array */
static bool
append_value(AlEncoder *encoder, Datum value, AlJsonFrame *frame, bool element)
{
	AlValue		single;

	if (encoder->rule == RULE_ARRAY)
		return append_array(encoder, value, frame->buf, frame);
	if (encoder->rule == RULE_COMPOSITE)
		return append_composite(encoder, value, frame->buf, frame);

	encode_single(encoder, value, &single, false);
	if (single.kind == AL_PG)
		return false;
	/* a json array as an element would read as a dimension */
	if (element && single.kind == AL_CONTAINER &&
		JsonContainerIsArray(single.container))
		return false;
	al_jsonbuild_value(frame, &single);
	return true;
}

/* The output function's text, under the settings that it needs. */
static void
encode_text(AlEncoder *encoder, Datum value, AlValue *out)
{
	AlFixed		saved;

	al_fixed_enter(&saved, encoder->text_need);
	PG_TRY();
	{
		set_output(encoder, out, AL_PG, value);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * The value of a whole column, not NULL.  The caller has entered the settings
 * that al_encode_need names.
 */
void
al_encode_value(AlEncoder *encoder, Datum value, AlValue *out)
{
	StringInfoData buf;
	Jsonb	   *root;
	bool		plain;

	if (encoder->rule != RULE_ARRAY && encoder->rule != RULE_COMPOSITE)
	{
		encode_single(encoder, value, out, true);
		return;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	if (encoder->rule == RULE_ARRAY)
		plain = append_array(encoder, value, &buf, NULL);
	else
		plain = append_composite(encoder, value, &buf, NULL);

	/* a composite may have $pg as the name of its only attribute */
	if (plain)
	{
		root = al_jsonbuild_finish(&buf);
		plain = !al_encode_is_pg(&root->root);
	}
	if (!plain)
	{
		pfree(buf.data);
		encode_text(encoder, value, out);
		return;
	}

	out->kind = AL_CONTAINER;
	out->container = &root->root;
	out->len = VARSIZE(root) - VARHDRSZ;
}

/* ------------------------------------------------------------------------
 * SQL
 * ------------------------------------------------------------------------
 */

/* Apart, for what PG_TRY stands in should have no variables of its own. */
static pg_noinline void
append_row(AlField *fields, int nfields, Datum *values, AlFixedNeed need,
		   StringInfo buf)
{
	AlFixed		saved;

	al_fixed_enter(&saved, need);
	PG_TRY();
	{
		AlJsonFrame frame;

		al_jsonbuild_object(&frame, buf, nfields);
		for (int i = 0; i < nfields; i++)
			al_jsonbuild_key(&frame, fields[i].name, fields[i].namelen);
		for (int i = 0; i < nfields; i++)
		{
			AlValue		value;

			al_encode_value(fields[i].encoder, values[fields[i].attno], &value);
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
	AlField    *fields;
	int			nfields = 0;
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
	fields = palloc(sizeof(AlField) * Max(natts, 1));

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, tupdesc, values, nulls);

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		AlField    *field = &fields[nfields];

		if (att->attisdropped || nulls[i])
			continue;
		field->name = NameStr(att->attname);
		field->namelen = strlen(field->name);
		field->attno = i;
		field->encoder = al_encode_prepare(att->atttypid, att->atttypmod,
										   CurrentMemoryContext);
		need = Max(need, al_encode_need(field->encoder));
		nfields++;
	}
	qsort(fields, nfields, sizeof(AlField), compare_fields);
	for (int i = 1; i < nfields; i++)
	{
		if (compare_fields(&fields[i - 1], &fields[i]) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_DUPLICATE_COLUMN),
					 errmsg("column \"%s\" occurs more than once", fields[i].name)));
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	append_row(fields, nfields, values, need, &buf);
	ReleaseTupleDesc(tupdesc);
	PG_RETURN_JSONB_P(al_jsonbuild_finish(&buf));
}
