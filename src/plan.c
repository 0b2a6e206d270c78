/*
 * plan.c
 *		What taking back is to make of rows: a plan has tables, a table has rows,
 *		one for each record concerned.  Here it is kept, and from a row as it
 *		stands and its aim (revert.c) decided what is to be done.
 *
 * A plan lives in a memory context of its own, in memory only: so the rows that
 * are taken back at once, before and after, must fit there.
 *
 * No SPI, no snapshots: who makes a plan looks at tables and the log.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/htup_details.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"

#include "audit_log.h"

typedef struct AlPlanColumn
{
	char	   *name;
	int			namelen;
	AttrNumber	attnum;
} AlPlanColumn;

typedef struct IdEntry
{
	const char *id;				/* hash key: pointer to the text */
	AlPlanRow  *row;
} IdEntry;

/* ---- tables ---- */

static int
compare_columns(const void *a, const void *b)
{
	const AlPlanColumn *x = (const AlPlanColumn *) a;
	const AlPlanColumn *y = (const AlPlanColumn *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

/* The number of today's column of that name, 0: none. */
AttrNumber
al_plan_column(const AlPlanTable *table, const char *name, int namelen)
{
	AlPlanColumn key = {unconstify(char *, name), namelen, 0};
	AlPlanColumn *found = bsearch(&key, table->columns, table->ncolumns,
								  sizeof(AlPlanColumn), compare_columns);

	return found ? found->attnum : InvalidAttrNumber;
}

static void
fill_columns(AlPlanTable *table)
{
	TupleDesc	desc = RelationGetDescr(table->rel);

	table->columns = palloc(sizeof(AlPlanColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		AlPlanColumn *column = &table->columns[table->ncolumns];

		if (att->attisdropped)
			continue;
		column->name = pstrdup(NameStr(att->attname));
		column->namelen = strlen(column->name);
		column->attnum = att->attnum;
		table->ncolumns++;
		if (att->attgenerated != '\0')
			table->generated = bms_add_member(table->generated, att->attnum);
		if (AL_ATT_IS_VIRTUAL(att))
			table->virtual = bms_add_member(table->virtual, att->attnum);
	}
	qsort(table->columns, table->ncolumns, sizeof(AlPlanColumn), compare_columns);
}

static void
fill_usable(AlPlanTable *table)
{
	for (int i = 0; i < table->table->ncolumns; i++)
		if (!table->table->columns[i].masked)
			table->usable = bms_add_member(table->usable, table->table->columns[i].attnum);
	for (int i = 0; i < table->ncolumns; i++)
		if (!bms_is_member(table->columns[i].attnum, table->usable) &&
			!bms_is_member(table->columns[i].attnum, table->generated))
			table->lost = bms_add_member(table->lost, table->columns[i].attnum);
}

/* rel stays open as long as the plan is used. */
AlPlanTable *
al_plan_add_table(AlPlan *plan, Relation rel, AlTable *table, int32 table_id)
{
	MemoryContext old = MemoryContextSwitchTo(plan->cxt);
	AlPlanTable *added = palloc0(sizeof(AlPlanTable));

	added->cxt = plan->cxt;
	added->scratch = AllocSetContextCreate(plan->cxt, "audit_log plan row", ALLOCSET_DEFAULT_SIZES);
	added->relid = RelationGetRelid(rel);
	added->table_id = table_id;
	added->name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											 RelationGetRelationName(rel));
	added->rel = rel;
	added->table = table;
	fill_columns(added);
	fill_usable(added);
	added->nkeys = table->nkeys;
	added->keys = palloc(sizeof(AttrNumber) * Max(table->nkeys, 1));
	for (int i = 0; i < table->nkeys; i++)
		added->keys[i] = table->keys[i]->attnum;
	added->decoder = al_decode_prepare(RelationGetDescr(rel), plan->cxt);
	added->by_id = al_texthash_create("audit_log plan", 256, sizeof(IdEntry), plan->cxt);
	plan->tables = lappend(plan->tables, added);
	MemoryContextSwitchTo(old);
	return added;
}

AlPlanTable *
al_plan_table(AlPlan *plan, Oid relid)
{
	ListCell   *lc;

	foreach(lc, plan->tables)
		if (((AlPlanTable *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

/* ---- rows ---- */

static void
enter_id(AlPlanRow *row)
{
	bool		found;
	IdEntry    *entry = hash_search(row->table->by_id, &row->id, HASH_ENTER, &found);

	row->same_id = found ? entry->row : NULL;
	entry->id = row->id;
	entry->row = row;
}

static void
leave_id(AlPlanRow *row)
{
	IdEntry    *entry = hash_search(row->table->by_id, &row->id, HASH_FIND, NULL);
	AlPlanRow **link;

	if (entry == NULL)
		return;
	for (link = &entry->row; *link != NULL && *link != row; link = &(*link)->same_id)
		;
	if (*link == NULL)
		return;
	*link = row->same_id;
	if (entry->row != NULL)
		entry->id = entry->row->id;
	else
		hash_search(row->table->by_id, &row->id, HASH_REMOVE, NULL);
}

/* A record; id is where its row is found now, NULL where there is none.  In plan memory. */
AlPlanRow *
al_plan_add_row(AlPlanTable *table, const char *id)
{
	AlPlanRow  *row = palloc0(sizeof(AlPlanRow));

	if (table->nrows == table->maxrows)
	{
		table->maxrows = Max(64, table->maxrows * 2);
		table->rows = table->rows == NULL ?
			palloc(sizeof(AlPlanRow *) * table->maxrows) :
			repalloc_huge(table->rows, sizeof(AlPlanRow *) * table->maxrows);
	}
	row->table = table;
	row->last = &row->steps;
	row->no = table->nrows;
	table->rows[table->nrows++] = row;
	if (id != NULL)
	{
		row->id = pstrdup(id);
		row->then_id = row->left_id = row->id;
		enter_id(row);
	}
	return row;
}

AlPlanRow *
al_plan_find_row(AlPlanTable *table, const char *id)
{
	IdEntry    *entry = hash_search(table->by_id, &id, HASH_FIND, NULL);

	return entry ? entry->row : NULL;
}

/* Its row is found under another id, or (NULL) not at all. */
void
al_plan_move_row(AlPlanRow *row, const char *id)
{
	if (row->id != NULL)
		leave_id(row);
	row->id = id ? pstrdup(id) : NULL;
	if (id != NULL)
		enter_id(row);
}

/* Steps come newest first. */
void
al_plan_add_step(AlPlanRow *row, AlPlanStep *step)
{
	*row->last = step;
	row->last = &step->earlier;
}

/* Forgets the rows that are not wanted. */
void
al_plan_keep_wanted(AlPlanTable *table)
{
	int			n = 0;

	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		if (!row->wanted)
		{
			al_plan_move_row(row, NULL);
			continue;
		}
		row->no = n;
		table->rows[n++] = row;
	}
	table->nrows = n;
}

void
al_plan_conflict(AlPlanRow *row, const char *text)
{
	MemoryContext old = MemoryContextSwitchTo(row->table->cxt);

	row->conflicts = lappend(row->conflicts, pstrdup(text));
	MemoryContextSwitchTo(old);
}

void
al_plan_leave_out(AlPlanRow *row, const char *text)
{
	al_plan_conflict(row, text);
	row->left_out = true;
	row->action = AL_PLAN_NONE;
}

void
al_plan_set_present(AlPlanRow *row, HeapTuple tuple, Oid tableoid, Jsonb *before)
{
	row->present = true;
	row->tuple = tuple;
	row->tableoid = tableoid;
	row->before = before;
}

/* A row itself as id, for tables without key. */
char *
al_plan_image_id(Jsonb *row, Jsonb **stripped)
{
	*stripped = al_pairs_without_nulls(row);
	return JsonbToCString(NULL, &(*stripped)->root, VARSIZE(*stripped));
}

/* A copy in the plan's memory. */
Jsonb *
al_plan_keep(AlPlanTable *table, Jsonb *json)
{
	MemoryContext old = MemoryContextSwitchTo(table->cxt);

	if (json != NULL)
		json = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(json));
	MemoryContextSwitchTo(old);
	return json;
}

/*
 * Runs work(arg); returns the message of what it raised, NULL where it did not.
 * For what users' types do with old values: in a subtransaction, since nobody
 * knows what that was.
 */
char *
al_plan_try(void (*work) (void *arg), void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	char	   *volatile message = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		/* a cancel, or a lack of memory, is no value's fault */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES)
			ReThrowError(error);
		message = pstrdup(error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return message;
}

/* ---- which row becomes which ---- */

/* The row's part that is now goes to another one, and the other's to it. */
static void
swap_present(AlPlanRow *a, AlPlanRow *b)
{
	AlPlanRow	swap = *a;

	a->id = b->id;
	a->present = b->present;
	a->tuple = b->tuple;
	a->tableoid = b->tableoid;
	a->before = b->before;
	b->id = swap.id;
	b->present = swap.present;
	b->tuple = swap.tuple;
	b->tableoid = swap.tableoid;
	b->before = swap.before;
}

/*
 * Of a table without key rows are told apart by their images alone: one that
 * looks as another is to look stands for it, and nothing is written.
 */
static void
pair_images(AlPlanTable *table)
{
	char	  **aims = palloc0(sizeof(char *) * Max(table->nrows, 1));
	Jsonb	   *stripped;

	for (int i = 0; i < table->nrows; i++)
		if (table->rows[i]->aim != NULL && !table->rows[i]->left_out)
			aims[i] = al_plan_image_id(table->rows[i]->aim, &stripped);
	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];
		AlPlanRow  *other;

		if (aims[i] == NULL || (row->present && strcmp(row->id, aims[i]) == 0))
			continue;
		/* any but those that look so already, and are to */
		other = al_plan_find_row(table, aims[i]);
		while (other != NULL &&
			   (other == row || !other->present || other->left_out ||
				(aims[other->no] != NULL && strcmp(other->id, aims[other->no]) == 0)))
			other = other->same_id;
		if (other == NULL)
			continue;
		if (row->id != NULL)
			leave_id(row);
		leave_id(other);
		swap_present(row, other);
		enter_id(row);
		if (other->id != NULL)
			enter_id(other);
	}
}

static bool
is_key(const AlPlanTable *table, AttrNumber attnum)
{
	for (int i = 0; i < table->table->nkeys; i++)
		if (table->table->keys[i]->attnum == attnum)
			return true;
	return false;
}

/* Is part of the key a generated column, which no aim tells before it is computed? */
static bool
key_is_computed(const AlPlanTable *table)
{
	for (int i = 0; i < table->nkeys; i++)
		if (bms_is_member(table->keys[i], table->generated))
			return true;
	return false;
}

/* Is the row to have the key that it has?  Others have changed it since. */
static bool
keeps_key(const AlPlanRow *row)
{
	AlJsonWalk	a;
	AlJsonWalk	b;
	int			cmp = 0;

	if (!row->present)
		return false;
	if (key_is_computed(row->table) &&
		(row->left_id == NULL || strcmp(row->left_id, row->then_id) != 0))
		return false;
	al_jsonwalk_begin(&a, &row->before->root);
	al_jsonwalk_begin(&b, &row->aim->root);
	for (;;)
	{
		AlJsonWalk *at;

		if (cmp <= 0)
			al_jsonwalk_next(&a);
		if (cmp >= 0)
			al_jsonwalk_next(&b);
		if (a.key == NULL && b.key == NULL)
			return true;
		cmp = al_jsonwalk_cmp(&a, &b);
		at = cmp <= 0 ? &a : &b;
		if (is_key(row->table, al_plan_column(row->table, at->key, at->keylen)) &&
			!al_pairs_same(cmp <= 0 ? &a.value : NULL, cmp >= 0 ? &b.value : NULL, true))
			return false;
	}
}

/*
 * A row whose key is there now and then is written under that key, whichever
 * record it was: so no key is deleted or changed that a row is to have, and
 * actions of foreign keys hit no child that is written.  What is left are keys
 * that no row has then, and keys that none has now: a record whose key was
 * changed from the one to the other gets it back by an UPDATE, so that its
 * children stay its own.
 */
void
al_plan_pair(AlPlanTable *table)
{
	if (table->nkeys == 0)
	{
		pair_images(table);
		return;
	}
	for (int i = 0; i < table->nrows; i++)
	{
		AlPlanRow  *row = table->rows[i];

		/* the row with its key, once found, leaves it for no other */
		while (row->aim != NULL && !row->left_out && row->then_id != NULL &&
			   !(row->present && strcmp(row->id, row->then_id) == 0))
		{
			AlPlanRow  *other = al_plan_find_row(table, row->then_id);

			if (other == NULL || other == row || !other->present || other->left_out || keeps_key(row))
				break;
			if (row->id != NULL)
				leave_id(row);
			leave_id(other);
			swap_present(row, other);
			enter_id(row);
			if (other->id != NULL)
				enter_id(other);
		}
	}
}

/* ---- what is to be done ---- */

static void
add_names(AlPlanRow *row, List *names, const char *one, const char *more)
{
	StringInfoData buf;
	ListCell   *lc;

	if (names == NIL)
		return;
	initStringInfo(&buf);
	appendStringInfoString(&buf, list_length(names) == 1 ? "column" : "columns");
	foreach(lc, names)
		appendStringInfo(&buf, "%s \"%s\"", lc == list_head(names) ? "" : ",", (char *) lfirst(lc));
	appendStringInfo(&buf, " %s", list_length(names) == 1 ? one : more);
	al_plan_conflict(row, buf.data);
}

static List *
add_new_names(List *names, List *more)
{
	ListCell   *lc;

	foreach(lc, more)
	{
		ListCell   *known;
		bool		found = false;

		foreach(known, names)
			found |= strcmp(lfirst(known), lfirst(lc)) == 0;
		if (!found)
			names = lappend(names, lfirst(lc));
	}
	return names;
}

/* What the log had of columns that are gone, and columns that it never had. */
static void
report_columns(AlPlanRow *row)
{
	AlPlanTable *table = row->table;
	List	   *gone = NIL;
	List	   *unreadable = NIL;
	List	   *lost_names = NIL;
	Bitmapset  *lost = NULL;
	int			attnum = -1;

	for (AlPlanStep *step = row->steps; step; step = step->earlier)
	{
		/* of a row that was inserted nothing is put back */
		if (step->action == AL_INSERT)
			continue;
		gone = add_new_names(gone, step->gone);
		unreadable = add_new_names(unreadable, step->unreadable);
		lost = bms_add_members(lost, step->lost);
		lost = bms_add_members(lost, bms_intersect(table->lost, step->columns));
	}
	add_names(row, gone, "is gone", "are gone");
	add_names(row, unreadable, "has another type, which does not read the former value",
			  "have other types, which do not read the former values");
	while ((attnum = bms_next_member(lost, attnum)) >= 0)
		lost_names = lappend(lost_names, NameStr(TupleDescAttr(RelationGetDescr(table->rel), attnum - 1)->attname));
	add_names(row, lost_names, "is not in the log, and is not restored",
			  "are not in the log, and are not restored");
}

/* The same as al_plan_column(), for one after the other in jsonb's key order. */
static AttrNumber
column_at(const AlPlanTable *table, int *next, const AlJsonWalk *at)
{
	int			cmp = 1;

	while (*next < table->ncolumns &&
		   (cmp = al_jsonbuild_key_cmp(table->columns[*next].name, table->columns[*next].namelen,
									   at->key, at->keylen)) < 0)
		(*next)++;
	return *next < table->ncolumns && cmp == 0 ? table->columns[*next].attnum : InvalidAttrNumber;
}

/*
 * Which columns differ between the row and its aim, and can be set.  The aim is
 * brought to what the row will be: columns that are not set keep their value.
 */
static void
compare_with_aim(AlPlanRow *row, Bitmapset *known)
{
	AlPlanTable *table = row->table;
	Jsonb	   *before = row->present ? row->before : al_pairs_empty();
	AlPairs	   *result = al_pairs_room(before, row->aim);
	AlJsonWalk	a;
	AlJsonWalk	b;
	int			cmp = 0;
	int			next = 0;		/* column: both sides come in their order */
	bool		same = true;	/* the result is the aim as it is */

	al_jsonwalk_begin(&a, &before->root);
	al_jsonwalk_begin(&b, &row->aim->root);
	for (;;)
	{
		AlJsonWalk *at;
		AttrNumber	attnum;

		if (cmp <= 0)
			al_jsonwalk_next(&a);
		if (cmp >= 0)
			al_jsonwalk_next(&b);
		if (a.key == NULL && b.key == NULL)
			break;
		cmp = al_jsonwalk_cmp(&a, &b);
		at = cmp <= 0 ? &a : &b;
		attnum = column_at(table, &next, at);
		if (bms_is_member(attnum, table->generated) || bms_is_member(attnum, known))
		{
			/* generated ones are computed anew; until then what the log says */
			if (bms_is_member(attnum, known) &&
				!al_pairs_same(cmp <= 0 ? &a.value : NULL, cmp >= 0 ? &b.value : NULL, true))
				row->columns = bms_add_member(row->columns, attnum);
			if (cmp >= 0)
				al_pairs_add(result, &b);
		}
		else
		{
			same = false;
			/* what has no column any more is reported by its step */
			if (attnum != InvalidAttrNumber && cmp <= 0)
				al_pairs_add(result, &a);
		}
	}
	if (!same)
		row->aim = al_plan_keep(table, al_pairs_object(result));
}

/* The columns whose values in the aim are the row's own. */
static Bitmapset *
known_columns(const AlPlanRow *row)
{
	Bitmapset  *known = bms_difference(row->table->usable, row->table->generated);

	for (AlPlanStep *step = row->steps; step; step = step->earlier)
		if (step->action == AL_DELETE)
			known = bms_int_members(known, step->columns);
	return known;
}

/* In scratch memory. */
static void
decide(AlPlanRow *row)
{
	Bitmapset  *known;

	if (row->left_out)
		return;
	if (row->aim == NULL)
	{
		row->action = row->present ? AL_PLAN_DELETE : AL_PLAN_NONE;
		return;
	}
	known = known_columns(row);
	compare_with_aim(row, known);
	if (!row->present)
	{
		row->action = AL_PLAN_INSERT;
		/* those that are NULL, too; one that was added since gets its default */
		row->columns = known;
	}
	else if (!bms_is_empty(row->columns))
		row->action = AL_PLAN_UPDATE;
	report_columns(row);
}

/* From the row as it stands to what is to be done with it. */
void
al_plan_decide(AlPlanRow *row)
{
	MemoryContext old = MemoryContextSwitchTo(row->table->scratch);

	decide(row);
	MemoryContextSwitchTo(row->table->cxt);
	row->columns = bms_copy(row->columns);
	MemoryContextSwitchTo(old);
	MemoryContextReset(row->table->scratch);
}

