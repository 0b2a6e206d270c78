/*
 * texthash.c
 *		Hash tables whose key is a text: record ids, or the images of rows.
 *
 * The first member of an entry is the pointer to the text, which whoever
 * enters it keeps alive.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"

#include "audit_log.h"

static uint32
hash_text(const void *key, Size size)
{
	const char *text = *(const char *const *) key;

	(void) size;
	return DatumGetUInt32(hash_any((const unsigned char *) text, strlen(text)));
}

static int
match_text(const void *a, const void *b, Size size)
{
	(void) size;
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

HTAB *
al_texthash_create(const char *name, int64 entries, Size entrysize, MemoryContext cxt)
{
	HASHCTL		ctl = {.keysize = sizeof(char *),.entrysize = entrysize,
	.hash = hash_text,.match = match_text,.hcxt = cxt};

	return hash_create(name, entries, &ctl,
					   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}
