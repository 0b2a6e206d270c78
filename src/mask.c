/*
 * mask.c
 *		Values of masked columns: HMAC-SHA-256 (RFC 2104, FIPS 180-4) of the
 *		value's text under the installation's key, in hexadecimal.
 *
 * The key is the one row of audit_log.mask_secret, which no dump carries.  It
 * is read once a backend and again after its relation was invalidated.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

static bytea *mask_key = NULL;	/* in TopMemoryContext */

void
al_mask_forget(Oid relid)
{
	if (mask_key != NULL &&
		(relid == InvalidOid || relid == al_catalog_mask_secret()))
	{
		pfree(mask_key);
		mask_key = NULL;
	}
}

/*
 * The key, NULL where none has been made.  Read by the latest snapshot: the
 * transaction's may be older than the key.
 */
static const bytea *
get_key(void)
{
	Relation	rel;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (mask_key != NULL)
		return mask_key;

	rel = table_open(al_catalog_get()->mask_secret, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = AL_TABLE_BEGINSCAN(rel, snapshot);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		Datum		d = slot_getattr(slot, 1, &isnull);
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		mask_key = DatumGetByteaPCopy(d);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return mask_key;
}

static char *
hmac_hex(const char *data, int len)
{
	const bytea *key = get_key();
	pg_hmac_ctx *ctx;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	char	   *hex = palloc(2 * sizeof(digest) + 1);

	if (key == NULL)
		elog(ERROR, "audit_log has no mask key");
	ctx = pg_hmac_create(PG_SHA256);
	if (ctx == NULL ||
		pg_hmac_init(ctx, (const uint8 *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) < 0 ||
		pg_hmac_update(ctx, (const uint8 *) data, len) < 0 ||
		pg_hmac_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute the HMAC of a masked value: %s",
						ctx ? pg_hmac_error(ctx) : "out of memory")));
	pg_hmac_free(ctx);
	hex_encode((const char *) digest, sizeof(digest), hex);
	hex[2 * sizeof(digest)] = '\0';
	return hex;
}

/* What the log shows in the place of a value with this text. */
void
al_mask_value(const char *text, int len, AlValue *out)
{
	out->kind = AL_STRING;
	out->string = hmac_hex(text, len);
	out->len = 2 * PG_SHA256_DIGEST_LENGTH;
}

/*
 * What tells one key from another without giving it away; NULL where there is
 * none.  table_state keeps it, so that a restored log notices another key.
 */
char *
al_mask_fingerprint(void)
{
	static const char label[] = "audit_log mask key";

	if (get_key() == NULL)
		return NULL;
	return pnstrdup(hmac_hex(label, sizeof(label) - 1), 16);
}
