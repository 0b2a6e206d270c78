/*
 * jsonbuild.c
 *		Writes jsonb's binary form directly.
 *
 * The server's own way to make a jsonb is a tree of JsonbValue that is sorted,
 * made unique and then copied into the binary form.  Capture knows the keys of
 * a row beforehand, in order and without duplicates, so it can write each
 * value once, at its final place.  The result is the same to the byte as the
 * server's, because "changed" is decided by comparing images: a container that
 * we wrote and one that jsonb_in wrote must not differ.
 *
 * The form, in short: a container is a header word, one JEntry a child (of an
 * object first all keys, then all values) and the children's data.  A JEntry
 * holds the type and the length, or, in each JB_OFFSET_STRIDE-th, the end
 * offset.  Numbers and containers begin at multiples of four bytes; the
 * padding before them belongs to their own length.  As a nested container is
 * aligned too, it reads the same wherever it is copied to.
 *
 * No state outlives a call; memory is the caller's buffer and, for results,
 * CurrentMemoryContext.
 */
#include "audit_log.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

/*
 * More pairs or elements than these the server could write nowhere but here,
 * and could not take apart again.
 */
#define AL_MAX_PAIRS	Min(MaxAllocSize / sizeof(JsonbPair), JB_CMASK)
#define AL_MAX_ELEMS	Min(MaxAllocSize / sizeof(JsonbValue), JB_CMASK)

#define AL_PG_KEY		"$pg"
#define AL_PG_KEY_LEN	3

static void
report_too_large(const AlJsonFrame *frame)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 (frame->header & JB_FOBJECT) ?
			 errmsg("total size of jsonb object elements exceeds the maximum of %u bytes",
					JENTRY_OFFLENMASK) :
			 errmsg("total size of jsonb array elements exceeds the maximum of %u bytes",
					JENTRY_OFFLENMASK),
			 errhint("Columns that hold so much can be named in exclude or mask of audit_log.enable().")));
}

/* Zero bytes up to the next multiple of four, as the server writes them. */
static inline void
pad(StringInfo buf)
{
	int			padlen = INTALIGN(buf->len) - buf->len;

	if (padlen > 0)
	{
		enlargeStringInfo(buf, padlen);
		memset(buf->data + buf->len, 0, padlen);
		buf->len += padlen;
	}
}

/*
 * Called before the data is written, so that a child that does not fit fails
 * with jsonb's limit and not with that of memory allocation.  The sum cannot
 * overflow: total is below 2^28 and len below 2^31.
 */
static inline void
check_room(const AlJsonFrame *frame, int len)
{
	Assert(len >= 0);
	if (frame->total + (uint32) len > JENTRY_OFFLENMASK)
		report_too_large(frame);
}

/* Enters a child whose data, len bytes with padding, ends the buffer. */
static inline void
add_entry(AlJsonFrame *frame, uint32 type, int len)
{
	JEntry		entry;

	Assert(frame->next < frame->nentries);
	check_room(frame, len);
	frame->total += len;

	if (frame->next % JB_OFFSET_STRIDE == 0)
		entry = type | frame->total | JENTRY_HAS_OFF;
	else
		entry = type | (uint32) len;

	((JEntry *) (frame->buf->data + frame->entries))[frame->next++] = entry;
}

static void
open_container(AlJsonFrame *frame, StringInfo buf, uint32 header, int nentries)
{
	int			size = sizeof(uint32) + nentries * sizeof(JEntry);

	frame->buf = buf;
	frame->start = buf->len;
	frame->nentries = nentries;
	frame->next = 0;
	frame->total = 0;
	frame->header = header;

	pad(buf);
	enlargeStringInfo(buf, size);
	memcpy(buf->data + buf->len, &header, sizeof(uint32));
	frame->entries = buf->len + sizeof(uint32);
	buf->len += size;
}

/* Empties buf and leaves room for the varlena header. */
void
al_jsonbuild_init(StringInfo buf)
{
	resetStringInfo(buf);
	enlargeStringInfo(buf, VARHDRSZ);
	memset(buf->data, 0, VARHDRSZ);
	buf->len = VARHDRSZ;
}

void
al_jsonbuild_object(AlJsonFrame *frame, StringInfo buf, int npairs)
{
	if ((Size) npairs > AL_MAX_PAIRS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("number of jsonb object pairs exceeds the maximum allowed (%zu)",
						AL_MAX_PAIRS)));

	open_container(frame, buf, JB_FOBJECT | (uint32) npairs, 2 * npairs);
}

void
al_jsonbuild_array(AlJsonFrame *frame, StringInfo buf, int nelems)
{
	if ((Size) nelems > AL_MAX_ELEMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("number of jsonb array elements exceeds the maximum allowed (%zu)",
						AL_MAX_ELEMS)));

	open_container(frame, buf, JB_FARRAY | (uint32) nelems, nelems);
}

/*
 * Ends a container.  parent is the frame that it is a value of, NULL for the
 * outermost.
 */
void
al_jsonbuild_close(AlJsonFrame *frame, AlJsonFrame *parent)
{
	int			len = frame->buf->len - frame->start;

	if (frame->next != frame->nentries)
		elog(ERROR, "jsonb container has %d of %d entries",
			 frame->next, frame->nentries);

	/* once more, now that header and entries count too */
	if (len > JENTRY_OFFLENMASK)
		report_too_large(frame);

	if (parent != NULL)
		add_entry(parent, JENTRY_ISCONTAINER, len);
}

/*
 * Keys must come in the order of al_jsonbuild_key_cmp; only builds with
 * assertions look at that, a row's columns being sorted once for all rows.
 */
void
al_jsonbuild_key(AlJsonFrame *frame, const char *key, int len)
{
	check_room(frame, len);

#ifdef USE_ASSERT_CHECKING
	Assert(frame->header & JB_FOBJECT);
	Assert(frame->next < frame->nentries / 2);
	if (frame->next > 0)
	{
		const JEntry *last = (const JEntry *) (frame->buf->data + frame->entries) + frame->next - 1;
		int			lastlen = JBE_OFFLENFLD(*last);

		if (JBE_HAS_OFF(*last))
			lastlen = getJsonbLength((const JsonbContainer *) (last - frame->next),
									 frame->next - 1);
		Assert(al_jsonbuild_key_cmp(frame->buf->data + frame->buf->len - lastlen,
									lastlen, key, len) < 0);
	}
#endif

	appendBinaryStringInfoNT(frame->buf, key, len);
	add_entry(frame, JENTRY_ISSTRING, len);
}

/*
 * The first n keys of an object are written as they were for another object
 * with as many pairs, which al_jsonbuild_keep_keys() has seen: their entries
 * depend on nothing else.
 */
void
al_jsonbuild_keys(AlJsonFrame *frame, const AlJsonKeys *keys)
{
	Assert(frame->next == 0 && frame->nentries == 2 * keys->n);
	memcpy(frame->buf->data + frame->entries, keys->entries, keys->n * sizeof(JEntry));
	appendBinaryStringInfoNT(frame->buf, keys->names, keys->len);
	frame->next = keys->n;
	frame->total = keys->len;
}

/* Called when all keys of an object are written, and no value yet. */
void
al_jsonbuild_keep_keys(const AlJsonFrame *frame, AlJsonKeys *keys, MemoryContext cxt)
{
	Assert(frame->next == frame->nentries / 2);
	keys->n = 0;				/* void, should memory run out */
	if (keys->entries)
		pfree(keys->entries);
	keys->entries = NULL;
	if (keys->names)
		pfree(keys->names);
	keys->names = NULL;
	keys->len = frame->total;
	keys->entries = MemoryContextAlloc(cxt, Max(frame->next, 1) * sizeof(JEntry));
	keys->names = MemoryContextAlloc(cxt, Max(keys->len, 1));
	memcpy(keys->entries, frame->buf->data + frame->entries, frame->next * sizeof(JEntry));
	memcpy(keys->names, frame->buf->data + frame->buf->len - keys->len, keys->len);
	keys->n = frame->next;
}

void
al_jsonbuild_value(AlJsonFrame *frame, const AlValue *value)
{
	StringInfo	buf = frame->buf;
	int			start = buf->len;

	switch (value->kind)
	{
		case AL_NULL:
			add_entry(frame, JENTRY_ISNULL, 0);
			break;

		case AL_BOOL:
			add_entry(frame,
					  value->boolean ? JENTRY_ISBOOL_TRUE : JENTRY_ISBOOL_FALSE,
					  0);
			break;

		case AL_NUMBER:
			{
				/*
				 * A numeric straight from a tuple may have the short varlena
				 * header, or be compressed or toasted; within jsonb it has
				 * always the plain one.
				 */
				Numeric		number = DatumGetNumeric(NumericGetDatum(value->number));
				int			len = VARSIZE(number);

				check_room(frame, len);
				pad(buf);
				appendBinaryStringInfoNT(buf, (char *) number, len);
				add_entry(frame, JENTRY_ISNUMERIC, buf->len - start);
				if (number != value->number)
					pfree(number);
				break;
			}

		case AL_STRING:
			check_room(frame, value->len);
			appendBinaryStringInfoNT(buf, value->string, value->len);
			add_entry(frame, JENTRY_ISSTRING, value->len);
			break;

		case AL_CONTAINER:
			Assert(!JsonContainerIsScalar(value->container));
			check_room(frame, value->len);
			pad(buf);
			appendBinaryStringInfoNT(buf, (char *) value->container, value->len);
			add_entry(frame, JENTRY_ISCONTAINER, buf->len - start);
			break;

		case AL_PG:
			{
				AlJsonFrame inner;
				AlValue		text = *value;

				text.kind = AL_STRING;
				al_jsonbuild_object(&inner, buf, 1);
				al_jsonbuild_key(&inner, AL_PG_KEY, AL_PG_KEY_LEN);
				al_jsonbuild_value(&inner, &text);
				al_jsonbuild_close(&inner, frame);
				break;
			}
	}
}

/* The datum is buf's own data: valid until buf is written or freed. */
Jsonb *
al_jsonbuild_finish(StringInfo buf)
{
	SET_VARSIZE(buf->data, buf->len);
	return (Jsonb *) buf->data;
}

/*
 * One value as a jsonb of its own: a raw scalar, the object that stands for an
 * AL_PG, or a copy of the container.
 */
Jsonb *
al_jsonbuild_scalar(const AlValue *value)
{
	StringInfoData buf;
	AlJsonFrame frame;

	if (value->kind == AL_CONTAINER)
	{
		Jsonb	   *result = palloc(VARHDRSZ + value->len);

		SET_VARSIZE(result, VARHDRSZ + value->len);
		memcpy(&result->root, value->container, value->len);
		return result;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	if (value->kind == AL_PG)
	{
		AlValue		text = *value;

		text.kind = AL_STRING;
		al_jsonbuild_object(&frame, &buf, 1);
		al_jsonbuild_key(&frame, AL_PG_KEY, AL_PG_KEY_LEN);
		al_jsonbuild_value(&frame, &text);
	}
	else
	{
		open_container(&frame, &buf, JB_FARRAY | JB_FSCALAR | 1, 1);
		al_jsonbuild_value(&frame, value);
	}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

/* The order of an object's keys: shorter first, then by bytes. */
int
al_jsonbuild_key_cmp(const char *a, int alen, const char *b, int blen)
{
	if (alen != blen)
		return alen < blen ? -1 : 1;
	return memcmp(a, b, alen);
}

/*
 * What an iterator or a look-up of the server gave.  Never AL_PG: whether an
 * object with the only key $pg stands for a text, only its place tells.
 */
void
al_jsonbuild_from_jsonb(AlValue *out, const JsonbValue *value)
{
	memset(out, 0, sizeof(AlValue));

	switch (value->type)
	{
		case jbvNull:
			out->kind = AL_NULL;
			break;
		case jbvBool:
			out->kind = AL_BOOL;
			out->boolean = value->val.boolean;
			break;
		case jbvNumeric:
			out->kind = AL_NUMBER;
			out->number = value->val.numeric;
			break;
		case jbvString:
			out->kind = AL_STRING;
			out->string = value->val.string.val;
			out->len = value->val.string.len;
			break;
		case jbvBinary:
			/* a raw scalar's wrapping array is no value by itself */
			if (JsonContainerIsScalar(value->val.binary.data))
			{
				JsonbValue	scalar;

				if (!JsonbExtractScalar(value->val.binary.data, &scalar))
					elog(ERROR, "invalid jsonb scalar container");
				al_jsonbuild_from_jsonb(out, &scalar);
				break;
			}
			out->kind = AL_CONTAINER;
			out->container = value->val.binary.data;
			out->len = value->val.binary.len;
			break;
		default:
			/* a tree in memory, or a date of jsonpath: written out first */
			al_jsonbuild_from_root(out, JsonbValueToJsonb(unconstify(JsonbValue *, value)));
			break;
	}
}

/* A whole jsonb datum, not toasted; the result points into it. */
void
al_jsonbuild_from_root(AlValue *out, Jsonb *root)
{
	JsonbValue	value;

	value.type = jbvBinary;
	value.val.binary.data = &root->root;
	value.val.binary.len = VARSIZE(root) - VARHDRSZ;
	al_jsonbuild_from_jsonb(out, &value);
}

/* Whether both would be written with the same bytes: 1.0 is not 1.00. */
bool
al_jsonbuild_image_eq(const AlValue *a, const AlValue *b)
{
	if (a->kind != b->kind)
		return false;

	switch (a->kind)
	{
		case AL_NULL:
			return true;
		case AL_BOOL:
			return a->boolean == b->boolean;
		case AL_NUMBER:
			{
				Numeric		x = DatumGetNumeric(NumericGetDatum(a->number));
				Numeric		y = DatumGetNumeric(NumericGetDatum(b->number));
				bool		equal = VARSIZE(x) == VARSIZE(y) &&
					memcmp(x, y, VARSIZE(x)) == 0;

				if (x != a->number)
					pfree(x);
				if (y != b->number)
					pfree(y);
				return equal;
			}
		case AL_STRING:
		case AL_PG:
			return a->len == b->len && memcmp(a->string, b->string, a->len) == 0;
		case AL_CONTAINER:
			return a->len == b->len &&
				memcmp(a->container, b->container, a->len) == 0;
	}
	return false;				/* keep the compiler quiet */
}

/*
 * The value's text as ->> gives it, terminated; NULL for AL_NULL.  Of AL_PG it
 * is the text itself, which is what record_id shows.  In CurrentMemoryContext,
 * except for booleans, which are constants.
 */
char *
al_jsonbuild_text(const AlValue *value, int *len)
{
	char	   *text = NULL;

	switch (value->kind)
	{
		case AL_NULL:
			break;
		case AL_BOOL:
			text = value->boolean ? "true" : "false";
			break;
		case AL_NUMBER:
			text = DatumGetCString(DirectFunctionCall1(numeric_out,
													   NumericGetDatum(value->number)));
			break;
		case AL_STRING:
		case AL_PG:
			text = pnstrdup(value->string, value->len);
			*len = value->len;
			return text;
		case AL_CONTAINER:
			text = JsonbToCString(NULL, value->container, value->len);
			break;
	}

	*len = text != NULL ? strlen(text) : 0;
	return text;
}
