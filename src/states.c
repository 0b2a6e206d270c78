/*
 * states.c
 *		What table_state tells of a table's past: what its columns were called
 *		at each change, and what was not captured.
 *
 * Columns are followed from state to state by their number, which a rename
 * keeps and nothing ever reuses.  Only a dump restored gives numbers anew, and
 * then a number that was a dropped column's turns up, or a name with a smaller
 * number than before: there the names tell.
 *
 * Read once a call, into the current memory.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit_log.h"

/* ---- reading JSON of our own making ---- */

static bool
find_member(Jsonb *object, const char *key, AlValue *out)
{
	JsonbValue	k;
	JsonbValue *v;

	if (object == NULL || !JB_ROOT_IS_OBJECT(object))
		return false;
	k.type = jbvString;
	k.val.string.val = unconstify(char *, key);
	k.val.string.len = strlen(key);
	v = findJsonbValueFromContainer(&object->root, JB_FOBJECT, &k);
	if (v == NULL)
		return false;
	al_jsonbuild_from_jsonb(out, v);
	return true;
}

static char *
text_member(Jsonb *object, const char *key)
{
	AlValue		value;
	int			len;
	char	   *text;

	if (!find_member(object, key, &value) || value.kind == AL_NULL)
		return NULL;
	text = al_jsonbuild_text(&value, &len);
	return pnstrdup(text, len);
}

/* Is the name in the list under this key of the settings? */
static bool
setting_names(Jsonb *settings, const char *key, const char *name, int namelen)
{
	AlValue		list;
	AlJsonWalk	walk;

	if (!find_member(settings, key, &list) || list.kind != AL_CONTAINER)
		return false;
	al_jsonwalk_begin(&walk, list.container);
	while (al_jsonwalk_next(&walk))
		if (walk.value.kind == AL_STRING && walk.value.len == namelen &&
			memcmp(walk.value.string, name, namelen) == 0)
			return true;
	return false;
}

static int
compare_columns(const void *a, const void *b)
{
	const AlPastColumn *x = a;
	const AlPastColumn *y = b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

static void
parse_columns(AlState *state, Jsonb *columns)
{
	AlJsonWalk	list;
	int			n = 0;

	al_jsonwalk_begin(&list, &columns->root);
	state->columns = palloc0(sizeof(AlPastColumn) * Max(list.npairs, 1));
	while (al_jsonwalk_next(&list))
	{
		AlPastColumn *column = &state->columns[n++];
		AlJsonWalk	members;

		al_jsonwalk_begin(&members, list.value.container);
		while (al_jsonwalk_next(&members))
		{
			int			len;
			char	   *text = al_jsonbuild_text(&members.value, &len);

			text = pnstrdup(text, len);
			if (members.keylen == 4 && memcmp(members.key, "name", 4) == 0)
			{
				column->name = text;
				column->namelen = len;
			}
			else if (members.keylen == 4 && memcmp(members.key, "type", 4) == 0)
				column->type = text;
			else if (members.keylen == 6 && memcmp(members.key, "number", 6) == 0)
				column->number = (AttrNumber) atoi(text);
		}
	}
	state->ncolumns = n;
	qsort(state->columns, n, sizeof(AlPastColumn), compare_columns);
}

/* ---- following columns ---- */

const AlPastColumn *
al_states_column(const AlState *state, const char *name, int namelen)
{
	AlPastColumn wanted = {.name = unconstify(char *, name),.namelen = namelen};

	return bsearch(&wanted, state->columns, state->ncolumns, sizeof(AlPastColumn),
				   compare_columns);
}

static int
compare_numbers(const void *a, const void *b)
{
	return (*(AlPastColumn *const *) a)->number - (*(AlPastColumn *const *) b)->number;
}

/* the columns in the order of their numbers */
static AlPastColumn **
by_number(const AlState *state)
{
	AlPastColumn **sorted = palloc(sizeof(AlPastColumn *) * Max(state->ncolumns, 1));

	for (int i = 0; i < state->ncolumns; i++)
		sorted[i] = &state->columns[i];
	qsort(sorted, state->ncolumns, sizeof(AlPastColumn *), compare_numbers);
	return sorted;
}

static AlPastColumn *
find_number(AlPastColumn **sorted, int n, AttrNumber number)
{
	AlPastColumn key = {.number = number};
	AlPastColumn *wanted = &key;
	AlPastColumn **found = bsearch(&wanted, sorted, n, sizeof(AlPastColumn *), compare_numbers);

	return found ? *found : NULL;
}

/* Did the table get numbers anew between these two states? */
static bool
was_restored(const AlState *old, AlPastColumn **old_sorted, const AlState *new)
{
	AttrNumber	last = old->ncolumns > 0 ? old_sorted[old->ncolumns - 1]->number : 0;

	for (int i = 0; i < new->ncolumns; i++)
	{
		const AlPastColumn *column = &new->columns[i];
		const AlPastColumn *before = al_states_column(old, column->name, column->namelen);

		if (before != NULL && column->number < before->number)
			return true;
		if (column->number <= last &&
			find_number(old_sorted, old->ncolumns, column->number) == NULL)
			return true;
	}
	return false;
}

/*
 * By names; what is left on both sides, if it is as much and of the same types,
 * was renamed after the restore and before anything else was noticed.
 */
static void
link_by_name(AlPastColumn **old, int nold, const AlState *new, AlPastColumn **links)
{
	AlPastColumn **new_sorted = by_number(new);
	bool	   *taken = palloc0(sizeof(bool) * Max(new->ncolumns, 1));
	int			left_old = 0;
	int			left_new = 0;
	int			next = 0;

	for (int i = 0; i < nold; i++)
	{
		const AlPastColumn *found = al_states_column(new, old[i]->name, old[i]->namelen);

		links[i] = unconstify(AlPastColumn *, found);
		if (found != NULL)
			taken[found - new->columns] = true;
		else
			left_old++;
	}
	for (int i = 0; i < new->ncolumns; i++)
		left_new += !taken[i];
	if (left_old != left_new)
		return;
	for (int i = 0; i < nold; i++)
	{
		if (links[i] != NULL)
			continue;
		while (taken[new_sorted[next] - new->columns])
			next++;
		if (strcmp(old[i]->type, new_sorted[next]->type) == 0)
			links[i] = new_sorted[next];
		next++;
	}
}

/* types that write the same value in the same text, as format_type() names them; 0: none */
static int
text_family(const char *type)
{
	if (strcmp(type, "smallint") == 0 || strcmp(type, "integer") == 0 || strcmp(type, "bigint") == 0)
		return 1;
	if (strcmp(type, "text") == 0 || strcmp(type, "character varying") == 0 ||
		strncmp(type, "character varying(", 18) == 0)
		return 2;
	return 0;
}

static bool
same_text(const char *a, const char *b)
{
	/* not arrays, whose names go on */
	return strcmp(a, b) == 0 ||
		(text_family(a) != 0 && text_family(a) == text_family(b) &&
		 strchr(a, '[') == NULL && strchr(b, '[') == NULL);
}

/* Gives the columns of a state today's numbers, by way of the state after it. */
static void
link_columns(AlState *old, const AlState *new)
{
	AlPastColumn **sorted = by_number(old);
	AlPastColumn **links = palloc0(sizeof(AlPastColumn *) * Max(old->ncolumns, 1));

	if (was_restored(old, sorted, new))
		link_by_name(sorted, old->ncolumns, new, links);
	else
	{
		AlPastColumn **new_sorted = by_number(new);

		for (int i = 0; i < old->ncolumns; i++)
			links[i] = find_number(new_sorted, new->ncolumns, sorted[i]->number);
	}
	for (int i = 0; i < old->ncolumns; i++)
	{
		sorted[i]->attnum = links[i] ? links[i]->attnum : 0;
		sorted[i]->same_type = links[i] && links[i]->same_type &&
			strcmp(sorted[i]->type, links[i]->type) == 0;
		sorted[i]->same_text = links[i] && links[i]->same_text &&
			same_text(sorted[i]->type, links[i]->type);
	}
}

/* The table as it is, as if a state told of it. */
static void
state_of_today(AlState *state, Relation root, List *excluded)
{
	char	   *json = al_table_columns_json(root);
	List	   *key = al_table_key_columns(root, excluded);
	ListCell   *lc;

	parse_columns(state, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json))));
	for (int i = 0; i < state->ncolumns; i++)
	{
		state->columns[i].attnum = state->columns[i].number;
		state->columns[i].same_type = state->columns[i].same_text = true;
	}
	state->keys = palloc(sizeof(AttrNumber) * Max(list_length(key), 1));
	foreach(lc, key)
		state->keys[state->nkeys++] =
			al_states_column(state, lfirst(lc), strlen(lfirst(lc)))->attnum;
}

static void
link_key(AlState *state, Datum *names, int n)
{
	state->nkeys = n;
	state->keys = palloc0(sizeof(AttrNumber) * Max(n, 1));
	state->key_same_texts = true;
	for (int i = 0; i < n; i++)
	{
		char	   *name = TextDatumGetCString(names[i]);
		const AlPastColumn *column = al_states_column(state, name, strlen(name));

		if (column == NULL)
			continue;
		state->keys[i] = column->attnum;
		state->key_same_texts &= column->same_text;
		state->key_masked |= column->masked;
	}
}

static bool
same_key(const AlState *a, const AlState *b)
{
	if (a->nkeys != b->nkeys || a->key_masked != b->key_masked)
		return false;
	for (int i = 0; i < a->nkeys; i++)
		if (a->keys[i] != b->keys[i] || a->keys[i] == 0)
			return false;
	return true;
}

/* ---- reading states ---- */

static const char states_sql[] =
"SELECT t.id, s.id, s.kind, s.settings, s.columns, s.key_columns, s.detail, s.timestamp, s.first_change_id"
" FROM audit_log.tracked_table t LEFT JOIN audit_log.table_state s ON s.table_id = t.id"
" WHERE t.table_schema = $1 AND t.table_name = $2 AND t.dropped_at IS NULL ORDER BY s.id";

static Jsonb *
jsonb_value(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(value);
}

/* the texts of a state's key_columns; n is 0 without key */
static Datum *
key_names(uint64 row, int *n)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 6, &isnull);
	Datum	   *names = NULL;
	bool	   *nulls;

	*n = 0;
	if (!isnull)
		deconstruct_array(DatumGetArrayTypePCopy(value), TEXTOID, -1, false, TYPALIGN_INT,
						  &names, &nulls, n);
	return names;
}

static void
read_state(AlState *state, uint64 row, Jsonb *columns)
{
	bool		isnull;
	HeapTuple	tuple = SPI_tuptable->vals[row];
	TupleDesc	desc = SPI_tuptable->tupdesc;

	state->id = DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
	state->kind = SPI_getvalue(tuple, desc, 3);
	state->settings = jsonb_value(row, 4);
	state->detail = jsonb_value(row, 7);
	state->timestamp = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 8, &isnull));
	state->first_change_id = DatumGetInt64(SPI_getbinval(tuple, desc, 9, &isnull));
	parse_columns(state, columns);
	for (int i = 0; i < state->ncolumns; i++)
		state->columns[i].masked = setting_names(state->settings, "mask",
												 state->columns[i].name,
												 state->columns[i].namelen);
}

/*
 * In the caller's memory.  States are read newest first, so that each column
 * has today's number by way of the state after it.
 */
static void
read_states(AlStates *states, Relation root, MemoryContext cxt)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[2];
	MemoryContext old;
	AlState		today = {0};
	const AlState *next = &today;
	List	   *excluded = NIL;
	AlValue		list;
	bool		isnull;

	values[0] = CStringGetTextDatum(get_namespace_name(RelationGetNamespace(root)));
	values[1] = CStringGetTextDatum(RelationGetRelationName(root));
	if (SPI_execute_with_args(states_sql, 2, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read audit_log.table_state");
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s is not audited", states->name),
				 errhint("Run audit_log.enable() on it.")));

	old = MemoryContextSwitchTo(cxt);
	states->table_id = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
												   1, &isnull));
	(void) SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull);
	states->n = isnull ? 0 : (int) SPI_processed;
	states->states = palloc0(sizeof(AlState) * Max(states->n, 1));

	if (states->n > 0 &&
		find_member(jsonb_value(states->n - 1, 4), "exclude", &list) && list.kind == AL_CONTAINER)
	{
		AlJsonWalk	walk;

		al_jsonwalk_begin(&walk, list.container);
		while (al_jsonwalk_next(&walk))
			excluded = lappend(excluded, pnstrdup(walk.value.string, walk.value.len));
	}
	state_of_today(&today, root, excluded);

	for (int i = states->n - 1; i >= 0; i--)
	{
		AlState    *state = &states->states[i];
		int			n;
		Datum	   *names;

		read_state(state, i, jsonb_value(i, 5));
		link_columns(state, next);
		names = key_names(i, &n);
		link_key(state, names, n);
		/* whether today's key is masked the newest state knows */
		if (next == &today)
			today.key_masked = state->key_masked;
		state->era = next->era + !same_key(state, next);
		next = state;
	}
	MemoryContextSwitchTo(old);
}

AlStates *
al_states_read(Relation root)
{
	AlStates   *states = palloc0(sizeof(AlStates));
	MemoryContext cxt = CurrentMemoryContext;
	AlOwn		saved;

	states->relid = RelationGetRelid(root);
	states->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(root)),
											  RelationGetRelationName(root));
	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		read_states(states, root, cxt);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return states;
}

const AlState *
al_states_at(const AlStates *states, int64 change_id)
{
	int			low = 0;
	int			high = states->n;

	/* the first that governs later changes only */
	while (low < high)
	{
		int			middle = low + (high - low) / 2;

		if (states->states[middle].first_change_id <= change_id)
			low = middle + 1;
		else
			high = middle;
	}
	if (states->n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no state of table %s that change %lld was captured under",
						states->name, (long long) change_id)));
	/* what was imported is older than the first, and was written under its names */
	return &states->states[Max(low, 1) - 1];
}

static bool
is_later(const AlState *state, const AlMoment *moment)
{
	return al_moment_state_is_later(moment, state->id, state->first_change_id,
									state->timestamp);
}

const AlState *
al_states_then(const AlStates *states, const AlMoment *moment)
{
	for (int i = states->n - 1; i >= 0; i--)
		if (!is_later(&states->states[i], moment))
			return &states->states[i];
	return NULL;
}

/* ---- what stands in the way ---- */

typedef struct Way
{
	const AlStates *states;
	const AlMoment *moment;
	List	   *obstacles;
	List	   *fresh;			/* partitions that came empty: char * */
	bool		went;			/* one of these has gone */
} Way;

static AlObstacle *
add_obstacle(Way *way, const AlState *state, const char *what)
{
	AlObstacle *obstacle = palloc0(sizeof(AlObstacle));

	obstacle->state = state;
	obstacle->what = what;
	way->obstacles = lappend(way->obstacles, obstacle);
	return obstacle;
}

static char *
state_words(const AlState *state)
{
	return psprintf("state %lld of %s", (long long) state->id,
					timestamptz_to_str(state->timestamp));
}

/* what switches the audit of a table on and off, until it is switched again */
typedef struct Switches
{
	const AlState *ended;		/* or never began: NULL with !enabled */
	bool		enabled;
	const AlState *disabled;	/* triggers that do not fire */
} Switches;

static bool
kind_is(const AlState *state, const char *kind)
{
	return strcmp(state->kind, kind) == 0;
}

/* Does this gap end by itself, when triggers fire again? */
static bool
gap_of_triggers(const AlState *state, bool *ends)
{
	AlValue		list;

	if (!find_member(state->detail, "disabled", &list) || list.kind != AL_CONTAINER)
		return false;
	*ends = JsonContainerSize(list.container) == 0;
	return true;
}

static bool
gap_of_trigger_gone(const AlState *state)
{
	char	   *reason = text_member(state->detail, "reason");

	return reason != NULL && (strcmp(reason, "a trigger was dropped") == 0 ||
							  strcmp(reason, "its trigger was missing") == 0);
}

static void
follow_switches(Switches *switches, const AlState *state)
{
	bool		ends;

	if (kind_is(state, "enabled"))
	{
		switches->enabled = true;
		switches->ended = NULL;
	}
	else if (kind_is(state, "disabled") || kind_is(state, "dropped"))
	{
		switches->enabled = false;
		switches->ended = state;
	}
	else if (kind_is(state, "gap"))
	{
		if (gap_of_triggers(state, &ends))
			switches->disabled = ends ? NULL : state;
		else if (gap_of_trigger_gone(state))
			switches->ended = state;
	}
}

/* The end of the month that a partition of the log is named for; false: none */
static bool
month_end(const char *partition, TimestampTz *end)
{
	const char *name = partition ? strstr(partition, "change_") : NULL;
	int			year;
	int			month;
	struct pg_tm tm = {0};

	if (name == NULL || sscanf(name, "change_%4d_%2d", &year, &month) != 2)
		return false;
	if (++month > 12)
	{
		month = 1;
		year++;
	}
	tm.tm_year = year;
	tm.tm_mon = month;
	tm.tm_mday = 1;
	return tm2timestamp(&tm, 0, &(int) {0}, end) == 0;
}

static bool
list_has(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
		if (strcmp(lfirst(lc), name) == 0)
			return true;
	return false;
}

/* a state that began after the moment */
static void
look_at_later(Way *way, const AlState *state)
{
	char	   *reason = text_member(state->detail, "reason");
	char	   *partition = text_member(state->detail, "partition");
	bool		ends = false;
	AlValue		empty;

	if (kind_is(state, "disabled"))
		add_obstacle(way, state, psprintf("Its audit was ended (%s).", state_words(state)));
	else if (kind_is(state, "paused"))
		add_obstacle(way, state, psprintf("Its audit was paused in a transaction: %s (%s).",
										  reason ? reason : "", state_words(state)));
	else if (kind_is(state, "partition attached"))
	{
		if (find_member(state->detail, "empty", &empty) && empty.kind == AL_BOOL && empty.boolean)
			way->fresh = lappend(way->fresh, partition);
		else
			add_obstacle(way, state,
						 psprintf("Partition %s was attached with rows that were not logged (%s).",
								  partition, state_words(state)));
	}
	else if (kind_is(state, "partition detached"))
	{
		/* all rows of one that has come since have come by logged changes */
		if (partition != NULL && list_has(way->fresh, partition))
			way->went = true;
		else
			add_obstacle(way, state, psprintf("Partition %s was %s with its rows (%s).", partition,
											  text_member(state->detail, "dropped") ? "dropped" : "detached",
											  state_words(state)));
	}
	else if (kind_is(state, "renamed"))
	{
		char	   *former = text_member(state->detail, "former");

		if (former != NULL && partition != NULL && list_has(way->fresh, former))
			way->fresh = lappend(way->fresh, partition);
	}
	else if (kind_is(state, "gap"))
	{
		TimestampTz end;

		if (gap_of_triggers(state, &ends))
		{
			if (!ends)
				add_obstacle(way, state, psprintf("Its triggers were disabled (%s).", state_words(state)));
		}
		else if (reason != NULL && strcmp(reason, "history purged") == 0)
		{
			if (!month_end(partition, &end) || way->moment->begun < end)
				add_obstacle(way, state, psprintf("Its history in %s has been purged (%s).",
												  partition, state_words(state)));
		}
		else
			add_obstacle(way, state, psprintf("Something was not captured: %s (%s).",
											  reason ? reason : "no reason is known",
											  state_words(state)));
	}
}

Bitmapset *
al_states_left_out(const AlState *state)
{
	AlValue		value;
	bool		included = find_member(state->settings, "include", &value);
	bool		excluded = find_member(state->settings, "exclude", &value);
	Bitmapset  *columns = NULL;

	if (!included && !excluded)
		return NULL;
	for (int i = 0; i < state->ncolumns; i++)
	{
		const AlPastColumn *column = &state->columns[i];
		bool		key = false;

		if (column->attnum == 0)
			continue;
		for (int k = 0; k < state->nkeys; k++)
			key |= state->keys[k] == column->attnum;
		if (setting_names(state->settings, "exclude", column->name, column->namelen) ||
			(included && !key &&
			 !setting_names(state->settings, "include", column->name, column->namelen)))
			columns = bms_add_member(columns, column->attnum);
	}
	return columns;
}

/* what a state that was in force at some time since the moment did not capture */
static void
look_at_settings(Way *way, const AlState *state)
{
	Jsonb	   *settings = state->settings;
	AlValue		value;
	Bitmapset  *columns = al_states_left_out(state);
	StringInfoData names;
	int			attnum = -1;
	char	   *condition = text_member(settings, "condition");

	if (condition != NULL)
		add_obstacle(way, state, psprintf("Only rows for which a condition holds were logged: %s (%s).",
										  condition, state_words(state)));
	if (find_member(settings, "actions", &value))
		add_obstacle(way, state, psprintf("Only some actions were logged: %s (%s).",
										  text_member(settings, "actions"), state_words(state)));

	initStringInfo(&names);
	while ((attnum = bms_next_member(columns, attnum)) >= 0)
		for (int i = 0; i < state->ncolumns; i++)
			if (state->columns[i].attnum == attnum)
				appendStringInfo(&names, "%s%s", names.len ? ", " : "",
								 quote_identifier(state->columns[i].name));
	if (columns != NULL)
		add_obstacle(way, state, psprintf("Columns were left out of the log: %s (%s).",
										  names.data, state_words(state)))->columns = columns;
}

/* Is the same captured by the settings of both? */
static bool
same_settings(const AlState *a, const AlState *b)
{
	static const char *const keys[] = {"exclude", "include", "condition", "actions"};

	for (int i = 0; i < (int) lengthof(keys); i++)
	{
		char	   *x = text_member(a->settings, keys[i]);
		char	   *y = text_member(b->settings, keys[i]);

		if ((x == NULL) != (y == NULL) || (x != NULL && strcmp(x, y) != 0))
			return false;
	}
	return true;
}

/*
 * Under session_replication_role a superuser can take the trigger away, or switch
 * it, without a state to tell of it before the next enable().
 */
static bool
is_captured_now(const AlStates *states)
{
	Relation	rel = relation_open(states->relid, NoLock);
	Trigger    *trigger = al_table_trigger(rel, AL_ROW_TRIGGER, al_catalog_get()->capture);

	relation_close(rel, NoLock);
	return trigger != NULL && (trigger->tgenabled == TRIGGER_FIRES_ON_ORIGIN ||
							   trigger->tgenabled == TRIGGER_FIRES_ALWAYS);
}

List *
al_states_obstacles(const AlStates *states, const AlMoment *moment, bool *went)
{
	Way			way = {.states = states,.moment = moment};
	Switches	switches = {0};
	const AlState *in_force = NULL;
	const AlState *began = NULL;
	bool		ever = false;

	for (int i = 0; i < states->n; i++)
	{
		const AlState *state = &states->states[i];

		if (kind_is(state, "enabled") && !ever)
		{
			ever = true;
			began = state;
		}
		if (!is_later(state, moment))
		{
			in_force = state;
			follow_switches(&switches, state);
		}
	}
	if (!ever)
		add_obstacle(&way, NULL, "It is audited by a trigger attached by hand, which does not see TRUNCATE.");
	else if (!switches.enabled && switches.ended == NULL)
		add_obstacle(&way, began, psprintf("Its audit began later (%s).", state_words(began)));
	else if (switches.ended != NULL)
		add_obstacle(&way, switches.ended, psprintf("It was not audited then (%s).",
													state_words(switches.ended)));
	if (switches.disabled != NULL)
		add_obstacle(&way, switches.disabled, psprintf("Its triggers were disabled then (%s).",
													   state_words(switches.disabled)));
	if (in_force != NULL)
		look_at_settings(&way, in_force);

	for (int i = 0; i < states->n; i++)
	{
		const AlState *state = &states->states[i];

		if (!is_later(state, moment))
			continue;
		look_at_later(&way, state);
		if (in_force == NULL || !same_settings(state, in_force))
			look_at_settings(&way, state);
		in_force = state;
	}
	if (way.obstacles == NIL && !is_captured_now(states))
		add_obstacle(&way, NULL, "Its trigger audit_log_row is missing, or disabled, since an unknown time.");
	*went = way.went;
	return way.obstacles;
}

void
al_states_refuse(const AlStates *states, const AlMoment *moment, List *obstacles)
{
	StringInfoData detail;
	ListCell   *lc;

	if (obstacles == NIL)
		return;
	initStringInfo(&detail);
	foreach(lc, obstacles)
		appendStringInfo(&detail, "%s%s", detail.len ? "\n" : "", ((AlObstacle *) lfirst(lc))->what);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the log cannot tell what table %s was at %s", states->name, moment->text),
			 errdetail_internal("%s", detail.data),
			 errhint("audit_log.audit_logs shows what was logged.")));
}

/* ---- for histories ---- */

/* May rows have changed without a trace, from this state on? */
static bool
is_gap(const AlState *state)
{
	bool		ends;
	AlValue		value;
	char	   *reason = text_member(state->detail, "reason");

	if (kind_is(state, "disabled") || kind_is(state, "paused") ||
		kind_is(state, "partition detached"))
		return true;
	if (kind_is(state, "partition attached"))
		return !find_member(state->detail, "empty", &value) || value.kind != AL_BOOL || !value.boolean;
	return kind_is(state, "gap") && !(gap_of_triggers(state, &ends) && ends) &&
		(reason == NULL || strcmp(reason, "history purged") != 0);
}

static bool
is_partial(const AlState *state)
{
	AlValue		value;

	return find_member(state->settings, "condition", &value) ||
		find_member(state->settings, "actions", &value);
}

const AlState *
al_states_gap(const AlStates *states, int64 from_change_id, int64 to_change_id)
{
	const AlState *before = al_states_at(states, from_change_id);

	/* between what was imported and what was captured nobody knows what has been */
	if (is_partial(before) ||
		(from_change_id < before->first_change_id && before->first_change_id <= to_change_id))
		return before;
	for (const AlState *state = before + 1; state < states->states + states->n &&
		 state->first_change_id <= to_change_id; state++)
		if (is_gap(state) || is_partial(state))
			return state;
	return NULL;
}

bool
al_states_same_ids(const AlStates *states)
{
	for (int i = 0; i < states->n; i++)
		if (states->states[i].era == 0 && !states->states[i].key_same_texts &&
			!states->states[i].key_masked)
			return false;
	return true;
}

TimestampTz
al_states_began(const AlStates *states, int64 change_id)
{
	for (int i = states->n - 1; i >= 0; i--)
		if (kind_is(&states->states[i], "enabled") && states->states[i].first_change_id <= change_id)
			return states->states[i].timestamp;
	return states->n > 0 ? states->states[0].timestamp : 0;
}
