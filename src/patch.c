/*
 * patch.c
 *		Applying jsondiffpatch deltas to documents, in either direction.
 *
 * No state outlives a call.  Work and results are in CurrentMemoryContext.
 */
#include "audit_log.h"

#include "fmgr.h"
#include "miscadmin.h"

/* The delta that leads back. */
static void
reverse_delta(AlDelta *delta)
{
	AlValue		swap;

	switch (delta->kind)
	{
		case AL_DELTA_ADDED:
			delta->kind = AL_DELTA_REMOVED;
			delta->old = delta->new;
			break;
		case AL_DELTA_REMOVED:
			delta->kind = AL_DELTA_ADDED;
			delta->new = delta->old;
			break;
		case AL_DELTA_CHANGED:
			swap = delta->old;
			delta->old = delta->new;
			delta->new = swap;
			break;
		case AL_DELTA_NESTED:
			break;
	}
}

/* Walks along an object and the delta for it, giving the pairs of the result. */
typedef struct PatchWalk
{
	AlJsonWalk	document;
	AlJsonWalk	delta;
	const AlPlace *place;
	bool		reverse;
	int			cmp;			/* of the pair that was given last */

	const char *key;
	int			keylen;
	const AlValue *value;		/* the pair's value, or what the nested delta
								 * is for */
	const AlValue *nested;		/* the nested delta, or NULL */
	AlDelta		leaf;
} PatchWalk;

static void
patch_walk_begin(PatchWalk *walk, const JsonbContainer *document,
				 const JsonbContainer *delta, const AlPlace *place, bool reverse)
{
	al_jsonwalk_begin(&walk->document, document);
	al_jsonwalk_begin(&walk->delta, delta);
	walk->place = place;
	walk->reverse = reverse;
	walk->cmp = 0;				/* both are to be moved first */
}

static bool
patch_walk_next(PatchWalk *walk)
{
	for (;;)
	{
		int			cmp;

		if (walk->cmp <= 0)
			al_jsonwalk_next(&walk->document);
		if (walk->cmp >= 0)
			al_jsonwalk_next(&walk->delta);
		if (walk->document.key == NULL && walk->delta.key == NULL)
			return false;

		cmp = walk->cmp = al_jsonwalk_cmp(&walk->document, &walk->delta);
		walk->nested = NULL;

		if (cmp < 0)
		{
			walk->key = walk->document.key;
			walk->keylen = walk->document.keylen;
			walk->value = &walk->document.value;
			return true;
		}

		walk->key = walk->delta.key;
		walk->keylen = walk->delta.keylen;
		al_deltaread_key(&walk->delta, walk->place, &walk->leaf);
		if (walk->reverse)
			reverse_delta(&walk->leaf);

		switch (walk->leaf.kind)
		{
			case AL_DELTA_ADDED:
			case AL_DELTA_CHANGED:
				walk->value = &walk->leaf.new;
				return true;

			case AL_DELTA_REMOVED:
				break;			/* no pair of the result */

			case AL_DELTA_NESTED:
				walk->nested = &walk->leaf.new;
				walk->value = cmp == 0 ? &walk->document.value : NULL;
				return true;
		}
	}
}

/*
 * Applies a nested delta.  The number of pairs must be written before them,
 * and all keys before the values, so the walk is made three times; that is
 * still cheaper than keeping a list.
 */
static void
patch_object(StringInfo buf, AlJsonFrame *parent, const AlValue *document,
			 const AlValue *delta, const AlPlace *place, bool reverse)
{
	PatchWalk	walk;
	AlJsonFrame frame;
	int			npairs = 0;

	check_stack_depth();

	if (document == NULL || !al_jsonwalk_is_object(document))
	{
		AlJsonWalk	keys;
		AlDelta		ignored;

		/* where the delta itself is at fault, say so rather */
		al_jsonwalk_begin(&keys, delta->container);
		while (al_jsonwalk_next(&keys))
			al_deltaread_key(&keys, place, &ignored);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delta does not fit the document"),
				 errdetail("The delta changes keys of an object at %s, where the document has %s.",
						   al_deltaread_place(place),
						   document == NULL ? "nothing" : "another kind of value"),
				 errhint("Apply a delta to the document it was made from, or with jsonb_unpatch() to the one it leads to.")));
	}

	patch_walk_begin(&walk, document->container, delta->container, place, reverse);
	while (patch_walk_next(&walk))
		npairs++;

	al_jsonbuild_object(&frame, buf, npairs);

	patch_walk_begin(&walk, document->container, delta->container, place, reverse);
	while (patch_walk_next(&walk))
		al_jsonbuild_key(&frame, walk.key, walk.keylen);

	patch_walk_begin(&walk, document->container, delta->container, place, reverse);
	while (patch_walk_next(&walk))
	{
		if (walk.nested != NULL)
		{
			AlPlace		child = {place, walk.key, walk.keylen};

			patch_object(buf, &frame, walk.value, walk.nested, &child, reverse);
		}
		else
			al_jsonbuild_value(&frame, walk.value);
	}

	al_jsonbuild_close(&frame, parent);
}

/*
 * Applies a delta to a document, or takes it back from one.  NULL stands for
 * no document, before and after: [new] makes one, [old, 0, 0] removes it.
 *
 * As in jsondiffpatch the old values are not compared with what is there; who
 * must know of conflicts compares first.  A nested delta for what is no object
 * is an error.
 */
Jsonb *
al_patch_apply(Jsonb *document, Jsonb *delta, bool reverse)
{
	StringInfoData buf;
	AlValue		value;
	AlValue		delta_value;
	AlDelta		what;

	al_jsonbuild_from_root(&delta_value, delta);
	al_deltaread_value(&delta_value, NULL, &what);
	if (reverse)
		reverse_delta(&what);

	switch (what.kind)
	{
		case AL_DELTA_ADDED:
		case AL_DELTA_CHANGED:
			return al_jsonbuild_scalar(&what.new);
		case AL_DELTA_REMOVED:
			return NULL;
		case AL_DELTA_NESTED:
			break;
	}

	if (document != NULL)
		al_jsonbuild_from_root(&value, document);
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	patch_object(&buf, NULL, document != NULL ? &value : NULL, &what.new, NULL, reverse);
	return al_jsonbuild_finish(&buf);
}

PG_FUNCTION_INFO_V1(audit_log_jsonb_patch);
PG_FUNCTION_INFO_V1(audit_log_jsonb_unpatch);

static Datum
patch(FunctionCallInfo fcinfo, bool reverse)
{
	Jsonb	   *document = PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0);
	Jsonb	   *result = document;

	if (!PG_ARGISNULL(1))
		result = al_patch_apply(document, PG_GETARG_JSONB_P(1), reverse);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/* audit_log_jsonb_patch(document jsonb, delta jsonb) RETURNS jsonb */
Datum
audit_log_jsonb_patch(PG_FUNCTION_ARGS)
{
	return patch(fcinfo, false);
}

/* audit_log_jsonb_unpatch(document jsonb, delta jsonb) RETURNS jsonb */
Datum
audit_log_jsonb_unpatch(PG_FUNCTION_ARGS)
{
	return patch(fcinfo, true);
}
