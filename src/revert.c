/*
 * revert.c
 *		Taking changes back from a row as it stands: where that is no longer what
 *		they wrote there is a conflict (design.md, section 7), which is noted
 *		with the row, and the former value is the aim all the same.
 *
 * No SPI, no globals.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "audit_log.h"

typedef struct Difference
{
	AlPlanRow  *row;
	const AlPlanStep *step;
	StringInfoData places;		/* that hold something else now */
	StringInfoData dead;		/* and that cannot be led back */
} Difference;

static void
add_place(StringInfo buf, const AlPlace *place)
{
	char	   *text = al_deltaread_place(place);

	/* without the document's own sign: "column"."key" */
	if (strncmp(text, "$.", 2) == 0)
		text += 2;
	appendStringInfo(buf, "%s%s", buf->len > 0 ? ", " : "", text);
}

/*
 * Compares what a delta has written with what there is now; now is NULL where
 * there is nothing.  False where the delta cannot be taken back there: it
 * changes keys of an object, and there is none.
 */
static bool
compare_delta(Difference *difference, const AlValue *now, const AlValue *delta,
			  const AlPlace *place)
{
	AlDelta		what;
	AlJsonWalk	keys;
	AlJsonWalk	there;
	bool		whole = true;
	bool		column = place->parent == NULL;

	check_stack_depth();
	al_deltaread_value(delta, place, &what);
	switch (what.kind)
	{
		case AL_DELTA_ADDED:
		case AL_DELTA_CHANGED:
			if (!al_pairs_same(now, &what.new, column))
				add_place(&difference->places, place);
			return true;
		case AL_DELTA_REMOVED:
			if (now != NULL)
				add_place(&difference->places, place);
			return true;
		case AL_DELTA_NESTED:
			break;
	}

	if (now == NULL || !al_jsonwalk_is_object(now))
	{
		add_place(&difference->dead, place);
		return false;
	}
	al_jsonwalk_begin(&keys, what.new.container);
	al_jsonwalk_begin(&there, now->container);
	al_jsonwalk_next(&there);
	while (al_jsonwalk_next(&keys))
	{
		AlPlace		inner = {place, keys.key, keys.keylen};

		while (there.key != NULL && al_jsonwalk_cmp(&there, &keys) < 0)
			al_jsonwalk_next(&there);
		if (!compare_delta(difference,
						   there.key != NULL && al_jsonwalk_cmp(&there, &keys) == 0 ? &there.value : NULL,
						   &keys.value, &inner))
			whole = false;
	}
	return whole;
}

/* The delta without what cannot be led back from what there is now. */
static Jsonb *
without_dead(const AlValue *now, const JsonbContainer *delta)
{
	AlJsonWalk	keys;
	AlJsonWalk	there;
	AlPairs		pairs = {0, palloc(sizeof(AlJsonWalk) * (JsonContainerSize(delta) + 1))};

	check_stack_depth();
	al_jsonwalk_begin(&keys, delta);
	al_jsonwalk_begin(&there, now->container);
	al_jsonwalk_next(&there);
	while (al_jsonwalk_next(&keys))
	{
		AlJsonWalk	pair = keys;

		if (al_jsonwalk_is_object(&keys.value))
		{
			while (there.key != NULL && al_jsonwalk_cmp(&there, &keys) < 0)
				al_jsonwalk_next(&there);
			if (there.key == NULL || al_jsonwalk_cmp(&there, &keys) != 0 ||
				!al_jsonwalk_is_object(&there.value))
				continue;
			al_jsonbuild_from_root(&pair.value, without_dead(&there.value, keys.value.container));
		}
		al_pairs_add(&pairs, &pair);
	}
	return al_pairs_object(&pairs);
}

static bool
step_knows(const AlPlanStep *step, AttrNumber attnum)
{
	return bms_is_member(attnum, step->columns);
}

/* Is the column one whose value can be compared and written? */
static bool
is_own(const AlPlanTable *table, AttrNumber attnum)
{
	return attnum != InvalidAttrNumber && !bms_is_member(attnum, table->generated);
}

/* An UPDATE taken back from the row as it stands. */
static Jsonb *
take_back_update(Difference *difference, Jsonb *now, Jsonb *changes)
{
	AlPlanTable *table = difference->row->table;
	AlPairs	   *delta = al_pairs_room(changes, NULL);
	AlJsonWalk	keys;
	AlJsonWalk	there;
	bool		whole = true;

	al_jsonwalk_begin(&keys, &changes->root);
	al_jsonwalk_begin(&there, &now->root);
	al_jsonwalk_next(&there);
	while (al_jsonwalk_next(&keys))
	{
		AlPlace		place = {NULL, keys.key, keys.keylen};
		AttrNumber	attnum = al_plan_column(table, keys.key, keys.keylen);
		const AlValue *value;

		while (there.key != NULL && al_jsonwalk_cmp(&there, &keys) < 0)
			al_jsonwalk_next(&there);
		if (attnum != InvalidAttrNumber && !is_own(table, attnum))
			continue;
		value = there.key != NULL && al_jsonwalk_cmp(&there, &keys) == 0 ? &there.value : NULL;
		if (attnum != InvalidAttrNumber && !compare_delta(difference, value, &keys.value, &place))
			whole = false;
		al_pairs_add(delta, &keys);
	}
	changes = al_pairs_object(delta);
	if (!whole)
	{
		AlValue		root;

		al_jsonbuild_from_root(&root, now);
		changes = without_dead(&root, &changes->root);
	}
	return al_pairs_without_nulls(al_patch_apply(now, changes, true));
}

/* Where two rows differ, in columns that were captured with the step. */
static void
compare_rows(Difference *difference, Jsonb *now, Jsonb *then)
{
	AlPlanTable *table = difference->row->table;
	AlJsonWalk	a;
	AlJsonWalk	b;
	int			cmp = 0;

	al_jsonwalk_begin(&a, &now->root);
	al_jsonwalk_begin(&b, &then->root);
	for (;;)
	{
		AlJsonWalk *at;
		AttrNumber	attnum;

		if (cmp <= 0)
			al_jsonwalk_next(&a);
		if (cmp >= 0)
			al_jsonwalk_next(&b);
		if (a.key == NULL && b.key == NULL)
			return;
		cmp = al_jsonwalk_cmp(&a, &b);
		at = cmp <= 0 ? &a : &b;
		attnum = al_plan_column(table, at->key, at->keylen);
		if (!is_own(table, attnum) || !step_knows(difference->step, attnum))
			continue;
		if (!al_pairs_same(cmp <= 0 ? &a.value : NULL, cmp >= 0 ? &b.value : NULL, true))
		{
			AlPlace		place = {NULL, at->key, at->keylen};

			add_place(&difference->places, &place);
		}
	}
}

static char *
since(const AlPlanRow *row)
{
	return row->by != 0 ? psprintf("changed since (by transaction %lld)", (long long) row->by) :
		pstrdup("changed since");
}

static void
report_difference(Difference *difference)
{
	AlPlanRow  *row = difference->row;

	if (difference->places.len > 0 && row->undone)
		al_plan_conflict(row, psprintf("%s: %s", since(row), difference->places.data));
	if (difference->dead.len > 0)
		al_plan_conflict(row, psprintf("%s: %s is no object any more, and is left as it is",
									   since(row), difference->dead.data));
}

/* In scratch memory. */
static void
take_back(AlPlanRow *row)
{
	Jsonb	   *now = row->present ? row->before : NULL;
	bool		kept = false;	/* in the plan's memory already */

	for (AlPlanStep *step = row->steps; step; step = step->earlier)
	{
		Difference	difference = {.row = row,.step = step};

		initStringInfo(&difference.places);
		initStringInfo(&difference.dead);
		if (step->action == AL_DELETE)
		{
			/* not undone: of two rows that a mark's snapshot shows under one key, say */
			if (now != NULL)
				al_plan_conflict(row, row->undone ? psprintf("%s: the row is there again", since(row)) :
								 "key taken by another row: this one was deleted");
			now = al_pairs_without_nulls(step->changes);
			kept = now == step->changes;
			continue;
		}
		if (now == NULL && !row->undone)
		{
			/* gone unseen, but nor was it there before: with a partition, say */
			while (step != NULL && step->action != AL_INSERT)
				step = step->earlier;
			if (step == NULL)
			{
				al_plan_leave_out(row, "the row is not there, and no change in the log says why");
				return;
			}
			continue;
		}
		if (now == NULL)
		{
			al_plan_leave_out(row, psprintf("%s: the row is gone", since(row)));
			return;
		}
		kept = false;
		if (step->action == AL_UPDATE)
			now = take_back_update(&difference, now, step->changes);
		else
		{
			compare_rows(&difference, now, al_pairs_without_nulls(step->changes));
			now = NULL;
		}
		report_difference(&difference);
	}
	row->aim = kept ? now : al_plan_keep(row->table, now);
}

/* Takes the steps back, newest first, and sets the aim. */
void
al_revert_row(AlPlanRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(row->table->scratch);

	if (!row->left_out && !row->known)
		take_back(row);
	MemoryContextSwitchTo(old);
	MemoryContextReset(row->table->scratch);
}
