/*
 * jsonwalk.c
 *		Walking along the children of a jsonb container.
 *
 * The keys of all jsonb objects stand in one order, so two objects are
 * compared or merged by walking along both at once; nothing is looked up.
 *
 * No state outlives a call, and nothing is copied: what a walk gives points
 * into the container.
 */
#include "audit_log.h"

#include "miscadmin.h"

void
al_jsonwalk_begin(AlJsonWalk *walk, const JsonbContainer *container)
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

bool
al_jsonwalk_next(AlJsonWalk *walk)
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
int
al_jsonwalk_cmp(const AlJsonWalk *a, const AlJsonWalk *b)
{
	if (a->key == NULL)
		return 1;
	if (b->key == NULL)
		return -1;
	return al_jsonbuild_key_cmp(a->key, a->keylen, b->key, b->keylen);
}
