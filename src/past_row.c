/*
 * past_row.c
 *		From a row as it is to the row as it was: finds what the walk back has
 *		kept of it, and puts that in its place.
 *
 * What is made to find rows quickly lives as long as the AlPast.
 */
#include "postgres.h"

#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "audit_log.h"

/* ---- the record of a row as it is ---- */

/* the row's image as records without key are known by; under the table's settings */
static Jsonb *
image_of(const AlPast *past, TupleTableSlot *slot)
{
	AlEntry		entry = {0};

	al_row_whole(past->table, slot, &entry);
	return al_past_image(past, entry.changes);
}

/*
 * Most rows have not changed, and their ids need not be written to know it: bits
 * for the hashes of the changed records' keys tell.  For types whose text leads
 * back to the same bytes.
 */
struct AlPastFilter
{
	bool		usable;
	uint32		mask;			/* number of bits, less one */
	uint8	   *bits;
};

static bool
is_plain_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case UUIDOID:
		case TEXTOID:
		case VARCHAROID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return true;
		default:
			return false;
	}
}

static uint32
key_hash(uint32 hash, const AlColumn *column, Datum value)
{
	uint32		own;

	if (column->typbyval)
	{
		unsigned char bytes[sizeof(Datum)];

		/* a Datum's further bytes are not the same wherever it comes from */
		store_att_byval(bytes, value, column->typlen);
		own = hash_bytes(bytes, column->typlen);
	}
	else if (column->typlen > 0)
		own = hash_bytes((const unsigned char *) DatumGetPointer(value), column->typlen);
	else
	{
		struct varlena *text = PG_DETOAST_DATUM_PACKED(value);

		own = hash_bytes((const unsigned char *) VARDATA_ANY(text), VARSIZE_ANY_EXHDR(text));
	}
	return hash_combine(hash, own);
}

static void
make_filter(AlPast *past)
{
	AlTable    *table = past->table;
	TupleDesc	desc = RelationGetDescr(past->rel);
	MemoryContext old = MemoryContextSwitchTo(past->cxt);
	struct AlPastFilter *filter = palloc0(sizeof(struct AlPastFilter));
	HASH_SEQ_STATUS seq;
	AlPastName *named;
	MemoryContext scratch;

	past->filter = filter;
	filter->usable = !table->key_masked;
	for (int i = 0; i < table->nkeys; i++)
		filter->usable &= is_plain_type(TupleDescAttr(desc, table->keys[i]->attnum - 1)->atttypid);
	if (filter->usable)
	{
		filter->mask = 1023;
		while (filter->mask < (1U << 27) && filter->mask / 16 < hash_get_num_entries(past->by_now))
			filter->mask = filter->mask * 2 + 1;
		filter->bits = palloc0(filter->mask / 8 + 1);
		scratch = AllocSetContextCreate(CurrentMemoryContext, "audit_log keys", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(scratch);
		hash_seq_init(&seq, past->by_now);
		while ((named = hash_seq_search(&seq)) != NULL)
		{
			Datum	   *keys = al_translate_keys(table, desc, named->id);
			uint32		hash = 0;

			for (int i = 0; i < table->nkeys; i++)
				hash = key_hash(hash, table->keys[i], keys[i]);
			hash &= filter->mask;
			filter->bits[hash / 8] |= 1 << hash % 8;
			MemoryContextReset(scratch);
		}
	}
	MemoryContextSwitchTo(old);
}

static bool
may_have_changed(AlPast *past, TupleTableSlot *now)
{
	struct AlPastFilter *filter;
	uint32		hash = 0;

	if (past->filter == NULL)
		make_filter(past);
	filter = past->filter;
	if (!filter->usable)
		return true;
	for (int i = 0; i < past->table->nkeys; i++)
	{
		bool		isnull;
		Datum		value = slot_getattr(now, past->table->keys[i]->attnum, &isnull);

		if (isnull)
			return true;
		hash = key_hash(hash, past->table->keys[i], value);
	}
	hash &= filter->mask;
	return (filter->bits[hash / 8] & 1 << hash % 8) != 0;
}

AlPastRecord *
al_past_row_find(AlPast *past, TupleTableSlot *now)
{
	const char *id;
	AlPastName *named;

	if (past->keyed && !may_have_changed(past, now))
		return NULL;
	if (past->keyed)
		id = text_to_cstring(al_row_record_id(past->table, now));
	else
	{
		Jsonb	   *image = image_of(past, now);

		id = JsonbToCString(NULL, &image->root, VARSIZE(image));
	}
	named = hash_search(past->by_now, &id, HASH_FIND, NULL);
	if (named == NULL)
		return NULL;
	if (past->keyed && named->record->id_now == NULL)
	{
		if (!al_past_shows_both(past, id, named->record->change_id))
			al_past_misfit(past, psprintf("Record %s is there, but its last change is that it went.", id));
		return NULL;
	}
	return named->record;
}

/* ---- the row as it was ---- */

/* the value of the row as it is, or of a whole row of the log, as the log writes it */
static bool
base_value(AlPast *past, const AlPastRecord *record, TupleTableSlot *now, AttrNumber attnum,
		   AlValue *out)
{
	if (record->whole != NULL)
	{
		AlJsonWalk	walk;

		al_jsonwalk_begin(&walk, &record->whole->root);
		while (al_jsonwalk_next(&walk))
		{
			const AlPastColumn *column = al_states_column(record->whole_state, walk.key, walk.keylen);

			if (column != NULL && column->attnum == attnum)
			{
				*out = walk.value;
				return true;
			}
		}
		return false;
	}
	for (int i = 0; i < past->table->ncolumns; i++)
		if (past->table->columns[i].attnum == attnum)
		{
			bool		isnull;
			Datum		value = slot_getattr(now, attnum, &isnull);

			al_row_column(&past->table->columns[i], value, isnull, out);
			return !isnull;
		}
	return false;
}

static void
put_value(AlPast *past, TupleTableSlot *then, AttrNumber attnum, const AlValue *value,
		  bool masked, bool pg, Bitmapset **unknown)
{
	bool	   *isnull = &then->tts_isnull[attnum - 1];

	*isnull = true;
	then->tts_values[attnum - 1] = (Datum) 0;
	if (bms_is_member(attnum, past->added))
		return;
	if (masked && value->kind != AL_NULL)
	{
		*unknown = bms_add_member(*unknown, attnum);
		return;
	}
	then->tts_values[attnum - 1] = al_decode_value(past->decoder, attnum - 1, value, pg, isnull);
}

static void
put_image(AlPast *past, TupleTableSlot *then, const AlState *state, Jsonb *image,
		  Bitmapset **unknown)
{
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &image->root);
	while (al_jsonwalk_next(&walk))
	{
		AttrNumber	attnum = 0;
		bool		masked = false;

		if (state != NULL)
		{
			const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);

			if (column == NULL)
				continue;
			attnum = column->attnum;
			masked = column->masked;
		}
		else
			for (int i = 0; i < past->table->ncolumns; i++)
				if (past->table->columns[i].namelen == walk.keylen &&
					memcmp(past->table->columns[i].name, walk.key, walk.keylen) == 0)
				{
					attnum = past->table->columns[i].attnum;
					masked = past->table->columns[i].masked;
				}
		if (attnum != 0)
			put_value(past, then, attnum, &walk.value, masked, true, unknown);
	}
}

static void
put_past_value(AlPast *past, const AlPastRecord *record, TupleTableSlot *now,
			   TupleTableSlot *then, const AlPastValue *past_value, Bitmapset **unknown)
{
	AlValue		value = {.kind = AL_NULL};
	Jsonb	   *json = past_value->value;
	ListCell   *lc;

	if (past_value->known)
	{
		if (json != NULL)
			al_jsonbuild_from_root(&value, json);
	}
	else if (base_value(past, record, now, past_value->attnum, &value))
		json = al_jsonbuild_scalar(&value);
	if (past_value->nested == NIL)
	{
		put_value(past, then, past_value->attnum, &value, past_value->masked, true, unknown);
		return;
	}
	/* of another type now, but its text may be that of the object that it was */
	if (value.kind == AL_STRING)
		json = al_jsontext_try(value.string, value.len);
	if (json == NULL || !JB_ROOT_IS_OBJECT(json))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the log cannot tell what table %s was at %s", past->states->name, past->moment->text),
				 errdetail("Column %s held a JSON object, of which the log has what changed inside; by now it holds something else.",
						   quote_identifier(NameStr(TupleDescAttr(then->tts_tupleDescriptor, past_value->attnum - 1)->attname))),
				 errhint("audit_log.audit_logs shows what was logged.")));
	foreach(lc, past_value->nested)
		json = al_patch_apply(json, lfirst(lc), true);
	al_jsonbuild_from_root(&value, json);
	put_value(past, then, past_value->attnum, &value, false, false, unknown);
}

/* Under AL_FIXED_ALL. */
static void
make_row(AlPast *past, const AlPastRecord *record, TupleTableSlot *now, TupleTableSlot *then,
		 Bitmapset **unknown)
{
	int			natts = then->tts_tupleDescriptor->natts;
	int			added = -1;

	if (record != NULL && (record->whole != NULL || record->image != NULL))
	{
		memset(then->tts_isnull, true, sizeof(bool) * natts);
		memset(then->tts_values, 0, sizeof(Datum) * natts);
		put_image(past, then, record->whole ? record->whole_state : NULL,
				  record->whole ? record->whole : record->image, unknown);
	}
	else
	{
		if (now == NULL || TTS_EMPTY(now))
			al_past_misfit(past, psprintf("Record %s is not there, but its last change left it.",
								  record && record->id_now ? record->id_now : "(none)"));
		slot_getallattrs(now);
		memcpy(then->tts_isnull, now->tts_isnull, sizeof(bool) * natts);
		memcpy(then->tts_values, now->tts_values, sizeof(Datum) * natts);
	}
	for (int i = 0; record != NULL && i < record->nvalues; i++)
		put_past_value(past, record, now, then, &record->values[i], unknown);
	while ((added = bms_next_member(past->added, added)) >= 0)
		then->tts_isnull[added - 1] = true;
}

bool
al_past_row_make(AlPast *past, const AlPastRecord *record, TupleTableSlot *now,
				 TupleTableSlot *then, Bitmapset **unknown)
{
	AlFixed		saved;

	ExecClearTuple(then);
	if (record != NULL && (record->image != NULL ? record->count <= 0 : record->id_then == NULL))
		return false;
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		make_row(past, record, now, then, unknown);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	ExecStoreVirtualTuple(then);
	return true;
}

void
al_past_row_refuse_unknown(const AlPast *past, Bitmapset *unknown)
{
	StringInfoData names;
	int			attnum = -1;

	if (unknown == NULL)
		return;
	initStringInfo(&names);
	while ((attnum = bms_next_member(unknown, attnum)) >= 0)
		appendStringInfo(&names, "%s%s", names.len ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(RelationGetDescr(past->rel), attnum - 1)->attname)));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the log cannot tell what table %s was at %s", past->states->name, past->moment->text),
			 errdetail("Columns are masked in the log: %s.", names.data),
			 errhint("audit_log.audit_logs shows what was logged.")));
}
