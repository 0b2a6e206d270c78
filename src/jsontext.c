/*
 * jsontext.c
 *		Tells whether a json text is what jsonb's output would write of it.
 *
 * A json value is its text, to the blank; the log can hold it as JSON only if
 * jsonb gives that very text back.  To parse it, write it out and compare is
 * the truth, and slow; so a look at the text comes first.
 *
 * No state outlives a call.
 */
#include "audit_log.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"

/*
 * Longer texts stay texts.  The parser takes up to thirty times as much
 * memory, and fails from 48 MB on, if they are many short elements, with an
 * error that cannot be told from a bug.
 */
#define MAX_LENGTH	(32 * 1024 * 1024)

/*
 * So do those nested deeper: whether they can be parsed depends on how much
 * stack is left, and their form in the log must not.
 */
#define MAX_DEPTH	1000

/* and those with longer numbers, which numeric may refuse */
#define MAX_DIGITS	10000

/*
 * Whether a json text may be what jsonb's output would write.  Most json that
 * clients write is not, having no space after commas and colons or its keys in
 * another order, and this finds it out there, long before anything is parsed.
 * It also keeps away from the parser what would fail in it or depends on the
 * stack that is left.
 *
 * The text may be no JSON at all: a cast without function makes json of any.
 */
static bool
may_be_plain(const char *text, int len)
{
	const char *p = text;
	const char *end = text + len;
	const char *string = NULL;	/* the last one seen */
	int			stringlen = 0;
	bool		escapes = false;
	int			depth = 0;
	struct
	{
		const char *key;		/* the last one of the object at this depth */
		int			len;
	}			last[MAX_DEPTH + 1];

	while (p < end)
	{
		switch (*p)
		{
			case '"':
				string = ++p;
				escapes = false;
				for (; p < end && *p != '"'; p++)
				{
					if (*p != '\\')
						continue;
					escapes = true;
					p++;
					if (p < end && strchr("\"\\bfnrt", *p) != NULL)
						continue;
					/* the only others are control characters, but not 0 */
					if (end - p < 5 || strncmp(p, "u00", 3) != 0 ||
						(p[3] != '0' && p[3] != '1') ||
						(p[3] == '0' && p[4] == '0'))
						return false;
					p += 4;
				}
				stringlen = p - string;
				p++;
				break;
			case ':':
				if (++p >= end || *p != ' ' || depth == 0)
					return false;
				p++;
				/* of a key with escapes, this is not the length that counts */
				if (escapes)
					last[depth].key = NULL;
				else
				{
					if (last[depth].key != NULL &&
						al_jsonbuild_key_cmp(last[depth].key, last[depth].len,
											 string, stringlen) >= 0)
						return false;
					last[depth].key = string;
					last[depth].len = stringlen;
				}
				break;
			case ',':
				if (++p >= end || *p != ' ')
					return false;
				p++;
				break;
			case '{':
			case '[':
				if (++depth > MAX_DEPTH)
					return false;
				last[depth].key = NULL;
				p++;
				break;
			case '}':
			case ']':
				if (--depth < 0)
					return false;
				p++;
				break;
			case 't':
			case 'n':
				p += 4;
				break;
			case 'f':
				p += 5;
				break;
			default:
				{
					const char *number = p;

					/* jsonb writes no exponents */
					while (p < end && ((*p >= '0' && *p <= '9') ||
									   *p == '.' || *p == '-'))
						p++;
					if (p == number || p - number > MAX_DIGITS)
						return false;
					break;
				}
		}
	}
	return true;
}

/*
 * A text as jsonb; NULL where the parser refuses it: it is no JSON, nests too
 * deep, or is too large for jsonb.
 *
 * Such errors are caught without a subtransaction: jsonb_in and what it calls
 * touch nothing but memory, and that is in a context of its own.  Anything else
 * (out of memory, the user's cancel) goes on.
 */
Jsonb *
al_jsontext_try(const char *text, int len)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(caller, "audit_log json",
											   ALLOCSET_DEFAULT_SIZES);
	uint32		holdoff = InterruptHoldoffCount;
	Jsonb	   *volatile result = NULL;

	PG_TRY();
	{
		Jsonb	   *jsonb;

		MemoryContextSwitchTo(work);
		jsonb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												   CStringGetDatum(pnstrdup(text, len))));
		result = MemoryContextAlloc(caller, VARSIZE(jsonb));
		memcpy(result, jsonb, VARSIZE(jsonb));
	}
	PG_CATCH();
	{
		int			category = ERRCODE_TO_CATEGORY(geterrcode());

		MemoryContextSwitchTo(caller);
		if (category != ERRCODE_DATA_EXCEPTION &&
			category != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			PG_RE_THROW();
		FlushErrorState();
		InterruptHoldoffCount = holdoff;	/* the error had cleared it */
		result = NULL;
	}
	PG_END_TRY();

	MemoryContextSwitchTo(caller);
	MemoryContextDelete(work);
	return result;
}

/*
 * A json text as jsonb, if jsonb's output gives the very same text; otherwise
 * NULL.  The parser may yet refuse what looks plain (a key or the whole too
 * long, say), which only means that it stays text.
 */
Jsonb *
al_jsontext_parse(const char *text, int len)
{
	Jsonb	   *jsonb;
	StringInfoData back;
	bool		same;

	if (len > MAX_LENGTH || !may_be_plain(text, len))
		return NULL;
	jsonb = al_jsontext_try(text, len);
	if (jsonb == NULL)
		return NULL;

	initStringInfo(&back);
	JsonbToCString(&back, &jsonb->root, len);
	same = back.len == len && memcmp(back.data, text, len) == 0;
	pfree(back.data);
	if (same)
		return jsonb;
	pfree(jsonb);
	return NULL;
}
