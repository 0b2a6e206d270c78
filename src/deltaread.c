/*
 * deltaread.c
 *		Reading jsondiffpatch deltas, and refusing what is none: the format is
 *		described in delta.c.
 *
 * A delta may come from anybody, jsondiffpatch itself included, so nothing is
 * taken for granted.  What jsondiffpatch knows and we do not is told from
 * what is no delta at all.
 *
 * No state outlives a call.  What is read points into the delta.
 */
#include "audit_log.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"

/* How much of a place in a document error messages show. */
#define PLACE_KEYS		8
#define PLACE_KEY_LEN	64

/* A place as error messages show it: $."column"."key". */
char *
al_deltaread_place(const AlPlace *place)
{
	const AlPlace *keys[PLACE_KEYS];
	int			nkeys = 0;
	StringInfoData buf;

	initStringInfo(&buf);
	for (; place != NULL && nkeys < PLACE_KEYS; place = place->parent)
		keys[nkeys++] = place;
	appendStringInfoString(&buf, place != NULL ? "(...)" : "$");

	while (nkeys > 0)
	{
		const AlPlace *at = keys[--nkeys];
		int			len = pg_mbcliplen(at->key, at->keylen, PLACE_KEY_LEN);

		appendStringInfo(&buf, ".\"%.*s%s\"", len, at->key,
						 len < at->keylen ? "..." : "");
	}
	return buf.data;
}

static void
report_malformed(const AlPlace *place)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("malformed delta"),
			 errdetail("The value at %s is neither [new], [old, new], [old, 0, 0] nor an object of such.",
					   al_deltaread_place(place)),
			 errhint("A delta is what jsonb_delta() or column \"changes\" of an UPDATE gives.")));
}

static void
report_unsupported(const AlPlace *place, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s in a delta is not supported", what),
			 errdetail("It stands at %s.", al_deltaread_place(place)),
			 errhint("A supported delta replaces arrays and texts whole: [old, new].")));
}

/*
 * Whether a number is n, however many zeros its fraction has: JSON does not
 * tell 0 from 0.0.
 */
static bool
number_is(const AlValue *value, int n)
{
	Numeric		number;
	bool		equal;

	if (value->kind != AL_NUMBER)
		return false;

	number = int64_to_numeric(n);
	equal = DatumGetBool(DirectFunctionCall2(numeric_eq,
											 NumericGetDatum(value->number),
											 NumericGetDatum(number)));
	pfree(number);
	return equal;
}

/* What a delta says at its outermost level. */
void
al_deltaread_value(const AlValue *value, const AlPlace *place, AlDelta *delta)
{
	AlJsonWalk	walk;
	AlValue		elems[3];
	int			n = 0;

	if (al_jsonwalk_is_object(value))
	{
		delta->kind = AL_DELTA_NESTED;
		delta->new = *value;
		return;
	}

	if (value->kind != AL_CONTAINER ||
		JsonContainerSize(value->container) < 1 ||
		JsonContainerSize(value->container) > 3)
		report_malformed(place);

	al_jsonwalk_begin(&walk, value->container);
	while (al_jsonwalk_next(&walk))
		elems[n++] = walk.value;

	switch (n)
	{
		case 1:
			delta->kind = AL_DELTA_ADDED;
			delta->new = elems[0];
			break;
		case 2:
			delta->kind = AL_DELTA_CHANGED;
			delta->old = elems[0];
			delta->new = elems[1];
			break;
		default:
			if (number_is(&elems[1], 0) && number_is(&elems[2], 0))
			{
				delta->kind = AL_DELTA_REMOVED;
				delta->old = elems[0];
				break;
			}
			if (elems[0].kind == AL_STRING && number_is(&elems[1], 0) &&
				number_is(&elems[2], 2))
				report_unsupported(place, "a text difference");
			if (elems[1].kind == AL_NUMBER && number_is(&elems[2], 3))
				report_unsupported(place, "a move within an array");
			report_malformed(place);
	}
}

/* The same, of a key of a nested delta. */
void
al_deltaread_key(const AlJsonWalk *walk, const AlPlace *parent, AlDelta *delta)
{
	AlPlace		place = {parent, walk->key, walk->keylen};

	if (walk->keylen == 2 && memcmp(walk->key, "_t", 2) == 0 &&
		walk->value.kind == AL_STRING)
		report_unsupported(parent, "the difference of two arrays");
	al_deltaread_value(&walk->value, &place, delta);
}
