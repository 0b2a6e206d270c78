/*
 * walk.c
 *		Changes of the log, newest first, to the rows of a plan: each change
 *		is one to be taken back from the row that its record has become.
 *
 * A record is followed backward through changes of its key.  Where its id was
 * another record's before (deleted, and inserted anew later), the two are one
 * row of the plan, since they stand in one row of the table.  Of a table
 * without key the row's image is its id.
 *
 * No SPI; in the plan's memory.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "audit_log.h"

typedef struct Position
{
	const char *id;				/* hash key: pointer to the text */
	AlPlanRow  *row;
	struct Position *next;		/* equal rows, without key */
} Position;

/* ---- what was captured ---- */

static bool
setting_names(Jsonb *settings, const char *key, const AlPastColumn *column)
{
	JsonbValue	buf;
	JsonbValue *list;
	AlJsonWalk	walk;

	if (settings == NULL || !JB_ROOT_IS_OBJECT(settings))
		return false;
	list = getKeyJsonValueFromContainer(&settings->root, key, strlen(key), &buf);
	if (list == NULL || list->type != jbvBinary)
		return false;
	al_jsonwalk_begin(&walk, list->val.binary.data);
	while (al_jsonwalk_next(&walk))
		if (walk.value.kind == AL_STRING && walk.value.len == column->namelen &&
			memcmp(walk.value.string, column->name, column->namelen) == 0)
			return true;
	return false;
}

static bool
has_setting(Jsonb *settings, const char *key)
{
	JsonbValue	buf;

	return settings != NULL && JB_ROOT_IS_OBJECT(settings) &&
		getKeyJsonValueFromContainer(&settings->root, key, strlen(key), &buf) != NULL;
}

static bool
is_key(const AlState *state, AttrNumber attnum)
{
	for (int i = 0; i < state->nkeys; i++)
		if (state->keys[i] == attnum)
			return true;
	return false;
}

static void
fill_captured(AlWalk *walk, int n)
{
	const AlState *state = &walk->states->states[n];

	for (int i = 0; i < state->ncolumns; i++)
	{
		const AlPastColumn *column = &state->columns[i];

		if (column->attnum == 0 || bms_is_member(column->attnum, walk->table->generated))
			continue;
		if (!column->masked && !setting_names(state->settings, "mask", column) &&
			!setting_names(state->settings, "exclude", column) &&
			(!has_setting(state->settings, "include") || is_key(state, column->attnum) ||
			 setting_names(state->settings, "include", column)))
			walk->captured[n] = bms_add_member(walk->captured[n], column->attnum);
		else
			walk->lost[n] = bms_add_member(walk->lost[n], column->attnum);
	}
}

AlWalk *
al_walk_make(AlPlan *plan, AlPlanTable *table, AlStates *states)
{
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);
	AlWalk	   *walk = palloc0(sizeof(AlWalk));

	walk->table = table;
	walk->states = states;
	walk->cxt = plan->cxt;
	walk->scratch = AllocSetContextCreate(plan->cxt, "audit_log walk", ALLOCSET_DEFAULT_SIZES);
	walk->captured = palloc0(sizeof(Bitmapset *) * Max(states->n, 1));
	walk->lost = palloc0(sizeof(Bitmapset *) * Max(states->n, 1));
	for (int i = 0; i < states->n; i++)
		fill_captured(walk, i);
	walk->positions = al_texthash_create("audit_log walk", 256, sizeof(Position), plan->cxt);
	MemoryContextSwitchTo(old);
	return walk;
}

/* ---- positions ---- */

static void
put_at(AlWalk *walk, AlPlanRow *row, const char *id)
{
	bool		found;
	const char *copy = MemoryContextStrdup(walk->cxt, id);
	Position   *position = hash_search(walk->positions, &copy, HASH_ENTER, &found);

	if (found && walk->table->nkeys == 0)
	{
		Position   *more = MemoryContextAlloc(walk->cxt, sizeof(Position));

		*more = *position;
		position->next = more;
	}
	else if (!found)
		position->next = NULL;
	/* of a record that is gone by then another one may take the id */
	position->id = copy;
	position->row = row;
}

/* The row whose record bears this id at this point of the walk, which it leaves. */
static AlPlanRow *
take_from(AlWalk *walk, const char *id)
{
	Position   *position = hash_search(walk->positions, &id, HASH_FIND, NULL);
	AlPlanRow  *row;

	if (position == NULL)
		return NULL;
	row = position->row;
	if (position->next != NULL)
	{
		/* the hash key stays: it is the same text */
		position->row = position->next->row;
		position->next = position->next->next;
	}
	else
		hash_search(walk->positions, &id, HASH_REMOVE, NULL);
	return row;
}

/* ---- content under today's names and types ---- */

typedef struct Reading
{
	AlWalk	   *walk;
	const AlColumn *column;
	AlValue		in;
	AlValue		out;
} Reading;

static void
read_anew(void *arg)
{
	Reading    *reading = arg;
	bool		isnull;
	bool		pg = reading->in.kind == AL_CONTAINER && al_encode_single_is_pg(reading->in.container);
	Datum		datum;
	AlFixed		saved;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		datum = al_decode_value(reading->walk->table->decoder, reading->column->attnum - 1,
								&reading->in, pg, &isnull);
		al_row_column(reading->column, datum, isnull, &reading->out);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
}

static const AlColumn *
todays_column(const AlWalk *walk, AttrNumber attnum)
{
	const AlTable *table = walk->table->table;

	for (int i = 0; i < table->ncolumns; i++)
		if (table->columns[i].attnum == attnum)
			return &table->columns[i];
	return NULL;
}

/* one member of an object or delta that is written */
typedef struct Member
{
	const char *name;
	int			namelen;
	AlValue		value;			/* of an object, or a nested delta */
	bool		pair;			/* [old, new] */
	AlValue		old;
} Member;

static int
compare_members(const void *a, const void *b)
{
	const Member *x = (const Member *) a;
	const Member *y = (const Member *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

static bool
retype(AlWalk *walk, AttrNumber attnum, AlValue *value)
{
	Reading		reading = {.walk = walk,.column = todays_column(walk, attnum),.in = *value};

	if (reading.column == NULL || reading.column->masked || value->kind == AL_NULL)
		return true;
	if (al_plan_try(read_anew, &reading) != NULL)
		return false;
	*value = reading.out;
	return true;
}

/* A value of a changed type as today's type has it; false: not to be read. */
static bool
retype_member(AlWalk *walk, bool delta, AttrNumber attnum, Member *member)
{
	AlDelta		what;
	AlPlace		place = {NULL, member->name, member->namelen};
	const AlColumn *column;

	if (!delta)
		return retype(walk, attnum, &member->value);
	al_deltaread_value(&member->value, &place, &what);
	if (what.kind == AL_DELTA_NESTED)
	{
		/* json and jsonb are alike inside */
		column = todays_column(walk, attnum);
		return column == NULL || column->json;
	}
	if (what.kind != AL_DELTA_CHANGED)
		return false;			/* of a whole column there is no other */
	member->pair = true;
	member->old = what.old;
	member->value = what.new;
	return retype(walk, attnum, &member->old) && retype(walk, attnum, &member->value);
}

static Jsonb *
make_object(const Member *members, int n)
{
	StringInfoData buf;
	AlJsonFrame frame;

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	al_jsonbuild_object(&frame, &buf, n);
	for (int i = 0; i < n; i++)
		al_jsonbuild_key(&frame, members[i].name, members[i].namelen);
	for (int i = 0; i < n; i++)
	{
		AlJsonFrame pair;

		if (!members[i].pair)
		{
			al_jsonbuild_value(&frame, &members[i].value);
			continue;
		}
		al_jsonbuild_array(&pair, &buf, 2);
		al_jsonbuild_value(&pair, &members[i].old);
		al_jsonbuild_value(&pair, &members[i].value);
		al_jsonbuild_close(&pair, &frame);
	}
	al_jsonbuild_close(&frame, NULL);
	return al_jsonbuild_finish(&buf);
}

static List *
add_name(AlWalk *walk, List *names, const char *name, int namelen)
{
	MemoryContext old = MemoryContextSwitchTo(walk->cxt);

	names = lappend(names, pnstrdup(name, namelen));
	MemoryContextSwitchTo(old);
	return names;
}

/*
 * An object or a delta as a step has it: today's names, no columns that were
 * not captured in clear, or are gone, which are noted.
 */
static Jsonb *
under_todays_names(AlWalk *walk, const AlState *state, Jsonb *object, bool delta, AlPlanStep *step)
{
	TupleDesc	desc = RelationGetDescr(walk->table->rel);
	Member	   *members = palloc0(sizeof(Member) * (JB_ROOT_COUNT(object) + 1));
	int			n = 0;
	bool		same = true;
	AlJsonWalk	keys;

	al_jsonwalk_begin(&keys, &object->root);
	while (al_jsonwalk_next(&keys))
	{
		const AlPastColumn *column = al_states_column(state, keys.key, keys.keylen);
		Member	   *member = &members[n];
		const char *name;

		if (column == NULL || column->attnum == 0)
		{
			step->gone = add_name(walk, step->gone, keys.key, keys.keylen);
			same = false;
			continue;
		}
		if (bms_is_member(column->attnum, step->lost) ||
			bms_is_member(column->attnum, walk->table->virtual))
		{
			same = false;
			continue;
		}
		name = NameStr(TupleDescAttr(desc, column->attnum - 1)->attname);
		memset(member, 0, sizeof(Member));
		member->name = name;
		member->namelen = strlen(name);
		member->value = keys.value;
		if (member->namelen != keys.keylen || memcmp(name, keys.key, keys.keylen) != 0)
			same = false;
		if (!column->same_type)
		{
			same = false;
			if (!retype_member(walk, delta, column->attnum, member))
			{
				step->unreadable = add_name(walk, step->unreadable, name, member->namelen);
				continue;
			}
		}
		n++;
	}
	if (same)
		return object;
	qsort(members, n, sizeof(Member), compare_members);
	return make_object(members, n);
}

/* ---- one change ---- */

/* In scratch memory; the step itself is the plan's. */
static AlPlanStep *
make_step(AlWalk *walk, const AlState *state, const AlLogChange *change)
{
	AlPlanStep *step = MemoryContextAllocZero(walk->cxt, sizeof(AlPlanStep));
	Jsonb	   *changes = change->changes;
	MemoryContext old;

	step->action = change->action;
	if (state == NULL)
		step->columns = walk->table->usable;
	else
	{
		step->columns = walk->captured[state - walk->states->states];
		step->lost = walk->lost[state - walk->states->states];
		changes = under_todays_names(walk, state, changes, change->action == AL_UPDATE, step);
	}
	old = MemoryContextSwitchTo(walk->cxt);
	step->changes = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(changes));
	MemoryContextSwitchTo(old);
	return step;
}

/* Why records of this change cannot be found, NULL where they can. */
static char *
unfound(const AlWalk *walk, const AlState *state, const AlLogChange *change)
{
	if (walk->table->nkeys == 0)
		return NULL;
	if (walk->table->table->key_masked)
		return "the key is masked in the log";
	if (change->record_id == NULL)
		return "the table had no key then";
	if (state != NULL && state->era != 0)
		return "the table had another key then";
	return NULL;
}

/* Is one of the ids that are asked for among these? */
static bool
is_wanted(const AlWalk *walk, const char *a, const char *b)
{
	ListCell   *lc;

	if (walk->record_ids == NIL)
		return true;
	foreach(lc, walk->record_ids)
		if ((a != NULL && strcmp(lfirst(lc), a) == 0) ||
			(b != NULL && strcmp(lfirst(lc), b) == 0))
			return true;
	return false;
}

static AlPlanRow *
new_row(AlWalk *walk, const char *id)
{
	MemoryContext old = MemoryContextSwitchTo(walk->cxt);
	AlPlanRow  *row = al_plan_add_row(walk->table, id);

	row->undone = walk->undone;
	MemoryContextSwitchTo(old);
	return row;
}

/* The id before and after the change; of a table without key the images. */
static void
ids_of(AlWalk *walk, const AlLogChange *change, const AlPlanStep *step,
	   char **before, char **after)
{
	Jsonb	   *stripped;

	if (walk->table->nkeys > 0)
	{
		*before = change->old_record_id ? change->old_record_id : change->record_id;
		*after = change->record_id;
	}
	else if (change->action == AL_UPDATE)
	{
		/* every column is there, as [old, new] */
		Member		none;
		Jsonb	   *empty = make_object(&none, 0);

		*before = al_plan_image_id(al_patch_apply(empty, step->changes, true), &stripped);
		*after = al_plan_image_id(al_patch_apply(empty, step->changes, false), &stripped);
	}
	else
		*before = *after = al_plan_image_id(step->changes, &stripped);
}

static void
add_step(AlWalk *walk, const AlLogChange *change, AlPlanStep *step)
{
	AlPlanRow  *row;
	char	   *before;
	char	   *after;
	MemoryContext old;

	ids_of(walk, change, step, &before, &after);
	/* without key a row that is deleted has no other life */
	row = change->action == AL_DELETE && walk->table->nkeys == 0 ? NULL : take_from(walk, after);
	if (row == NULL)
	{
		/* a row of the plan may bear the id of one deleted before */
		bool		borne = change->action == AL_DELETE &&
			(walk->table->nkeys == 0 || al_plan_find_row(walk->table, after) != NULL);

		row = new_row(walk, borne ? NULL : after);
	}
	if (row->steps == NULL)
	{
		row->last_change = change->id;
		row->last_command = change->command;
	}
	al_plan_add_step(row, step);
	row->wanted |= is_wanted(walk, before, after);
	if (change->action != AL_INSERT || walk->table->nkeys > 0)
		put_at(walk, row, before);
	old = MemoryContextSwitchTo(walk->cxt);
	row->then_id = pstrdup(before);
	MemoryContextSwitchTo(old);
}

/* Changes come newest first; those that are no changes of rows are passed over. */
void
al_walk_change(AlWalk *walk, const AlLogChange *change)
{
	const AlState *state;
	MemoryContext old;
	AlPlanStep *step;
	char	   *reason;

	if (change->action == AL_TRUNCATE || change->action == AL_SNAPSHOT || change->changes == NULL)
		return;
	if (walk->first == 0 || change->id < walk->first)
		walk->first = change->id;
	state = al_states_at(walk->states, change->id);
	old = MemoryContextSwitchTo(walk->scratch);
	step = make_step(walk, state, change);
	reason = unfound(walk, state, change);
	if (reason != NULL)
	{
		AlPlanRow  *row = new_row(walk, NULL);

		row->wanted = is_wanted(walk, change->record_id, change->old_record_id);
		MemoryContextSwitchTo(walk->cxt);
		if (change->record_id != NULL)
			row->then_id = pstrdup(change->record_id);
		al_plan_add_step(row, step);
		al_plan_leave_out(row, reason);
	}
	else
		add_step(walk, change, step);
	MemoryContextSwitchTo(old);
	MemoryContextReset(walk->scratch);
}

void
al_walk_end(AlWalk *walk)
{
	al_plan_keep_wanted(walk->table);
	MemoryContextDelete(walk->scratch);
	hash_destroy(walk->positions);
}
