/*
 * virtual.c
 *		Generated columns that are computed when read (PostgreSQL 18): of rows
 *		that no query has read they are computed here.
 *
 * Lives in the memory it was prepared in.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "audit_log.h"

struct AlVirtual
{
	EState	   *estate;
	int			n;
	AttrNumber *attnums;
	ExprState **states;
};

/* NULL: the table has none. */
AlVirtual *
al_virtual_prepare(Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	AlVirtual  *virtual = NULL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		MemoryContext old;

		if (att->attisdropped || !AL_ATT_IS_VIRTUAL(att))
			continue;
		if (virtual == NULL)
		{
			virtual = palloc0(sizeof(AlVirtual));
			virtual->estate = CreateExecutorState();
			virtual->attnums = palloc(sizeof(AttrNumber) * desc->natts);
			virtual->states = palloc(sizeof(ExprState *) * desc->natts);
		}
		virtual->attnums[virtual->n] = att->attnum;
		old = MemoryContextSwitchTo(virtual->estate->es_query_cxt);
		virtual->states[virtual->n++] =
			ExecPrepareExpr((Expr *) AL_GENERATION_EXPRESSION(rel, att->attnum), virtual->estate);
		MemoryContextSwitchTo(old);
	}
	return virtual;
}

/* Fills in the columns of a virtual slot that holds a row. */
void
al_virtual_compute(AlVirtual *virtual, TupleTableSlot *slot)
{
	ExprContext *econtext;

	if (virtual == NULL)
		return;
	ResetPerTupleExprContext(virtual->estate);
	econtext = GetPerTupleExprContext(virtual->estate);
	econtext->ecxt_scantuple = slot;
	for (int i = 0; i < virtual->n; i++)
	{
		int			attno = virtual->attnums[i] - 1;

		slot->tts_values[attno] = ExecEvalExpr(virtual->states[i], econtext,
											   &slot->tts_isnull[attno]);
	}
}

void
al_virtual_end(AlVirtual *virtual)
{
	if (virtual != NULL)
		FreeExecutorState(virtual->estate);
}
