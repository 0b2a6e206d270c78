/*
 * pairs.c
 *		JSON objects put together from the pairs of others.
 *
 * Pairs come in jsonb's key order and point into the objects they are of; no
 * state outlives a call.
 */
#include "audit_log.h"

void
al_pairs_add(AlPairs *pairs, const AlJsonWalk *walk)
{
	pairs->pairs[pairs->n++] = *walk;
}

Jsonb *
al_pairs_object(const AlPairs *pairs)
{
	StringInfoData buf;
	AlJsonFrame frame;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, pairs->n);
	for (int i = 0; i < pairs->n; i++)
		al_jsonbuild_key(&frame, pairs->pairs[i].key, pairs->pairs[i].keylen);
	for (int i = 0; i < pairs->n; i++)
		al_jsonbuild_value(&frame, &pairs->pairs[i].value);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

AlPairs *
al_pairs_room(Jsonb *a, Jsonb *b)
{
	AlPairs	   *pairs = palloc(sizeof(AlPairs));

	pairs->n = 0;
	pairs->pairs = palloc(sizeof(AlJsonWalk) *
						  ((a ? JB_ROOT_COUNT(a) : 0) + (b ? JB_ROOT_COUNT(b) : 0) + 1));
	return pairs;
}

Jsonb *
al_pairs_empty(void)
{
	return al_pairs_object(al_pairs_room(NULL, NULL));
}

/* The object without its members that are null: so INSERT and DELETE have it. */
Jsonb *
al_pairs_without_nulls(Jsonb *object)
{
	AlPairs	   *pairs = al_pairs_room(object, NULL);
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &object->root);
	while (al_jsonwalk_next(&walk))
		if (walk.value.kind != AL_NULL)
			al_pairs_add(pairs, &walk);
	if (pairs->n == (int) JB_ROOT_COUNT(object))
		return object;
	return al_pairs_object(pairs);
}

/* Are two values the same, NULL being none?  null_is_none: a JSON null is none, too. */
bool
al_pairs_same(const AlValue *now, const AlValue *then, bool null_is_none)
{
	AlValue		null = {.kind = AL_NULL};

	if (now == NULL && !null_is_none)
		return then == NULL;
	if (now == NULL)
		now = &null;
	if (then == NULL)
		then = &null;
	return al_jsonbuild_image_eq(now, then);
}
