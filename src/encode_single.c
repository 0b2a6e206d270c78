/*
 * encode_single.c
 *		A value that is neither array nor composite, as the log writes it.
 *
 * The type decides once (al_encode_single_prepare) which of the functions
 * below writes its values.  This is the write path of every audited table:
 * what can be pointed to is not copied, and where the output function's text
 * would be taken apart again, it is not asked.
 *
 * The contract is that the type's input function makes the same image of what
 * stands here.  Where it would not do so of the plain JSON form, the value is
 * AL_PG, the output function's text.
 *
 * Nothing in a prepared AlSingle becomes stale: names of enum labels are looked
 * up each time.  It lives as long as the memory context it was prepared in.
 */
#include "audit_log.h"

#include <math.h>

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/uuid.h"

/* of AlSingle's encode; few look at all of them */
#define ENCODE_ARGS \
	AlSingle *single pg_attribute_unused(), Datum value, AlValue *out, \
	bool whole pg_attribute_unused()

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
set_text(const AlSingle *single, AlValue *out, AlValueKind kind,
		 const char *string, int len)
{
	if (single->verify)
		(void) pg_verifymbstr(string, len, false);
	set_string(out, kind, string, len);
}

static inline void
set_output(AlSingle *single, AlValue *out, AlValueKind kind, Datum value)
{
	char	   *text = OutputFunctionCall(&single->output, value);

	set_text(single, out, kind, text, strlen(text));
}

static void
encode_bool(ENCODE_ARGS)
{
	out->kind = AL_BOOL;
	out->boolean = DatumGetBool(value);
}

/*
 * What int64_to_numeric() gives, the commonest of all conversions, written
 * directly: the short form of numeric (numeric.c), which pg_upgrade keeps from
 * version to version.  A header of 16 bits, then digits to the base 10,000,
 * without zeroes at either end; the weight is the power of the first.
 */
static void
set_integer(AlValue *out, int64 value)
{
	uint64		rest = value < 0 ? -(uint64) value : (uint64) value;
	int16		digits[5];
	int			ndigits = 0;
	int			zeroes = 0;
	int			size;
	char	   *number;
	uint16		header;

	for (; rest != 0; rest /= 10000)
	{
		digits[ndigits++] = rest % 10000;
		if (zeroes == ndigits - 1 && digits[zeroes] == 0)
			zeroes++;
	}
	header = 0x8000 | (value < 0 ? 0x2000 : 0) | (ndigits > 0 ? ndigits - 1 : 0);
	size = VARHDRSZ + sizeof(uint16) + (ndigits - zeroes) * sizeof(int16);
	number = palloc(size);
	SET_VARSIZE(number, size);
	memcpy(number + VARHDRSZ, &header, sizeof(uint16));
	for (int i = 0; i < ndigits - zeroes; i++)
		memcpy(number + VARHDRSZ + sizeof(uint16) + i * sizeof(int16),
			   &digits[ndigits - 1 - i], sizeof(int16));
	set_number(out, (Numeric) number);
}

static void
encode_int2(ENCODE_ARGS)
{
	set_integer(out, DatumGetInt16(value));
}

static void
encode_int4(ENCODE_ARGS)
{
	set_integer(out, DatumGetInt32(value));
}

static void
encode_int8(ENCODE_ARGS)
{
	set_integer(out, DatumGetInt64(value));
}

/*
 * A float is the number that its shortest exact text names, as in to_jsonb.
 * Whole numbers below 2^24 and 2^53 are their own shortest text.
 */
static void
set_float(AlValue *out, double value, bool shorter)
{
	char		buf[DOUBLE_SHORTEST_DECIMAL_LEN];

	if (isnan(value))
		set_constant(out, AL_PG, "NaN");
	else if (isinf(value))
		set_constant(out, AL_PG, value > 0 ? "Infinity" : "-Infinity");
	else if (value == 0 && signbit(value))
		set_constant(out, AL_PG, "-0");
	else if (fabs(value) < (shorter ? 16777216.0 : 9007199254740992.0) &&
			 value == (double) (int64) value)
		set_integer(out, (int64) value);
	else
	{
		if (shorter)
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

static void
encode_float4(ENCODE_ARGS)
{
	set_float(out, DatumGetFloat4(value), true);
}

static void
encode_float8(ENCODE_ARGS)
{
	set_float(out, DatumGetFloat8(value), false);
}

/*
 * NaN and the infinities consist of a header alone, two bytes or, in data that
 * pg_upgrade brought from very old versions, four.  A longer value needs no
 * look inside, so that one with the short varlena header can stay as it is.
 */
static void
encode_numeric(ENCODE_ARGS)
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

/* the varlena's bytes are the text */
static void
encode_text(ENCODE_ARGS)
{
	struct varlena *text = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));

	set_text(single, out, AL_STRING, VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
}

static void
encode_name(ENCODE_ARGS)
{
	set_constant(out, AL_STRING, NameStr(*DatumGetName(value)));
}

static void
encode_uuid(ENCODE_ARGS)
{
	static const char digits[] = "0123456789abcdef";
	const pg_uuid_t *uuid = DatumGetUUIDP(value);
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
encode_datetime(ENCODE_ARGS)
{
	static const int zone = 0;

	set_constant(out, AL_STRING,
				 JsonEncodeDateTime(NULL, value, single->typid,
									single->typid == TIMESTAMPTZOID ? &zone : NULL));
}

/*
 * Whether a container is an object whose only key is $pg: as a whole column's
 * value that would read as the text of something else.
 */
bool
al_encode_single_is_pg(const JsonbContainer *container)
{
	return JsonContainerIsObject(container) &&
		JsonContainerSize(container) == 1 &&
		getJsonbLength(container, 0) == 3 &&
		memcmp(&container->children[2], "$pg", 3) == 0;
}

static void
set_jsonb(AlValue *out, Jsonb *root, bool whole)
{
	al_jsonbuild_from_root(out, root);

	if (out->kind == AL_NULL)
		set_constant(out, AL_PG, "null");
	else if (whole && out->kind == AL_CONTAINER &&
			 al_encode_single_is_pg(out->container))
		set_constant(out, AL_PG,
					 JsonbToCString(NULL, out->container, out->len));
}

static void
encode_json(ENCODE_ARGS)
{
	struct varlena *json = pg_detoast_datum_packed((struct varlena *) DatumGetPointer(value));
	const char *text = VARDATA_ANY(json);
	int			len = VARSIZE_ANY_EXHDR(json);
	Jsonb	   *root = al_jsontext_parse(text, len);

	if (root != NULL)
		set_jsonb(out, root, whole);
	else
		set_string(out, AL_PG, text, len);
}

static void
encode_jsonb(ENCODE_ARGS)
{
	set_jsonb(out, DatumGetJsonbP(value), whole);
}

static void
encode_output(ENCODE_ARGS)
{
	set_output(single, out, AL_STRING, value);
}

/*
 * For types of all kinds but domains.  Those that have a shape of their own,
 * arrays and composites, are here what their output functions say.
 */
void
al_encode_single_prepare(AlSingle *single, Oid typid, MemoryContext cxt)
{
	Oid			output;
	bool		isvarlena;

	single->typid = typid;
	getTypeOutputInfo(typid, &output, &isvarlena);
	fmgr_info_cxt(output, &single->output, cxt);
	single->text_need = al_fixed_text_need(typid);
	single->need = AL_FIXED_NOTHING;
	single->verify = typid >= FirstNormalObjectId &&
		get_typtype(typid) != TYPTYPE_ENUM;

	switch (typid)
	{
		case BOOLOID:
			single->encode = encode_bool;
			return;
		case INT2OID:
			single->encode = encode_int2;
			return;
		case INT4OID:
			single->encode = encode_int4;
			return;
		case INT8OID:
			single->encode = encode_int8;
			return;
		case FLOAT4OID:
			single->encode = encode_float4;
			return;
		case FLOAT8OID:
			single->encode = encode_float8;
			return;
		case NUMERICOID:
			single->encode = encode_numeric;
			return;
		case NAMEOID:
			single->encode = encode_name;
			return;
		case UUIDOID:
			single->encode = encode_uuid;
			return;
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			single->encode = encode_datetime;
			return;
		case JSONOID:
			single->encode = encode_json;
			return;
		case JSONBOID:
			single->encode = encode_jsonb;
			return;
		default:
			break;
	}

	/*
	 * Compared are addresses of C functions: a type of an extension may name
	 * textout as its own output function under another OID (citext does).
	 */
	if (get_typlen(typid) == -1 &&
		(single->output.fn_addr == textout ||
		 single->output.fn_addr == varcharout ||
		 single->output.fn_addr == bpcharout))
		single->encode = encode_text;
	else
	{
		single->encode = encode_output;
		single->need = single->text_need;
	}
}

/*
 * A whole column's value as AL_PG: the output function's text, under the
 * settings that it needs.
 */
void
al_encode_single_pg(AlSingle *single, Datum value, AlValue *out)
{
	AlFixed		saved;

	al_fixed_enter(&saved, single->text_need);
	PG_TRY();
	{
		set_output(single, out, AL_PG, value);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}
