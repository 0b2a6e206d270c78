/*
 * past.c
 *		What a table was at a moment, made from what it is by taking back, newest
 *		first, what the log says was changed since.
 *
 * Nothing is made of rows that have not changed.  Of a record that has, the walk
 * back keeps only what was different then: whole rows where a DELETE has them,
 * else the columns that UPDATEs have changed, each with its oldest value.  Where
 * a delta changed the inside of a json value it is kept until the value is at
 * hand, that of the row as it is.  So memory grows with the records changed, not
 * with the changes.
 *
 * A record is known by its id, and goes by another where its key was changed.
 * In a table without key rows are told apart by their images alone, of which
 * so many are missing or too many.
 *
 * Everything lives in a memory context of its own until al_past_end().
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit_log.h"

typedef struct Walk
{
	AlPast	   *past;
	HTAB	   *records;		/* by the id where the walk stands */
} Walk;

void
al_past_misfit(const AlPast *past, const char *detail)
{
	al_current_check_snapshot(past->rel);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the log of table %s does not fit its rows", past->states->name),
			 errdetail_internal("%s", detail),
			 errhint("Something was changed without being captured; SELECT * FROM audit_log.check() may tell why.")));
}

void
al_past_missing(const AlPast *past, const AlPastRecord *record)
{
	/* it had come into a partition that came and went */
	if (past->went && record->id_then == NULL)
		return;
	if (record->image != NULL)
		al_past_misfit(past, psprintf("A row is not there, but its last change left it: %.200s",
									  JsonbToCString(NULL, &record->image->root,
													 VARSIZE(record->image))));
	al_past_misfit(past, psprintf("Record %s is not there, but its last change left it.",
								  record->id_now));
}

/* ---- two rows of one key ---- */

typedef struct Successor
{
	const AlPast *past;
	const char *id;
	int64		change_id;
	bool		found;
} Successor;

static void
find_successor(const AlLogChange *change, void *arg)
{
	Successor  *successor = arg;

	successor->found |= change->id > successor->change_id &&
		(change->action == AL_INSERT || change->old_record_id != NULL) &&
		strcmp(change->record_id, successor->id) == 0 &&
		!al_moment_is_later(successor->past->moment, change->table_id, change->id,
							change->transaction_id, change->command, change->timestamp);
}

/*
 * A snapshot may show two rows of one key: its own transaction's, in the place of
 * one that was removed by a transaction which it does not see.  Of a mark made
 * there the removal came later than the mark, but before the row that is in it.
 */
bool
al_past_shows_both(const AlPast *past, const char *id, int64 change_id)
{
	Successor	successor = {.past = past,.id = id,.change_id = change_id};

	if (past->moment->mark && past->moment->nown > 0)
		al_logread_records(past->states->table_id, list_make1(unconstify(char *, id)), NULL, true,
						   find_successor, &successor);
	return successor.found;
}

/* ---- walking back, with a key ---- */

static AlPastRecord *
new_record(AlPast *past, const char *id_now)
{
	AlPastRecord *record = palloc0(sizeof(AlPastRecord));

	record->id_now = id_now;
	record->id_then = id_now;
	past->records = lappend(past->records, record);
	return record;
}

static AlPastName *
find_name(Walk *walk, const char *id)
{
	bool		found;
	AlPastName *named = hash_search(walk->records, &id, HASH_ENTER, &found);

	if (!found)
	{
		named->id = pstrdup(id);
		named->record = NULL;
	}
	return named;
}

static void
forget_values(AlPastRecord *record)
{
	record->nvalues = 0;
	record->whole = NULL;
	record->whole_state = NULL;
}

static AlPastValue *
find_value(AlPastRecord *record, AttrNumber attnum)
{
	int			low = 0;
	int			high = record->nvalues;

	/* in the order of attnum */
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (record->values[middle].attnum < attnum)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < record->nvalues && record->values[low].attnum == attnum)
		return &record->values[low];

	if (record->nvalues == record->room)
	{
		record->room = record->room ? record->room * 2 : 4;
		record->values = record->values ?
			repalloc(record->values, sizeof(AlPastValue) * record->room) :
			palloc(sizeof(AlPastValue) * record->room);
	}
	memmove(&record->values[low + 1], &record->values[low],
			sizeof(AlPastValue) * (record->nvalues - low));
	record->nvalues++;
	memset(&record->values[low], 0, sizeof(AlPastValue));
	record->values[low].attnum = attnum;
	return &record->values[low];
}

/* Kept for each column of each changed row: in no more memory than it takes. */
static Jsonb *
old_value(const AlValue *value)
{
	Jsonb	   *built;
	Jsonb	   *kept;

	if (value->kind == AL_NULL)
		return NULL;
	built = al_jsonbuild_scalar(value);
	kept = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(built));
	pfree(built);
	return kept;
}

/* The old values of an UPDATE's delta. */
static void
take_back_delta(AlPastRecord *record, const AlState *state, Jsonb *delta)
{
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &delta->root);
	while (al_jsonwalk_next(&walk))
	{
		const AlPastColumn *column = al_states_column(state, walk.key, walk.keylen);
		AlPastValue *value;
		AlDelta		difference;

		if (column == NULL || column->attnum == 0)
			continue;
		al_deltaread_key(&walk, NULL, &difference);
		value = find_value(record, column->attnum);
		if (difference.kind != AL_DELTA_NESTED)
		{
			value->known = true;
			value->nested = NIL;
			value->masked = column->masked;
			value->value = difference.kind == AL_DELTA_ADDED ? NULL : old_value(&difference.old);
		}
		else if (value->known && value->nested == NIL && value->value != NULL &&
				 JB_ROOT_IS_OBJECT(value->value))
			value->value = al_patch_apply(value->value, al_jsonbuild_scalar(&difference.new), true);
		else
			value->nested = lappend(value->nested, al_jsonbuild_scalar(&difference.new));
	}
}

static void
take_back_keyed(Walk *walk, const AlLogChange *change, const AlState *state,
				const char *id, const char *old_id)
{
	AlPast	   *past = walk->past;
	AlPastName *named;
	AlPastRecord *record;

	if (change->action == AL_TRUNCATE || change->action == AL_SNAPSHOT)
		return;
	if (id == NULL || change->changes == NULL)
		al_past_misfit(past, psprintf("Change %lld names no record.", (long long) change->id));

	named = find_name(walk, id);
	record = named->record;
	if (record == NULL)
	{
		record = named->record = new_record(past, change->action == AL_DELETE ? NULL : named->id);
		record->gone_now = change->action == AL_DELETE;
		if (record->gone_now)
			record->id_gone = named->id;
	}
	else if ((record->id_then != NULL) != (change->action != AL_DELETE))
	{
		if (change->action != AL_DELETE || !al_past_shows_both(past, id, change->id))
			al_past_misfit(past, psprintf("By change %lld record %s %s, by the next one it %s.",
										  (long long) change->id, id,
										  record->id_then ? "was deleted" : "was there",
										  record->id_then ? "was there" : "was not"));
		record = named->record = new_record(past, NULL);
	}

	if (record->change_id == 0)
		record->change_id = change->id;
	switch (change->action)
	{
		case AL_INSERT:
			forget_values(record);
			record->id_then = NULL;
			break;
		case AL_DELETE:
			forget_values(record);
			record->id_then = named->id;
			record->whole = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(change->changes));
			record->whole_state = state;
			break;
		default:
			take_back_delta(record, state, change->changes);
			if (old_id != NULL)
			{
				AlPastName *former = find_name(walk, old_id);

				/* what is called so later on has come since, or nobody is */
				if (former->record == NULL)
				{
					AlPastRecord *nobody = new_record(past, NULL);

					nobody->gone_now = true;
					nobody->id_gone = former->id;
					nobody->change_id = change->id;
				}
				else if (former->record->id_then != NULL &&
						 !al_past_shows_both(past, old_id, change->id))
					al_past_misfit(past, psprintf("By change %lld record %s got another key, by the next one it was there.",
										  (long long) change->id, old_id));
				record->id_then = former->id;
				former->record = record;
				/* before that, whoever bore the new key had given it up */
				named = find_name(walk, id);
				named->record = new_record(past, NULL);
			}
			break;
	}
}

/* ---- walking back, without ---- */

/* A value of a column's former type as the log writes it of the type of today. */
static void
renew_value(const AlPast *past, AttrNumber attnum, AlValue *value)
{
	AlFixed		fixed;
	bool		isnull;
	Datum		datum;

	al_fixed_enter(&fixed, AL_FIXED_ALL);
	PG_TRY();
	{
		datum = al_decode_value(past->decoder, attnum - 1, value, true, &isnull);
		for (int i = 0; i < past->table->ncolumns; i++)
			if (past->table->columns[i].attnum == attnum)
				al_row_column(&past->table->columns[i], datum, isnull, value);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&fixed);
	}
	PG_END_TRY();
}

static void
renew_as_caller(const AlPast *past, AttrNumber attnum, AlValue *value)
{
	AlOwn		saved;

	/* types may be the user's own */
	al_own_yield_to_caller(&saved);
	PG_TRY();
	{
		renew_value(past, attnum, value);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/*
 * The object's columns that are there today and were there then, under today's
 * names, NULLs left out: so that all forms of one row agree.
 */
static Jsonb *
project(const AlPast *past, const AlState *state, Jsonb *object, bool reverse, bool delta)
{
	TupleDesc	desc = RelationGetDescr(past->rel);
	AlValue    *values = palloc0(sizeof(AlValue) * Max(past->table->ncolumns, 1));
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	int			n = 0;

	for (int i = 0; i < past->table->ncolumns; i++)
		values[i].kind = AL_NULL;
	al_jsonwalk_begin(&walk, &object->root);
	while (al_jsonwalk_next(&walk))
	{
		AttrNumber	attnum;
		const AlPastColumn *column = NULL;
		AlValue		value = walk.value;

		if (state != NULL)
		{
			column = al_states_column(state, walk.key, walk.keylen);
			attnum = column ? column->attnum : 0;
		}
		else
		{
			attnum = 0;
			for (int i = 0; i < desc->natts && attnum == 0; i++)
				if (strlen(NameStr(TupleDescAttr(desc, i)->attname)) == (size_t) walk.keylen &&
					memcmp(NameStr(TupleDescAttr(desc, i)->attname), walk.key, walk.keylen) == 0)
					attnum = i + 1;
		}
		if (attnum == 0 || bms_is_member(attnum, past->added))
			continue;
		if (delta)
		{
			AlDelta		difference;

			al_deltaread_key(&walk, NULL, &difference);
			if (difference.kind != AL_DELTA_CHANGED)
				al_past_misfit(past, "A change of a table without key does not name the whole row.");
			value = reverse ? difference.old : difference.new;
		}
		if (column != NULL && !column->same_type && !column->masked && value.kind != AL_NULL)
			renew_as_caller(past, attnum, &value);
		for (int i = 0; i < past->table->ncolumns; i++)
			if (past->table->columns[i].attnum == attnum)
				values[i] = value;
	}
	for (int i = 0; i < past->table->ncolumns; i++)
		n += values[i].kind != AL_NULL;
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < past->table->ncolumns; i++)
		if (values[i].kind != AL_NULL)
			al_jsonbuild_key(&frame, past->table->columns[i].name, past->table->columns[i].namelen);
	for (int i = 0; i < past->table->ncolumns; i++)
		if (values[i].kind != AL_NULL)
			al_jsonbuild_value(&frame, &values[i]);
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

Jsonb *
al_past_image(const AlPast *past, Jsonb *object)
{
	return project(past, NULL, object, false, false);
}

static void
count_image(Walk *walk, Jsonb *image, int64 difference, int64 change_id)
{
	char	   *id = JsonbToCString(NULL, &image->root, VARSIZE(image));
	AlPastName *named = find_name(walk, id);

	if (named->record == NULL)
	{
		named->record = new_record(walk->past, NULL);
		named->record->id_then = NULL;
		named->record->image = image;
		named->record->change_id = change_id;
	}
	named->record->count += difference;
}

static void
take_back_keyless(Walk *walk, const AlLogChange *change, const AlState *state)
{
	AlPast	   *past = walk->past;

	if (change->action == AL_TRUNCATE || change->action == AL_SNAPSHOT)
		return;
	if (change->changes == NULL)
		al_past_misfit(past, psprintf("Change %lld has no content.", (long long) change->id));
	switch (change->action)
	{
		case AL_INSERT:
			count_image(walk, project(past, state, change->changes, false, false), -1, change->id);
			break;
		case AL_DELETE:
			count_image(walk, project(past, state, change->changes, false, false), 1, change->id);
			break;
		default:
			count_image(walk, project(past, state, change->changes, false, true), -1, change->id);
			count_image(walk, project(past, state, change->changes, true, true), 1, change->id);
			break;
	}
}

/* ---- walking back ---- */

static void
take_back(const AlLogChange *change, void *arg)
{
	Walk	   *walk = arg;
	AlPast	   *past = walk->past;
	const AlState *state = al_states_at(past->states, change->id);
	MemoryContext old = MemoryContextSwitchTo(past->cxt);

	if (state->era != 0)
		past->other_era = state;
	else if (!past->keyed)
		take_back_keyless(walk, change, state);
	else
		take_back_keyed(walk, change, state,
						al_translate_id(past->table, past->rel, state, change->record_id),
						al_translate_id(past->table, past->rel, state, change->old_record_id));
	MemoryContextSwitchTo(old);
}

static void
index_by_now(AlPast *past)
{
	ListCell   *lc;

	past->by_now = al_texthash_create("audit_log records now", 256, sizeof(AlPastName), past->cxt);
	foreach(lc, past->records)
	{
		AlPastRecord *record = lfirst(lc);
		const char *id = record->image != NULL ?
			JsonbToCString(NULL, &record->image->root, VARSIZE(record->image)) :
			record->id_now ? record->id_now : record->id_gone;
		AlPastName *named;
		bool		found;

		if (id == NULL)
			continue;
		named = hash_search(past->by_now, &id, HASH_ENTER, &found);
		if (!found || record->id_now != NULL)
		{
			if (!found)
				named->id = id;
			named->record = record;
		}
	}
}

static void
add_era_obstacle(AlPast *past)
{
	AlObstacle *obstacle = palloc0(sizeof(AlObstacle));

	obstacle->state = past->other_era;
	obstacle->what = psprintf("Records were told apart by another key then (state %lld of %s).",
							  (long long) past->other_era->id,
							  timestamptz_to_str(past->other_era->timestamp));
	past->obstacles = lappend(past->obstacles, obstacle);
}

AlPast *
al_past_read(Relation root, const AlMoment *moment, List *record_ids, Bitmapset *without)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log past",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	AlPast	   *past = palloc0(sizeof(AlPast));
	Walk		walk = {.past = past};

	past->cxt = cxt;
	past->rel = root;
	past->moment = moment;
	past->states = al_states_read(root);
	past->table = al_current_table(root, past->states);
	past->keyed = past->table->nkeys > 0;
	past->obstacles = al_states_obstacles(past->states, moment, &past->went);
	past->added = bms_add_members(al_translate_added(root, al_states_then(past->states, moment)), without);
	past->decoder = al_decode_prepare(RelationGetDescr(root), cxt);

	walk.records = al_texthash_create("audit_log records", 256, sizeof(AlPastName), cxt);
	MemoryContextSwitchTo(old);
	if (past->states->n > 0)
	{
		const AlState *then = al_states_then(past->states, moment);

		/* under another key, or other types of it, the record had other ids */
		if (record_ids != NIL && al_states_same_ids(past->states) &&
			then != NULL && then->era == 0)
			al_logread_records(past->states->table_id, record_ids, moment, true, take_back, &walk);
		else
			al_logread_table(past->states->table_id, moment, take_back, &walk);
	}
	MemoryContextSwitchTo(cxt);
	if (past->other_era != NULL)
		add_era_obstacle(past);
	index_by_now(past);
	MemoryContextSwitchTo(old);
	return past;
}

void
al_past_end(AlPast *past)
{
	MemoryContextDelete(past->cxt);
}

void
al_past_refuse(const AlPast *past)
{
	al_states_refuse(past->states, past->moment, past->obstacles);
}
