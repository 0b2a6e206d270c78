/*
 * history.c
 *		audit_log.history(): every version of one record.
 *
 * Which changes are the record's is found forward: a key names one record until
 * that record gets another key.  What the row was after each change is found
 * backward from the row as it is, and forward from where the log has it as a
 * whole; across what was not captured it is not known, and NULL.  All of it in
 * the log's own form, under today's names.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

typedef struct Version
{
	AlLogChange change;
	const AlState *state;
	int			life;
	Jsonb	   *delta;			/* changes under today's names */
	bool		before_known;
	bool		after_known;
	Jsonb	   *before;			/* NULL: no row */
	Jsonb	   *after;
} Version;

/* who bears a key, or bore it last */
typedef struct Bearer
{
	const char *id;				/* hash key: pointer to the text */
	int			life;
	bool		there;
	bool		moved;			/* has another key since */
} Bearer;

typedef struct History
{
	Relation	rel;
	AlStates   *states;
	AlTable    *table;
	int			n;
	int			room;
	Version    *versions;		/* of all lives, oldest first */
	HTAB	   *bearers;		/* of Bearer */
	int			lives;
	MemoryContext cxt;
	ReturnSetInfo *rsinfo;
} History;

/* ---- whose changes ---- */

static Bearer *
find_bearer(History *history, const char *id)
{
	bool		found;
	Bearer	   *bearer = hash_search(history->bearers, &id, HASH_ENTER, &found);

	if (found)
		return bearer;
	bearer->id = pstrdup(id);
	bearer->moved = true;		/* nobody yet */
	bearer->there = false;
	bearer->life = -1;
	return bearer;
}

static void
give_life(History *history, Bearer *bearer)
{
	if (bearer->moved)
	{
		bearer->life = history->lives++;
		bearer->moved = false;
	}
}

/* Called for each change, oldest first. */
static void
add_change(const AlLogChange *change, void *arg)
{
	History    *history = arg;
	MemoryContext old = MemoryContextSwitchTo(history->cxt);
	Version    *version;
	Bearer	   *bearer;
	const AlState *state = al_states_at(history->states, change->id);
	const char *id = al_translate_id(history->table, history->rel, state, change->record_id);
	const char *old_id = al_translate_id(history->table, history->rel, state, change->old_record_id);

	if (change->record_id == NULL || change->changes == NULL)
	{
		MemoryContextSwitchTo(old);
		return;
	}
	if (history->n == history->room)
	{
		history->room = history->room ? history->room * 2 : 16;
		history->versions = history->versions ?
			repalloc_huge(history->versions, sizeof(Version) * history->room) :
			palloc(sizeof(Version) * history->room);
	}
	version = &history->versions[history->n++];
	memset(version, 0, sizeof(Version));
	version->change = *change;
	version->change.changes = NULL;
	version->state = state;
	version->delta = al_translate_changes(version->state, history->rel, change->changes);

	bearer = find_bearer(history, old_id ? old_id : id);
	give_life(history, bearer);
	version->life = bearer->life;
	bearer->there = change->action != AL_DELETE;
	if (old_id != NULL && strcmp(old_id, id) != 0)
	{
		Bearer	   *now = find_bearer(history, id);

		bearer->there = false;
		bearer->moved = true;
		now->life = bearer->life;
		now->there = true;
		now->moved = false;
	}
	MemoryContextSwitchTo(old);
}

/* ---- what the row was ---- */

/* The row without columns that were not there, or not captured, under a state. */
static Jsonb *
as_under(History *history, const AlState *state, Jsonb *object)
{
	TupleDesc	desc = RelationGetDescr(history->rel);
	Bitmapset  *columns = bms_add_members(al_translate_added(history->rel, state),
										  al_states_left_out(state));
	int			attnum = -1;

	if (object == NULL)
		return NULL;

	while ((attnum = bms_next_member(columns, attnum)) >= 0)
	{
		Datum		name = CStringGetTextDatum(NameStr(TupleDescAttr(desc, attnum - 1)->attname));

		object = DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(object), name));
	}
	return object;
}

/* A whole row of the log with a null for each column that it left out. */
static Jsonb *
complete_object(History *history, const Version *version)
{
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	const AlState *state = version->state;
	TupleDesc	desc = RelationGetDescr(history->rel);
	Bitmapset  *left_out = al_states_left_out(state);
	char	  **names = palloc(sizeof(char *) * Max(state->ncolumns, 1));
	int			n = 0;
	Jsonb	   *nulls;

	for (int i = 0; i < state->ncolumns; i++)
	{
		AttrNumber	attnum = state->columns[i].attnum;

		if (attnum != 0 && !bms_is_member(attnum, left_out) &&
			!AL_ATT_IS_VIRTUAL(TupleDescAttr(desc, attnum - 1)))
			names[n++] = NameStr(TupleDescAttr(desc, attnum - 1)->attname);
	}
	/* jsonb's order of keys */
	for (int i = 1; i < n; i++)
		for (int j = i; j > 0 && al_jsonbuild_key_cmp(names[j], strlen(names[j]), names[j - 1],
													  strlen(names[j - 1])) < 0; j--)
		{
			char	   *swap = names[j];

			names[j] = names[j - 1];
			names[j - 1] = swap;
		}
	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < n; i++)
		al_jsonbuild_key(&frame, names[i], strlen(names[i]));
	al_jsonwalk_begin(&walk, &version->delta->root);
	(void) al_jsonwalk_next(&walk);
	for (int i = 0; i < n; i++)
	{
		AlValue		value = {.kind = AL_NULL};

		while (walk.key != NULL &&
			   al_jsonbuild_key_cmp(walk.key, walk.keylen, names[i], strlen(names[i])) < 0)
			(void) al_jsonwalk_next(&walk);
		if (walk.key != NULL &&
			al_jsonbuild_key_cmp(walk.key, walk.keylen, names[i], strlen(names[i])) == 0)
			value = walk.value;
		al_jsonbuild_value(&frame, &value);
	}
	al_jsonbuild_close(&frame, NULL);
	nulls = al_jsonbuild_finish(&buf);
	return nulls;
}

static void
set_whole_rows(History *history, Version *version)
{
	switch (version->change.action)
	{
		case AL_INSERT:
		case AL_SNAPSHOT:
			version->after = complete_object(history, version);
			version->after_known = true;
			version->before_known = version->change.action == AL_INSERT;
			break;
		case AL_DELETE:
			version->before = complete_object(history, version);
			version->before_known = true;
			version->after_known = true;
			break;
		default:
			break;
	}
}

/* The object that a row (NULL: not known) has in the column where the walk stands. */
static bool
find_object(Jsonb *row, const AlJsonWalk *walk, AlValue *value)
{
	JsonbValue	item;

	if (row == NULL ||
		getKeyJsonValueFromContainer(&row->root, walk->key, walk->keylen, &item) == NULL)
		return false;
	al_jsonbuild_from_jsonb(value, &item);
	return al_jsonwalk_is_object(value);
}

/*
 * Does the delta change the inside of values that are objects in this row?  Not
 * of a column that has got another type since: then the row is not known.
 */
static bool
fits(Jsonb *object, Jsonb *delta)
{
	AlJsonWalk	walk;

	al_jsonwalk_begin(&walk, &delta->root);
	while (al_jsonwalk_next(&walk))
	{
		AlDelta		difference;
		AlValue		value;

		al_deltaread_key(&walk, NULL, &difference);
		if (difference.kind == AL_DELTA_NESTED && !find_object(object, &walk, &value))
			return false;
	}
	return true;
}

/* What the row was before, from what it was after. */
static void
step_back(History *history, Version *version)
{
	if (version->before_known || !version->after_known)
		return;
	if (version->change.action == AL_SNAPSHOT)
		version->before = version->after;
	else if (version->after == NULL || !fits(version->after, version->delta))
		return;
	else
		version->before = as_under(history, version->state,
								   al_patch_apply(version->after, version->delta, true));
	version->before_known = true;
}

static void
step_forward(History *history, Version *version)
{
	if (version->after_known || !version->before_known || version->before == NULL ||
		!fits(version->before, version->delta))
		return;
	version->after = as_under(history, version->state,
							  al_patch_apply(version->before, version->delta, false));
	version->after_known = true;
}

/* now: the row as it is, NULL where there is none. */
static const AlState *
find_rows(History *history, Version **own, int n, Jsonb *now)
{
	const AlState *gap = NULL;

	for (int i = 0; i < n; i++)
		set_whole_rows(history, own[i]);
	for (int i = n - 1; i >= 0; i--)
	{
		int64		next = i + 1 < n ? own[i + 1]->change.id : PG_INT64_MAX;
		const AlState *here = al_states_gap(history->states, own[i]->change.id, next);

		CHECK_FOR_INTERRUPTS();
		if (here != NULL)
			gap = here;
		else if (!own[i]->after_known)
		{
			own[i]->after_known = i + 1 < n ? own[i + 1]->before_known : true;
			own[i]->after = as_under(history, own[i]->state, i + 1 < n ? own[i + 1]->before : now);
			if (own[i]->after == NULL)
				own[i]->after_known = false;
		}
		step_back(history, own[i]);
	}
	for (int i = 0; i < n; i++)
	{
		if (i > 0 && !own[i]->before_known && own[i - 1]->after_known &&
			al_states_gap(history->states, own[i - 1]->change.id, own[i]->change.id) == NULL)
		{
			own[i]->before = as_under(history, own[i]->state, own[i - 1]->after);
			own[i]->before_known = true;
		}
		step_forward(history, own[i]);
	}
	return gap;
}

/* ---- output ---- */

/* [old, new] of each column, as changeset has it */
static Jsonb *
make_changeset(const Version *version)
{
	StringInfoData buf;
	AlJsonFrame frame;
	AlJsonWalk	walk;
	int			n = JB_ROOT_COUNT(version->delta);
	bool		update = version->change.action == AL_UPDATE;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	al_jsonwalk_begin(&walk, &version->delta->root);
	while (al_jsonwalk_next(&walk))
		al_jsonbuild_key(&frame, walk.key, walk.keylen);
	al_jsonwalk_begin(&walk, &version->delta->root);
	while (al_jsonwalk_next(&walk))
	{
		AlJsonFrame pair;
		AlValue		none = {.kind = AL_NULL};
		AlValue		old = none;
		AlValue		new = none;
		AlDelta		delta;

		if (update)
		{
			al_deltaread_key(&walk, NULL, &delta);
			if (delta.kind != AL_DELTA_NESTED)
			{
				al_jsonbuild_value(&frame, &walk.value);
				continue;
			}
			if (!find_object(version->before_known ? version->before : NULL, &walk, &old) ||
				!find_object(version->after_known ? version->after : NULL, &walk, &new))
			{
				/* the values are not known: what differs inside is */
				al_jsonbuild_value(&frame, &walk.value);
				continue;
			}
		}
		else if (version->change.action == AL_DELETE)
			old = walk.value;
		else
			new = walk.value;
		al_jsonbuild_array(&pair, &buf, 2);
		al_jsonbuild_value(&pair, &old);
		al_jsonbuild_value(&pair, &new);
		al_jsonbuild_close(&pair, &frame);
	}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

#define NCOLUMNS 9

static void
put_version(History *history, int number, const Version *version, TimestampTz timestamp,
			Datum user, Datum context, Jsonb *record)
{
	Datum		values[NCOLUMNS] = {0};
	bool		nulls[NCOLUMNS];

	memset(nulls, true, sizeof(nulls));
	values[0] = Int32GetDatum(number);
	values[3] = TimestampTzGetDatum(timestamp);
	values[4] = CStringGetTextDatum(al_catalog_action_label(version ? version->change.action : AL_SNAPSHOT));
	nulls[0] = nulls[3] = nulls[4] = false;
	if (version != NULL)
	{
		values[1] = Int64GetDatum(version->change.id);
		values[2] = Int64GetDatum(version->change.transaction_id);
		nulls[1] = nulls[2] = false;
		values[5] = user;
		nulls[5] = user == (Datum) 0;
		values[6] = context;
		nulls[6] = context == (Datum) 0;
		if (version->change.action != AL_SNAPSHOT)
		{
			values[7] = JsonbPGetDatum(make_changeset(version));
			nulls[7] = false;
		}
	}
	if (record != NULL)
	{
		values[8] = JsonbPGetDatum(record);
		nulls[8] = false;
	}
	tuplestore_putvalues(history->rsinfo->setResult, history->rsinfo->setDesc, values, nulls);
}

static const char authors_sql[] =
"SELECT t.user_id, t.context FROM pg_catalog.unnest($1) WITH ORDINALITY i (id, n)"
" LEFT JOIN audit_log.transaction t ON t.id = i.id ORDER BY i.n";

/* Who made each version; read under SPI, copied into cxt. */
static void
find_authors(Version **own, int n, Datum *users, Datum *contexts, MemoryContext cxt)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(n, 1));
	Oid			types[] = {INT8ARRAYOID};
	Datum		values[1];
	MemoryContext old;

	for (int i = 0; i < n; i++)
		ids[i] = Int64GetDatum(own[i]->change.transaction_id);
	values[0] = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
												TYPALIGN_DOUBLE));
	if (SPI_execute_with_args(authors_sql, 1, types, values, NULL, true, 0) != SPI_OK_SELECT ||
		SPI_processed != (uint64) n)
		elog(ERROR, "could not read audit_log.transaction");
	old = MemoryContextSwitchTo(cxt);
	for (int i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);

		users[i] = isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull);
		contexts[i] = isnull ? (Datum) 0 : PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	}
	MemoryContextSwitchTo(old);
}

static void
read_authors(Version **own, int n, Datum *users, Datum *contexts)
{
	MemoryContext cxt = CurrentMemoryContext;
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		find_authors(own, n, users, contexts, cxt);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

static void
put_versions(History *history, Version **own, int n, Jsonb *now)
{
	Datum	   *users = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *contexts = palloc(sizeof(Datum) * Max(n, 1));
	const AlState *gap = find_rows(history, own, n, now);
	int			number = 1;

	if (gap != NULL)
		ereport(NOTICE,
				(errmsg("something of this record may not have been captured"),
				 errdetail("State %lld of table %s, %s: %s.", (long long) gap->id,
						   history->states->name, timestamptz_to_str(gap->timestamp), gap->kind),
				 errhint("The record is NULL where it is not known.")));
	if (history->states->n > 0 && history->states->states[0].era != 0)
		ereport(NOTICE,
				(errmsg("records of table %s were told apart by another key before", history->states->name),
				 errdetail("What was logged under it is not shown."),
				 errhint("audit_log.audit_logs shows what was logged.")));
	if (n == 0 || (own[0]->change.action != AL_INSERT && own[0]->change.action != AL_SNAPSHOT))
		put_version(history, number++, NULL, al_states_began(history->states, n == 0 ? PG_INT64_MAX : own[0]->change.id), 0, 0,
					n == 0 ? now : own[0]->before);
	if (n == 0)
		return;
	read_authors(own, n, users, contexts);
	for (int i = 0; i < n; i++)
		put_version(history, number++, own[i], own[i]->change.timestamp, users[i], contexts[i],
					own[i]->after);
}

/* The row under this id now as an object, NULL where there is none. */
static Jsonb *
object_now(History *history, const char *id)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(history->rel), &TTSOpsHeapTuple);
	Jsonb	   *object = NULL;

	if (al_current_fetch(history->rel, history->table, id, slot))
		object = al_current_object(history->table, slot);
	ExecDropSingleTupleTableSlot(slot);
	return object;
}

static void
put_history(History *history, const char *id)
{
	Bearer	   *bearer;
	Version   **own;
	int			n = 0;
	int			life;
	const char *id_now = NULL;
	Jsonb	   *now = NULL;
	HASH_SEQ_STATUS seq;

	if (al_states_same_ids(history->states))
		al_logread_records(history->states->table_id, list_make1(unconstify(char *, id)), NULL, false,
						   add_change, history);
	else
		al_logread_all(history->states->table_id, add_change, history);
	bearer = find_bearer(history, id);
	life = bearer->life;
	if (life < 0)
	{
		/* never changed: as it stood all the time, if it is there */
		now = object_now(history, id);
		if (now != NULL)
			put_versions(history, NULL, 0, now);
		return;
	}
	hash_seq_init(&seq, history->bearers);
	while ((bearer = hash_seq_search(&seq)) != NULL)
		if (bearer->life == life && bearer->there)
			id_now = bearer->id;
	if (id_now != NULL)
		now = object_now(history, id_now);
	own = palloc(sizeof(Version *) * history->n);
	for (int i = 0; i < history->n; i++)
		if (history->versions[i].life == life)
			own[n++] = &history->versions[i];
	put_versions(history, own, n, now);
}

/*
 * audit_log.history(table_name regclass, record_id text) RETURNS TABLE (version,
 * change_id, transaction_id, timestamp, action_type, user_id, context,
 * changeset, record)
 */
PG_FUNCTION_INFO_V1(audit_log_history);
Datum
audit_log_history(PG_FUNCTION_ARGS)
{
	History		history = {.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo,.cxt = CurrentMemoryContext};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("table_name and record_id must not be NULL")));
	history.rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	al_current_check_rights(history.rel);
	InitMaterializedSRF(fcinfo, 0);
	history.states = al_states_read(history.rel);
	history.table = al_current_table(history.rel, history.states);
	history.bearers = al_texthash_create("audit_log bearers", 16, sizeof(Bearer), history.cxt);
	put_history(&history, al_translate_normal_id(history.table, history.rel,
											  text_to_cstring(PG_GETARG_TEXT_PP(1))));
	al_current_check_snapshot(history.rel);
	table_close(history.rel, NoLock);
	return (Datum) 0;
}
