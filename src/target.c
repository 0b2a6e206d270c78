/*
 * target.c
 *		A relation of ours into which rows are written, a batch at a time: the
 *		heap by multi-insert, then each index in turn.
 *
 * What that needs is made once and kept for the life of the backend: the
 * description of the indexes, compiled predicates and expressions, slots.
 * Relations and indexes are opened for each batch under the statement's own
 * locks; of the indexes only those that get an entry, for most partial ones of
 * the log get none.
 *
 * The relcache callback (table.c) only marks a target; it is made anew when it
 * is opened next.  A target that an error left open is not used again: its
 * slots hold rows of a memory that is gone.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/pg_am.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* from so many rows on, a batch keeps its last page pinned in between */
#define AL_TARGET_BULK 100

typedef struct TargetIndex
{
	Oid			relid;
	IndexInfo  *index;
	ResultRelInfo *info;		/* of this index alone */
	bool		by_page;		/* a summary of pages: see insert_by_page() */
} TargetIndex;

typedef struct Rows
{
	int			n;
	int			room;
	TupleTableSlot **slots;		/* each keeps a place for its values from use
								 * to use */
} Rows;

struct AlTarget
{
	Oid			relid;			/* hash key of kept targets */
	bool		valid;
	bool		kept;
	bool		open;			/* in opened_in */
	SubTransactionId opened_in;
	MemoryContext cxt;			/* of all that follows */
	TupleDesc	desc;			/* not counted by any resource owner */
	EState	   *estate;
	int			nindexes;
	TargetIndex *indexes;

	/* the batch; empty where no target is open */
	Rows		added;
	Rows		updated;		/* in the heap already */
	AL_INDEXES_TO_UPDATE *which;	/* indexes that each of these needs */
	int			entry_room;
	TupleTableSlot **entries;	/* rows of which one index gets entries */

	/* while open */
	Relation	rel;
	Oid			user;
	int			security;
};

typedef struct KeptTarget
{
	Oid			relid;
	AlTarget   *target;
} KeptTarget;

static HTAB *targets = NULL;
static int	nopen = 0;			/* how many are open, of whatever kind */
static uint64 forgotten = 0;	/* how often any was to be forgotten */

/* ---- making a target ---- */

/*
 * Does the index keep the least and the greatest value of each range of pages,
 * of columns that are integers inside?  Then of a page's rows only those with the
 * extremes need to be entered.
 */
static bool
is_summary(Relation index)
{
	if (index->rd_rel->relam != BRIN_AM_OID ||
		RelationGetIndexExpressions(index) != NIL ||
		RelationGetIndexPredicate(index) != NIL)
		return false;
	for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
	{
		Oid			type = TupleDescAttr(RelationGetDescr(index), i)->atttypid;

		if (index_getprocid(index, i + 1, 1) != F_BRIN_MINMAX_OPCINFO ||
			index->rd_index->indkey.values[i] <= 0 ||
			(type != INT8OID && type != INT2OID && type != TIMESTAMPTZOID))
			return false;
	}
	return true;
}

/*
 * Everything about rel that stays; in the target's own memory.  Indexes that
 * evaluate nothing come first: what the others evaluate may look for the very
 * rows of the batch.
 */
static void
prepare(AlTarget *target, Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	int			nplain = 0;
	ListCell   *lc;

	target->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	target->estate = CreateExecutorState();
	target->indexes = palloc0(sizeof(TargetIndex) * Max(list_length(indexes), 1));
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), RowExclusiveLock);
		bool		evaluates = RelationGetIndexExpressions(index) != NIL ||
			RelationGetIndexPredicate(index) != NIL;
		TargetIndex *place = &target->indexes[evaluates ? target->nindexes : nplain++];

		memmove(place + 1, place,
				(char *) &target->indexes[target->nindexes++] - (char *) place);
		memset(place, 0, sizeof(TargetIndex));
		place->relid = lfirst_oid(lc);
		place->index = BuildIndexInfo(index);
		if (place->index->ii_Predicate)
			place->index->ii_PredicateState = ExecPrepareQual(place->index->ii_Predicate,
															  target->estate);
		place->by_page = is_summary(index);
		place->info = makeNode(ResultRelInfo);
		InitResultRelInfo(place->info, rel, 1, NULL, 0);
		place->info->ri_RelationDesc = NULL;
		place->info->ri_NumIndices = 1;
		place->info->ri_IndexRelationDescs = palloc0(sizeof(Relation));
		place->info->ri_IndexRelationInfo = palloc(sizeof(IndexInfo *));
		place->info->ri_IndexRelationInfo[0] = place->index;
		index_close(index, NoLock);
	}
}

/* The slot of the row that comes next, empty; the caller counts it when it is there. */
static TupleTableSlot *
next_slot(AlTarget *target, Rows *rows)
{
	if (rows->n == rows->room)
	{
		MemoryContext old = MemoryContextSwitchTo(target->cxt);
		int			room = Max(2 * rows->room, 1);

		rows->slots = rows->slots ?
			repalloc(rows->slots, sizeof(TupleTableSlot *) * room) :
			palloc(sizeof(TupleTableSlot *) * room);
		if (rows == &target->updated)
			target->which = target->which ?
				repalloc(target->which, sizeof(*target->which) * room) :
				palloc(sizeof(*target->which) * room);
		while (rows->room < room)
			rows->slots[rows->room++] =
				MakeSingleTupleTableSlot(target->desc, &TTSOpsHeapTuple);
		MemoryContextSwitchTo(old);
	}
	return rows->slots[rows->n];
}

static void
clear_rows(Rows *rows)
{
	while (rows->n > 0)
		ExecClearTuple(rows->slots[--rows->n]);
}

static AlTarget *
make_target(Relation rel, MemoryContext parent, AlTargetCheck check)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "audit_log target",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	AlTarget   *target = palloc0(sizeof(AlTarget));

	target->relid = RelationGetRelid(rel);
	target->cxt = cxt;
	PG_TRY();
	{
		check(rel);
		prepare(target, rel);
	}
	PG_CATCH();
	{
		MemoryContextDelete(cxt);
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return target;
}

/* ---- keeping them ---- */

void
al_target_init(void)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(KeptTarget)};

	targets = hash_create("audit_log targets", 16, &ctl, HASH_ELEM | HASH_BLOBS);
}

/* Called by the relcache callback: InvalidOid is any relation. */
void
al_target_forget(Oid relid)
{
	HASH_SEQ_STATUS seq;
	KeptTarget *entry;

	forgotten++;
	hash_seq_init(&seq, targets);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		AlTarget   *target = entry->target;
		bool		concerned = relid == InvalidOid || relid == entry->relid;

		for (int i = 0; i < target->nindexes && !concerned; i++)
			concerned = target->indexes[i].relid == relid;
		if (concerned)
			target->valid = false;
	}
}

/* Those that were forgotten, and are of no use any more. */
static void
drop_forgotten(void)
{
	HASH_SEQ_STATUS seq;
	KeptTarget *entry;

	hash_seq_init(&seq, targets);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		AlTarget   *target = entry->target;

		if (target->valid || target->open)
			continue;
		hash_search(targets, &entry->relid, HASH_REMOVE, NULL);
		MemoryContextDelete(target->cxt);
	}
}

/*
 * The target kept for rel, made if need be.  One that is in use further up the
 * stack (what an index evaluates may write) is left alone: the caller gets one
 * for himself.
 */
static AlTarget *
get_target(Relation rel, AlTargetCheck check)
{
	Oid			relid = RelationGetRelid(rel);
	KeptTarget *entry = hash_search(targets, &relid, HASH_FIND, NULL);
	AlTarget   *target;
	uint64		before = forgotten;
	bool		found;

	if (entry != NULL && entry->target->open)
		return make_target(rel, TopTransactionContext, check);
	if (entry != NULL && entry->target->valid)
		return entry->target;

	/*
	 * Looking at indexes takes locks, and that reads invalidations: one that
	 * comes meanwhile (an index is ready for entries now) may be about what
	 * has been looked at already.  Then the target serves this once: whoever
	 * makes an index waits for the transactions that have not seen it.
	 */
	drop_forgotten();
	target = make_target(rel, TopMemoryContext, check);
	target->kept = true;
	target->valid = forgotten == before;
	entry = hash_search(targets, &relid, HASH_ENTER, &found);
	if (found)					/* what a predicate folds may have written */
		MemoryContextDelete(entry->target->cxt);
	entry->target = target;
	return target;
}

/* ---- writing ---- */

/*
 * Locks and opens the relation.  check, which sees it when it is new or has
 * changed, refuses one that does not have the columns that will be written.
 */
AlTarget *
al_target_open(Oid relid, AlTargetCheck check)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	AlTarget   *target;
	Oid			user;
	int			security;

	/*
	 * What indexes evaluate, and what is compiled for it, is the owner's of the
	 * relation: nothing that can be revoked stands between a change and its
	 * log.  An error restores the user with the (sub)transaction.
	 */
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	target = get_target(rel, check);

	nopen++;
	target->open = true;
	target->opened_in = GetCurrentSubTransactionId();
	target->rel = rel;
	target->user = user;
	target->security = security;
	return target;
}

/* A row for the batch; takes the tuple over, which has a palloc'd chunk of its own. */
void
al_target_add(AlTarget *target, HeapTuple tuple)
{
	ExecStoreHeapTuple(tuple, next_slot(target, &target->added), true);
	target->added.n++;
}

/*
 * Puts tuple, which is taken over, in the place of the row at tid, that no
 * other transaction changes.  Indexes get their entries with the batch.
 */
void
al_target_update(AlTarget *target, ItemPointer tid, HeapTuple tuple)
{
	TupleTableSlot *slot = next_slot(target, &target->updated);

	ExecStoreHeapTuple(tuple, slot, true);
	simple_table_tuple_update(target->rel, tid, slot, SnapshotSelf,
							  &target->which[target->updated.n]);
	target->updated.n++;
}

/* Does the index get an entry of any of the n rows? */
static bool
is_wanted(AlTarget *target, const TargetIndex *index, TupleTableSlot **slots, int n)
{
	ExprContext *econtext = GetPerTupleExprContext(target->estate);
	bool		wanted = false;

	if (index->index->ii_Predicate == NIL)
		return true;
	for (int i = 0; i < n && !wanted; i++)
	{
		econtext->ecxt_scantuple = slots[i];
		wanted = ExecQual(index->index->ii_PredicateState, econtext);
		ResetExprContext(econtext);
	}
	return wanted;
}

static void
insert_one(AlTarget *target, TargetIndex *index, TupleTableSlot *slot)
{
	list_free(AL_INSERT_INDEX_TUPLES(index->info, slot, target->estate));
	ResetPerTupleExprContext(target->estate);
}

/*
 * Of rows that follow each other on one page only those with the least and the
 * greatest value of each column, and one NULL: what lies between adds nothing to
 * the summary of the page's range.  And the first row of a page, by which an
 * index with autosummarize sees that the range before it is complete.
 */
static void
insert_by_page(AlTarget *target, TargetIndex *index, TupleTableSlot **slots, int n)
{
	int			ncolumns = index->index->ii_NumIndexKeyAttrs;

	for (int start = 0, end; start < n; start = end)
	{
		BlockNumber block = ItemPointerGetBlockNumber(&slots[start]->tts_tid);
		Bitmapset  *extremes = NULL;
		int			row = -1;

		if (ItemPointerGetOffsetNumber(&slots[start]->tts_tid) == FirstOffsetNumber)
			extremes = bms_make_singleton(0);
		end = start + 1;
		while (end < n && ItemPointerGetBlockNumber(&slots[end]->tts_tid) == block)
			end++;
		for (int column = 0; column < ncolumns; column++)
		{
			AttrNumber	attnum = index->index->ii_IndexAttrNumbers[column];
			Oid			type = TupleDescAttr(target->desc, attnum - 1)->atttypid;
			int			least = -1;
			int			greatest = -1;
			int			null = -1;
			int64		min = 0;
			int64		max = 0;

			for (int i = start; i < end; i++)
			{
				bool		isnull;
				Datum		datum = slot_getattr(slots[i], attnum, &isnull);
				int64		value;

				if (isnull)
				{
					null = i;
					continue;
				}
				value = type == INT2OID ? DatumGetInt16(datum) : DatumGetInt64(datum);
				if (least < 0 || value < min)
				{
					least = i;
					min = value;
				}
				if (greatest < 0 || value > max)
				{
					greatest = i;
					max = value;
				}
			}
			if (null >= 0)
				extremes = bms_add_member(extremes, null - start);
			if (least >= 0)
			{
				extremes = bms_add_member(extremes, least - start);
				extremes = bms_add_member(extremes, greatest - start);
			}
		}
		while ((row = bms_next_member(extremes, row)) >= 0)
			insert_one(target, index, slots[start + row]);
		bms_free(extremes);
	}
}

static void
insert_index(AlTarget *target, TargetIndex *index, TupleTableSlot **slots, int n)
{
	Relation	rel = index_open(index->relid, RowExclusiveLock);

	/* what the access method keeps in between must not outlive the batch */
	index->index->ii_Context = CurrentMemoryContext;
	index->index->ii_AmCache = NULL;
	index->info->ri_RelationDesc = target->rel;
	index->info->ri_IndexRelationDescs[0] = rel;
	if (index->by_page && n > 1)
		insert_by_page(target, index, slots, n);
	else
		for (int i = 0; i < n; i++)
			insert_one(target, index, slots[i]);
	AL_INDEX_INSERT_CLEANUP(rel, index->index);
	index->info->ri_RelationDesc = NULL;
	index->info->ri_IndexRelationDescs[0] = NULL;
	index_close(rel, NoLock);	/* the lock stays until the transaction ends */
}

/* The rows of the batch of which the index gets entries, in target->entries; how many. */
static int
collect_entries(AlTarget *target, const TargetIndex *index)
{
	int			n = 0;

	for (int i = 0; i < target->updated.n; i++)
		if (AL_INDEX_TO_UPDATE(target->which[i], index->index))
			target->entries[n++] = target->updated.slots[i];
	for (int i = 0; i < target->added.n; i++)
		target->entries[n++] = target->added.slots[i];
	return is_wanted(target, index, target->entries, n) ? n : 0;
}

/* Writes the batch, and forgets it. */
void
al_target_write(AlTarget *target)
{
	int			added = target->added.n;
	int			all = added + target->updated.n;

	if (all == 0)
		return;
	if (added == 1)
		table_tuple_insert(target->rel, target->added.slots[0], GetCurrentCommandId(true), 0, NULL);
	else if (added > 1)
	{
		BulkInsertState bulk = added > AL_TARGET_BULK ? GetBulkInsertState() : NULL;

		table_multi_insert(target->rel, target->added.slots, added, GetCurrentCommandId(true), 0, bulk);
		if (bulk)
			FreeBulkInsertState(bulk);
	}

	if (target->entry_room < all)
	{
		if (target->entries)
			pfree(target->entries);
		target->entries = NULL;
		target->entries = MemoryContextAlloc(target->cxt, sizeof(TupleTableSlot *) * 2 * all);
		target->entry_room = 2 * all;
	}
	for (int i = 0; i < target->nindexes; i++)
	{
		int			n = collect_entries(target, &target->indexes[i]);

		if (n > 0)
			insert_index(target, &target->indexes[i], target->entries, n);
	}
	clear_rows(&target->added);
	clear_rows(&target->updated);
}

Relation
al_target_relation(const AlTarget *target)
{
	return target->rel;
}

/* For forming tuples. */
TupleDesc
al_target_desc(const AlTarget *target)
{
	return target->desc;
}

void
al_target_close(AlTarget *target)
{
	SetUserIdAndSecContext(target->user, target->security);
	table_close(target->rel, NoLock);
	target->rel = NULL;
	target->open = false;
	nopen--;
	if (!target->kept)
		MemoryContextDelete(target->cxt);
}

/* ---- following the transaction ---- */

/*
 * Those that an error left open; InvalidSubTransactionId: in whatever level.
 * nopen may stay too high for a while: it only says whether to look.
 */
static void
abandon(SubTransactionId subid)
{
	HASH_SEQ_STATUS seq;
	KeptTarget *entry;

	if (nopen == 0)
		return;
	hash_seq_init(&seq, targets);
	while ((entry = hash_seq_search(&seq)) != NULL)
		if (entry->target->open &&
			(subid == InvalidSubTransactionId || entry->target->opened_in == subid))
		{
			entry->target->open = false;
			entry->target->valid = false;
		}
}

void
al_target_end_transaction(void)
{
	abandon(InvalidSubTransactionId);
	nopen = 0;
}

void
al_target_abort_sub(SubTransactionId subid)
{
	abandon(subid);
}
