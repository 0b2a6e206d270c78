/*
 * delta.c
 *		jsondiffpatch deltas between JSON values: making them, applying them
 *		in either direction, and laying them out as rows.
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
 * The keys of all jsonb objects stand in one order, so objects are compared
 * by walking along both at once; nothing is looked up, and no byte of the
 * documents is compared more than twice however deep it lies.
 *
 * No state outlives a call.  Work and results are in CurrentMemoryContext.
 */
#include "audit_log.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

/* How much of a place in a document error messages show. */
#define PLACE_KEYS		8
#define PLACE_KEY_LEN	64

/* The children of a container, in order; of an object key and value. */
typedef struct Walk
{
	const JsonbContainer *container;
	char	   *data;			/* of the container's children */
	int			npairs;			/* pairs, or elements of an array */
	int			next;
	uint32		keyoff;			/* where the next child begins in data */
	uint32		valoff;

	const char *key;			/* the current pair */
	int			keylen;
	AlValue		value;
} Walk;

/* What a delta says of one place. */
typedef enum DeltaKind
{
	DELTA_ADDED,
	DELTA_CHANGED,
	DELTA_REMOVED,
	DELTA_NESTED
} DeltaKind;

typedef struct Delta
{
	DeltaKind	kind;
	AlValue		old;			/* of DELTA_CHANGED and DELTA_REMOVED */
	AlValue		new;			/* of DELTA_CHANGED and DELTA_ADDED */
} Delta;

/* One differing key, while the delta of two objects is gathered. */
typedef struct Change
{
	struct Change *next;
	const char *key;
	int			keylen;
	Delta		delta;
	struct Change *children;	/* of DELTA_NESTED */
	int			nchildren;
} Change;

/* The way down to where we are, innermost first; lives on the stack. */
typedef struct Place
{
	const struct Place *parent;
	const char *key;
	int			keylen;
} Place;

/*
 * Walking
 */

static void
walk_begin(Walk *walk, const JsonbContainer *container)
{
	int			n = JsonContainerSize(container);
	bool		is_object = JsonContainerIsObject(container);

	walk->container = container;
	walk->npairs = n;
	walk->next = 0;
	walk->data = (char *) &container->children[is_object ? 2 * n : n];
	walk->keyoff = 0;
	walk->valoff = is_object && n > 0 ? getJsonbOffset(container, n) : 0;
	walk->key = NULL;
	walk->keylen = 0;
}

static inline bool
walk_next(Walk *walk)
{
	int			i = walk->next;
	uint32		begin;
	JEntry		entry;
	AlValue    *value = &walk->value;

	CHECK_FOR_INTERRUPTS();

	/* key becomes NULL at the end, which is how merging sees it */
	walk->key = NULL;
	if (i >= walk->npairs)
		return false;
	walk->next++;

	if (JsonContainerIsObject(walk->container))
	{
		begin = walk->keyoff;
		JBE_ADVANCE_OFFSET(walk->keyoff, walk->container->children[i]);
		walk->key = walk->data + begin;
		walk->keylen = walk->keyoff - begin;
		i += walk->npairs;
	}

	entry = walk->container->children[i];
	begin = walk->valoff;
	JBE_ADVANCE_OFFSET(walk->valoff, entry);

	switch (entry & JENTRY_TYPEMASK)
	{
		case JENTRY_ISNULL:
			value->kind = AL_NULL;
			break;
		case JENTRY_ISBOOL_FALSE:
		case JENTRY_ISBOOL_TRUE:
			value->kind = AL_BOOL;
			value->boolean = JBE_ISBOOL_TRUE(entry);
			break;
		case JENTRY_ISNUMERIC:
			value->kind = AL_NUMBER;
			value->number = (Numeric) (walk->data + INTALIGN(begin));
			break;
		case JENTRY_ISSTRING:
			value->kind = AL_STRING;
			value->string = walk->data + begin;
			value->len = walk->valoff - begin;
			break;
		case JENTRY_ISCONTAINER:
			value->kind = AL_CONTAINER;
			value->container = (JsonbContainer *) (walk->data + INTALIGN(begin));
			value->len = walk->valoff - INTALIGN(begin);
			break;
		default:
			elog(ERROR, "invalid jsonb entry type: %08x", entry & JENTRY_TYPEMASK);
	}
	return true;
}

/*
 * Which of two walks has the smaller current key: below zero the first, above
 * zero the second, zero both the same.  A walk at its end has none; not to be
 * asked when both are.
 */
static inline int
walk_cmp(const Walk *a, const Walk *b)
{
	if (a->key == NULL)
		return 1;
	if (b->key == NULL)
		return -1;
	return al_jsonbuild_key_cmp(a->key, a->keylen, b->key, b->keylen);
}

static inline bool
is_object(const AlValue *value)
{
	return value->kind == AL_CONTAINER && JsonContainerIsObject(value->container);
}

/* An object with the only key $pg, which as a column's value is a text. */
static bool
is_pg_text(const AlValue *value)
{
	Walk		walk;

	if (!is_object(value) || JsonContainerSize(value->container) != 1)
		return false;
	walk_begin(&walk, value->container);
	walk_next(&walk);
	return walk.keylen == 3 && memcmp(walk.key, "$pg", 3) == 0;
}

/*
 * Making deltas
 */

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
 *
 * `row` is set for the outermost level of two rows: there a column that is
 * $pg on either side is replaced whole, and one that is absent is NULL.
 */
static Change *
gather_changes(const JsonbContainer *old, const JsonbContainer *new, int same,
			   bool row, int *nchanges)
{
	Walk		a;
	Walk		b;
	Change	   *first = NULL;
	Change	  **tail = &first;

	check_stack_depth();

	*nchanges = 0;
	walk_begin(&a, old);
	walk_begin(&b, new);
	walk_next(&a);
	walk_next(&b);

	while (a.key != NULL || b.key != NULL)
	{
		int			cmp = walk_cmp(&a, &b);
		const Walk *at = cmp <= 0 ? &a : &b;
		bool		differs = true;
		Change		change;

		change.next = NULL;
		change.key = at->key;
		change.keylen = at->keylen;
		change.children = NULL;
		change.nchildren = 0;

		if (cmp != 0 && row)
		{
			change.delta.kind = DELTA_CHANGED;
			memset(cmp < 0 ? &change.delta.new : &change.delta.old, 0, sizeof(AlValue));
			*(cmp < 0 ? &change.delta.old : &change.delta.new) = at->value;
			differs = at->value.kind != AL_NULL;
		}
		else if (cmp < 0)
		{
			change.delta.kind = DELTA_REMOVED;
			change.delta.old = a.value;
		}
		else if (cmp > 0)
		{
			change.delta.kind = DELTA_ADDED;
			change.delta.new = b.value;
		}
		else
		{
			change.delta.kind = DELTA_CHANGED;

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

				if (differs && is_object(&a.value) && is_object(&b.value) &&
					!(row && (is_pg_text(&a.value) || is_pg_text(&b.value))))
				{
					change.delta.kind = DELTA_NESTED;
					change.children = gather_changes(a.value.container,
													 b.value.container,
													 prefix, false,
													 &change.nchildren);
					differs = change.nchildren > 0;
				}
			}
			else
				differs = !al_jsonbuild_image_eq(&a.value, &b.value);

			if (differs && change.delta.kind == DELTA_CHANGED)
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
			walk_next(&a);
		if (cmp >= 0)
			walk_next(&b);
	}

	return first;
}

/* parent is NULL for a delta that is the whole result. */
static void
write_leaf(StringInfo buf, AlJsonFrame *parent, const Delta *delta)
{
	AlJsonFrame frame;

	switch (delta->kind)
	{
		case DELTA_ADDED:
			al_jsonbuild_array(&frame, buf, 1);
			al_jsonbuild_value(&frame, &delta->new);
			break;

		case DELTA_CHANGED:
			al_jsonbuild_array(&frame, buf, 2);
			al_jsonbuild_value(&frame, &delta->old);
			al_jsonbuild_value(&frame, &delta->new);
			break;

		case DELTA_REMOVED:
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

		case DELTA_NESTED:
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
		if (change->delta.kind == DELTA_NESTED)
			write_changes(buf, &frame, change->children, change->nchildren);
		else
			write_leaf(buf, &frame, &change->delta);
	}
	al_jsonbuild_close(&frame, parent);
}

static bool
make_delta(const AlValue *old, const AlValue *new, bool row, AlValue *out)
{
	StringInfoData buf;
	Change	   *changes;
	int			nchanges;
	int			same = 0;

	if (!is_object(old) || !is_object(new))
		elog(ERROR, "delta of what is no object");

	if (old->len == new->len)
	{
		same = first_difference((char *) old->container, (char *) new->container,
								0, old->len);
		if (same == old->len)
			return false;
	}

	changes = gather_changes(old->container, new->container, same, row, &nchanges);
	if (nchanges == 0)
		return false;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	write_changes(&buf, NULL, changes, nchanges);
	al_jsonbuild_from_root(out, al_jsonbuild_finish(&buf));
	return true;
}

/*
 * The delta of two JSON objects, which both are values inside a column (or a
 * column's own): every key means itself.
 */
bool
al_delta_objects(const AlValue *old, const AlValue *new, AlValue *out)
{
	return make_delta(old, new, false, out);
}

/*
 * The delta of two rows as column `changes` holds it.  A column that one side
 * lacks is NULL, be it left out or a JSON null.
 */
bool
al_delta_rows(const AlValue *old, const AlValue *new, AlValue *out)
{
	return make_delta(old, new, true, out);
}

/*
 * Reading deltas
 */

/* A place as error messages show it: $."column"."key". */
static char *
place_text(const Place *place)
{
	const Place *keys[PLACE_KEYS];
	int			nkeys = 0;
	StringInfoData buf;

	initStringInfo(&buf);
	for (; place != NULL && nkeys < PLACE_KEYS; place = place->parent)
		keys[nkeys++] = place;
	appendStringInfoString(&buf, place != NULL ? "(...)" : "$");

	while (nkeys > 0)
	{
		const Place *at = keys[--nkeys];
		int			len = pg_mbcliplen(at->key, at->keylen, PLACE_KEY_LEN);

		appendStringInfo(&buf, ".\"%.*s%s\"", len, at->key,
						 len < at->keylen ? "..." : "");
	}
	return buf.data;
}

static void
report_malformed(const Place *place)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("malformed delta"),
			 errdetail("The value at %s is neither [new], [old, new], [old, 0, 0] nor an object of such.",
					   place_text(place)),
			 errhint("A delta is what jsonb_delta() or column \"changes\" of an UPDATE gives.")));
}

static void
report_unsupported(const Place *place, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s in a delta is not supported", what),
			 errdetail("It stands at %s.", place_text(place)),
			 errhint("A supported delta replaces arrays and texts whole: [old, new].")));
}

/* place_text() for the child that a walk stands at. */
#define CHILD_PLACE(child, up, walk) \
	((child).parent = (up), (child).key = (walk).key, (child).keylen = (walk).keylen)

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
static void
read_delta(const AlValue *value, const Place *place, Delta *delta)
{
	Walk		walk;
	AlValue		elems[3];
	int			n = 0;

	if (is_object(value))
	{
		delta->kind = DELTA_NESTED;
		delta->new = *value;
		return;
	}

	if (value->kind != AL_CONTAINER ||
		JsonContainerSize(value->container) < 1 ||
		JsonContainerSize(value->container) > 3)
		report_malformed(place);

	walk_begin(&walk, value->container);
	while (walk_next(&walk))
		elems[n++] = walk.value;

	switch (n)
	{
		case 1:
			delta->kind = DELTA_ADDED;
			delta->new = elems[0];
			break;
		case 2:
			delta->kind = DELTA_CHANGED;
			delta->old = elems[0];
			delta->new = elems[1];
			break;
		default:
			if (number_is(&elems[1], 0) && number_is(&elems[2], 0))
			{
				delta->kind = DELTA_REMOVED;
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
static void
read_delta_at(const Walk *walk, const Place *parent, Delta *delta)
{
	Place		place;

	CHILD_PLACE(place, parent, *walk);

	if (walk->keylen == 2 && memcmp(walk->key, "_t", 2) == 0 &&
		walk->value.kind == AL_STRING)
		report_unsupported(parent, "the difference of two arrays");
	read_delta(&walk->value, &place, delta);
}

static void
reverse_delta(Delta *delta)
{
	AlValue		swap;

	switch (delta->kind)
	{
		case DELTA_ADDED:
			delta->kind = DELTA_REMOVED;
			delta->old = delta->new;
			break;
		case DELTA_REMOVED:
			delta->kind = DELTA_ADDED;
			delta->new = delta->old;
			break;
		case DELTA_CHANGED:
			swap = delta->old;
			delta->old = delta->new;
			delta->new = swap;
			break;
		case DELTA_NESTED:
			break;
	}
}

/*
 * Applying deltas
 */

/* Walks along an object and the delta for it, giving the pairs of the result. */
typedef struct PatchWalk
{
	Walk		document;
	Walk		delta;
	const Place *place;
	bool		reverse;
	int			cmp;			/* of the pair that was given last */

	const char *key;
	int			keylen;
	const AlValue *value;		/* the pair's value, or what the nested delta
								 * is for */
	const AlValue *nested;		/* the nested delta, or NULL */
	Delta		leaf;
} PatchWalk;

static void
patch_walk_begin(PatchWalk *walk, const JsonbContainer *document,
				 const JsonbContainer *delta, const Place *place, bool reverse)
{
	walk_begin(&walk->document, document);
	walk_begin(&walk->delta, delta);
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
			walk_next(&walk->document);
		if (walk->cmp >= 0)
			walk_next(&walk->delta);
		if (walk->document.key == NULL && walk->delta.key == NULL)
			return false;

		cmp = walk->cmp = walk_cmp(&walk->document, &walk->delta);
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
		read_delta_at(&walk->delta, walk->place, &walk->leaf);
		if (walk->reverse)
			reverse_delta(&walk->leaf);

		switch (walk->leaf.kind)
		{
			case DELTA_ADDED:
			case DELTA_CHANGED:
				walk->value = &walk->leaf.new;
				return true;

			case DELTA_REMOVED:
				break;			/* no pair of the result */

			case DELTA_NESTED:
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
			 const AlValue *delta, const Place *place, bool reverse)
{
	PatchWalk	walk;
	AlJsonFrame frame;
	int			npairs = 0;

	check_stack_depth();

	if (document == NULL || !is_object(document))
	{
		Walk		keys;
		Delta		ignored;

		/* where the delta itself is at fault, say so rather */
		walk_begin(&keys, delta->container);
		while (walk_next(&keys))
			read_delta_at(&keys, place, &ignored);

		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delta does not fit the document"),
				 errdetail("The delta changes keys of an object at %s, where the document has %s.",
						   place_text(place),
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
			Place		child;

			CHILD_PLACE(child, place, walk);
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
al_delta_patch(Jsonb *document, Jsonb *delta, bool reverse)
{
	StringInfoData buf;
	AlValue		value;
	AlValue		delta_value;
	Delta		what;

	al_jsonbuild_from_root(&delta_value, delta);
	read_delta(&delta_value, NULL, &what);
	if (reverse)
		reverse_delta(&what);

	switch (what.kind)
	{
		case DELTA_ADDED:
		case DELTA_CHANGED:
			return al_jsonbuild_scalar(&what.new);
		case DELTA_REMOVED:
			return NULL;
		case DELTA_NESTED:
			break;
	}

	if (document != NULL)
		al_jsonbuild_from_root(&value, document);
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	patch_object(&buf, NULL, document != NULL ? &value : NULL, &what.new, NULL, reverse);
	return al_jsonbuild_finish(&buf);
}

/*
 * SQL functions
 */

PG_FUNCTION_INFO_V1(audit_log_jsonb_delta);
PG_FUNCTION_INFO_V1(audit_log_row_delta);
PG_FUNCTION_INFO_V1(audit_log_jsonb_patch);
PG_FUNCTION_INFO_V1(audit_log_jsonb_unpatch);
PG_FUNCTION_INFO_V1(audit_log_change_columns);

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
	Delta		leaf;

	if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
		PG_RETURN_NULL();

	if (!PG_ARGISNULL(0))
		al_jsonbuild_from_root(&old, PG_GETARG_JSONB_P(0));
	if (!PG_ARGISNULL(1))
		al_jsonbuild_from_root(&new, PG_GETARG_JSONB_P(1));

	if (PG_ARGISNULL(0))
	{
		leaf.kind = DELTA_ADDED;
		leaf.new = new;
	}
	else if (PG_ARGISNULL(1))
	{
		leaf.kind = DELTA_REMOVED;
		leaf.old = old;
	}
	else if (is_object(&old) && is_object(&new))
	{
		if (!al_delta_objects(&old, &new, &out))
			PG_RETURN_NULL();
		PG_RETURN_JSONB_P(al_jsonbuild_scalar(&out));
	}
	else
	{
		if (al_jsonbuild_image_eq(&old, &new))
			PG_RETURN_NULL();
		leaf.kind = DELTA_CHANGED;
		leaf.old = old;
		leaf.new = new;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	write_leaf(&buf, NULL, &leaf);
	PG_RETURN_JSONB_P(al_jsonbuild_finish(&buf));
}

/*
 * audit_log_row_delta(old jsonb, new jsonb) RETURNS jsonb
 *
 * The delta of two rows as `changes` of an UPDATE holds it; SQL NULL where
 * they are the same.  Strict: a row that is not there has no delta.
 */
Datum
audit_log_row_delta(PG_FUNCTION_ARGS)
{
	AlValue		old;
	AlValue		new;
	AlValue		out;

	al_jsonbuild_from_root(&old, PG_GETARG_JSONB_P(0));
	al_jsonbuild_from_root(&new, PG_GETARG_JSONB_P(1));

	if (!is_object(&old) || !is_object(&new))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a row must be a JSON object")));

	if (!al_delta_rows(&old, &new, &out))
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(al_jsonbuild_scalar(&out));
}

static Datum
patch(FunctionCallInfo fcinfo, bool reverse)
{
	Jsonb	   *document = PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0);
	Jsonb	   *result = document;

	if (!PG_ARGISNULL(1))
		result = al_delta_patch(document, PG_GETARG_JSONB_P(1), reverse);
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

/* Where the rows of audit_log_change_columns go. */
typedef struct ColumnRows
{
	ReturnSetInfo *rsinfo;
	MemoryContext row_context;	/* reset after each row */
} ColumnRows;

/*
 * Puts one row.  old and new are NULL where there was or is no value.  column
 * is the first key of a place, the others are the path.
 */
static void
put_column_row(ColumnRows *rows, const Place *place, const AlValue *old,
			   const AlValue *new)
{
	MemoryContext caller = MemoryContextSwitchTo(rows->row_context);
	Datum		values[4];
	bool		nulls[4] = {false};
	const Place *at;
	Datum	   *path;
	int			depth = 0;

	for (at = place; at->parent != NULL; at = at->parent)
		depth++;

	/* a column's own null is SQL NULL */
	if (depth == 0)
	{
		if (old != NULL && old->kind == AL_NULL)
			old = NULL;
		if (new != NULL && new->kind == AL_NULL)
			new = NULL;
	}

	path = palloc(sizeof(Datum) * Max(depth, 1));
	for (int i = depth; i > 0; i--, place = place->parent)
		path[i - 1] = PointerGetDatum(cstring_to_text_with_len(place->key, place->keylen));

	values[0] = PointerGetDatum(cstring_to_text_with_len(place->key, place->keylen));
	values[1] = PointerGetDatum(depth == 0 ? construct_empty_array(TEXTOID) :
								construct_array(path, depth, TEXTOID, -1, false,
												TYPALIGN_INT));
	nulls[2] = old == NULL;
	values[2] = nulls[2] ? (Datum) 0 : JsonbPGetDatum(al_jsonbuild_scalar(old));
	nulls[3] = new == NULL;
	values[3] = nulls[3] ? (Datum) 0 : JsonbPGetDatum(al_jsonbuild_scalar(new));

	tuplestore_putvalues(rows->rsinfo->setResult, rows->rsinfo->setDesc, values, nulls);

	MemoryContextSwitchTo(caller);
	MemoryContextReset(rows->row_context);
}

/* One row a leaf of a nested delta. */
static void
put_delta_rows(ColumnRows *rows, const JsonbContainer *nested, const Place *parent)
{
	Walk		walk;

	check_stack_depth();

	walk_begin(&walk, nested);
	while (walk_next(&walk))
	{
		Place		place;
		Delta		delta;

		CHILD_PLACE(place, parent, walk);
		read_delta_at(&walk, parent, &delta);

		switch (delta.kind)
		{
			case DELTA_NESTED:
				put_delta_rows(rows, delta.new.container, &place);
				break;
			case DELTA_ADDED:
				put_column_row(rows, &place, NULL, &delta.new);
				break;
			case DELTA_REMOVED:
				put_column_row(rows, &place, &delta.old, NULL);
				break;
			case DELTA_CHANGED:
				/* of a table without key the unchanged columns are there too */
				if (!al_jsonbuild_image_eq(&delta.old, &delta.new))
					put_column_row(rows, &place, &delta.old, &delta.new);
				break;
		}
	}
}

/*
 * audit_log_change_columns(changes jsonb, action text,
 *		OUT column_name text, OUT path text[], OUT old_value jsonb,
 *		OUT new_value jsonb) RETURNS SETOF record
 *
 * What view column_changes shows of one change.
 */
Datum
audit_log_change_columns(PG_FUNCTION_ARGS)
{
	ColumnRows	rows;
	AlValue		changes;
	char	   *action;
	Walk		walk;

	InitMaterializedSRF(fcinfo, 0);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		return (Datum) 0;
	action = text_to_cstring(PG_GETARG_TEXT_PP(1));
	if (strcmp(action, "TRUNCATE") == 0)
		return (Datum) 0;

	if (strcmp(action, "INSERT") != 0 && strcmp(action, "SNAPSHOT") != 0 &&
		strcmp(action, "UPDATE") != 0 && strcmp(action, "DELETE") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized action: \"%s\"", action),
				 errhint("Actions are INSERT, UPDATE, DELETE, TRUNCATE and SNAPSHOT.")));

	al_jsonbuild_from_root(&changes, PG_GETARG_JSONB_P(0));
	if (!is_object(&changes))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("changes of a row must be a JSON object")));

	rows.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	rows.row_context = AllocSetContextCreate(CurrentMemoryContext,
											 "audit_log column changes",
											 ALLOCSET_DEFAULT_SIZES);

	if (strcmp(action, "UPDATE") == 0)
		put_delta_rows(&rows, changes.container, NULL);
	else
	{
		bool		is_delete = strcmp(action, "DELETE") == 0;

		walk_begin(&walk, changes.container);
		while (walk_next(&walk))
		{
			Place		place;

			CHILD_PLACE(place, NULL, walk);
			put_column_row(&rows, &place,
						   is_delete ? &walk.value : NULL,
						   is_delete ? NULL : &walk.value);
		}
	}

	MemoryContextDelete(rows.row_context);
	return (Datum) 0;
}
