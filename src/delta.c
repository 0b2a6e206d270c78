/*
 * delta.c
 *		Making jsondiffpatch deltas between JSON values.
 *
 * The format is jsondiffpatch's, of which we write the part that loses
 * nothing and needs no text or list comparison:
 *
 *		[new]			there was no value
 *		[old, new]		another value
 *		[old, 0, 0]		there is no value any more
 *		{key: delta}	both are objects, and these keys differ
 *
 * Arrays are replaced whole.  jsondiffpatch marks list deltas with a key _t
 * whose value is the string "a".  A delta is never a string, so an object's
 * own key _t, whose value is a delta, is told from it.
 *
 * "Differ" means that the images do: 1.0 and 1.00 are equal to jsonb's =, but
 * who takes a change back must get the very value.
 *
 * Objects are compared by walking along both at once, and no byte of the
 * documents is compared more than twice however deep it lies.
 *
 * No state outlives a call.  Work and results are in CurrentMemoryContext.
 */
#include "audit_log.h"

#include "fmgr.h"
#include "miscadmin.h"

/*
 * Objects nested deeper are replaced whole: whether they could be compared
 * inside depends on how much stack is left, and an UPDATE of a document that
 * the server takes must not fail here.
 */
#define MAX_DEPTH	1000

/* One differing key, while the delta of two objects is gathered. */
typedef struct Change
{
	struct Change *next;
	const char *key;
	int			keylen;
	AlDelta		delta;
	struct Change *children;	/* of AL_DELTA_NESTED */
	int			nchildren;
} Change;

/* Offset of the first byte, not before from, that differs; len if none. */
static int
first_difference(const char *a, const char *b, int from, int len)
{
	/* memcmp is fast but does not tell where, so go on in blocks */
	while (len - from >= 256 && memcmp(a + from, b + from, 256) == 0)
		from += 256;
	while (from < len && a[from] == b[from])
		from++;
	return from;
}

/*
 * Gathers the differing keys of two objects.
 *
 * The first `same` bytes of both are known to be equal, from comparing the
 * whole containers that these are part of.  Without that knowledge the same
 * bytes would be compared again at each level.
 */
static Change *
gather_changes(const JsonbContainer *old, const JsonbContainer *new, int same,
			   int depth, int *nchanges)
{
	AlJsonWalk	a;
	AlJsonWalk	b;
	Change	   *first = NULL;
	Change	  **tail = &first;

	check_stack_depth();

	*nchanges = 0;
	al_jsonwalk_begin(&a, old);
	al_jsonwalk_begin(&b, new);
	al_jsonwalk_next(&a);
	al_jsonwalk_next(&b);

	while (a.key != NULL || b.key != NULL)
	{
		int			cmp = al_jsonwalk_cmp(&a, &b);
		const AlJsonWalk *at = cmp <= 0 ? &a : &b;
		bool		differs = true;
		Change		change;

		change.next = NULL;
		change.key = at->key;
		change.keylen = at->keylen;
		change.children = NULL;
		change.nchildren = 0;

		if (cmp < 0)
		{
			change.delta.kind = AL_DELTA_REMOVED;
			change.delta.old = a.value;
		}
		else if (cmp > 0)
		{
			change.delta.kind = AL_DELTA_ADDED;
			change.delta.new = b.value;
		}
		else
		{
			change.delta.kind = AL_DELTA_CHANGED;

			if (a.value.kind == AL_CONTAINER && b.value.kind == AL_CONTAINER)
			{
				const char *x = (const char *) a.value.container;
				const char *y = (const char *) b.value.container;
				int			prefix = 0;

				/* what is known of the parents tells of children at one place */
				if (x - (const char *) old == y - (const char *) new)
					prefix = Max(0, same - (int) (x - (const char *) old));

				if (a.value.len == b.value.len)
				{
					prefix = first_difference(x, y, Min(prefix, a.value.len),
											  a.value.len);
					differs = prefix < a.value.len;
				}

				if (differs && depth < MAX_DEPTH &&
					al_jsonwalk_is_object(&a.value) &&
					al_jsonwalk_is_object(&b.value))
				{
					change.delta.kind = AL_DELTA_NESTED;
					change.children = gather_changes(a.value.container,
													 b.value.container,
													 prefix, depth + 1,
													 &change.nchildren);
					differs = change.nchildren > 0;
				}
			}
			else
				differs = !al_jsonbuild_image_eq(&a.value, &b.value);

			if (differs && change.delta.kind == AL_DELTA_CHANGED)
			{
				change.delta.old = a.value;
				change.delta.new = b.value;
			}
		}

		if (differs)
		{
			*tail = palloc(sizeof(Change));
			**tail = change;
			tail = &(*tail)->next;
			(*nchanges)++;
		}

		if (cmp <= 0)
			al_jsonwalk_next(&a);
		if (cmp >= 0)
			al_jsonwalk_next(&b);
	}

	return first;
}

/* parent is NULL for a delta that is the whole result. */
static void
write_leaf(StringInfo buf, AlJsonFrame *parent, const AlDelta *delta)
{
	AlJsonFrame frame;

	switch (delta->kind)
	{
		case AL_DELTA_ADDED:
			al_jsonbuild_array(&frame, buf, 1);
			al_jsonbuild_value(&frame, &delta->new);
			break;

		case AL_DELTA_CHANGED:
			al_jsonbuild_array(&frame, buf, 2);
			al_jsonbuild_value(&frame, &delta->old);
			al_jsonbuild_value(&frame, &delta->new);
			break;

		case AL_DELTA_REMOVED:
			{
				AlValue		zero = {.kind = AL_NUMBER};

				zero.number = int64_to_numeric(0);
				al_jsonbuild_array(&frame, buf, 3);
				al_jsonbuild_value(&frame, &delta->old);
				al_jsonbuild_value(&frame, &zero);
				al_jsonbuild_value(&frame, &zero);
				pfree(zero.number);
				break;
			}

		case AL_DELTA_NESTED:
			elog(ERROR, "nested delta is no leaf");
	}
	al_jsonbuild_close(&frame, parent);
}

static void
write_changes(StringInfo buf, AlJsonFrame *parent, const Change *changes, int nchanges)
{
	AlJsonFrame frame;
	const Change *change;

	check_stack_depth();

	al_jsonbuild_object(&frame, buf, nchanges);
	for (change = changes; change != NULL; change = change->next)
		al_jsonbuild_key(&frame, change->key, change->keylen);
	for (change = changes; change != NULL; change = change->next)
	{
		CHECK_FOR_INTERRUPTS();
		if (change->delta.kind == AL_DELTA_NESTED)
			write_changes(buf, &frame, change->children, change->nchildren);
		else
			write_leaf(buf, &frame, &change->delta);
	}
	al_jsonbuild_close(&frame, parent);
}

/*
 * The delta of two JSON objects, which both are values inside a column (or a
 * column's own): every key means itself.  False where their images are equal.
 */
bool
al_delta_objects(const AlValue *old, const AlValue *new, AlValue *out)
{
	StringInfoData buf;
	Change	   *changes;
	int			nchanges;
	int			same = 0;

	if (!al_jsonwalk_is_object(old) || !al_jsonwalk_is_object(new))
		elog(ERROR, "delta of what is no object");

	if (old->len == new->len)
	{
		same = first_difference((char *) old->container, (char *) new->container,
								0, old->len);
		if (same == old->len)
			return false;
	}

	changes = gather_changes(old->container, new->container, same, 1, &nchanges);
	if (nchanges == 0)
		return false;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	write_changes(&buf, NULL, changes, nchanges);
	al_jsonbuild_from_root(out, al_jsonbuild_finish(&buf));
	return true;
}

PG_FUNCTION_INFO_V1(audit_log_jsonb_delta);

/*
 * audit_log_jsonb_delta(old jsonb, new jsonb) RETURNS jsonb
 *
 * SQL NULL is "no value" as argument, and "no difference" as result.
 */
Datum
audit_log_jsonb_delta(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	AlValue		old;
	AlValue		new;
	AlValue		out;
	AlDelta		leaf;

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		PG_RETURN_NULL();

	if (!PG_ARGISNULL(0))
		al_jsonbuild_from_root(&old, PG_GETARG_JSONB_P(0));
	if (!PG_ARGISNULL(1))
		al_jsonbuild_from_root(&new, PG_GETARG_JSONB_P(1));

	if (PG_ARGISNULL(0))
	{
		leaf.kind = AL_DELTA_ADDED;
		leaf.new = new;
	}
	else if (PG_ARGISNULL(1))
	{
		leaf.kind = AL_DELTA_REMOVED;
		leaf.old = old;
	}
	else if (al_jsonwalk_is_object(&old) && al_jsonwalk_is_object(&new))
	{
		if (!al_delta_objects(&old, &new, &out))
			PG_RETURN_NULL();
		PG_RETURN_JSONB_P(al_jsonbuild_scalar(&out));
	}
	else
	{
		if (al_jsonbuild_image_eq(&old, &new))
			PG_RETURN_NULL();
		leaf.kind = AL_DELTA_CHANGED;
		leaf.old = old;
		leaf.new = new;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	write_leaf(&buf, NULL, &leaf);
	PG_RETURN_JSONB_P(al_jsonbuild_finish(&buf));
}
