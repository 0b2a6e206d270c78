/*
 * condition.c
 *		The condition of a table: an expression over OLD and NEW by the rules
 *		of CREATE TRIGGER … WHEN, kept as text.
 *
 * In the text every name is qualified, so it is parsed under the fixed
 * settings and means the same in every session.  It is evaluated as the
 * writing role and under that role's own settings.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_clause.h"
#include "parser/parse_collate.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "rewrite/rewriteManip.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "audit_log.h"

#define OLD_VARNO 1
#define NEW_VARNO 2

struct AlCondition
{
	MemoryContext cxt;			/* holds it all */
	bool		busy;			/* being evaluated */
	ExprState  *state;
	EState	   *estate;
	Oid			user;			/* whose rights to functions were checked */
};

typedef struct Parsed
{
	Relation	rel;
	const char *text;
} Parsed;

/* The parser's positions are in the condition, not in the statement. */
static void
report_condition(void *arg)
{
	Parsed	   *parsed = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(parsed->text);
	}
	errcontext("condition of audited table \"%s\"",
			   RelationGetRelationName(parsed->rel));
}

/* The one expression that text holds. */
static Node *
raw_expression(const char *text)
{
	List	   *tree = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = (SelectStmt *) linitial_node(RawStmt, tree)->stmt;

	if (!IsA(select, SelectStmt) || list_length(tree) != 1 ||
		list_length(select->targetList) != 1 || select->fromClause ||
		select->whereClause || select->groupClause || select->havingClause ||
		select->sortClause || select->limitCount || select->limitOffset ||
		select->distinctClause || select->windowClause || select->lockingClause ||
		select->op != SETOP_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("a condition must be one expression")));
	return linitial_node(ResTarget, select->targetList)->val;
}

static bool
check_vars(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varattno < 0 &&
		((Var *) node)->varattno != TableOidAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("a condition cannot refer to system columns")));
	return expression_tree_walker(node, check_vars, context);
}

/*
 * Parses under the session's own settings; OLD is range table entry 1, NEW is
 * 2.  Errors are the parser's, with the table in their context.
 */
static Node *
parse(Relation rel, const char *text)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;
	Node	   *expr;
	Parsed		parsed = {.rel = rel,.text = text};
	ErrorContextCallback callback = {.callback = report_condition,.arg = &parsed,
	.previous = error_context_stack};

	error_context_stack = &callback;
	pstate->p_sourcetext = text;
	item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										 makeAlias("old", NIL), false, false);
	addNSItemToQuery(pstate, item, false, true, true);
	item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										 makeAlias("new", NIL), false, false);
	addNSItemToQuery(pstate, item, false, true, true);
	expr = transformWhereClause(pstate, raw_expression(text),
								EXPR_KIND_TRIGGER_WHEN, "WHEN");
	assign_expr_collations(pstate, expr);
	check_vars(expr, NULL);
	free_parsestate(pstate);
	error_context_stack = callback.previous;
	return expr;
}

/* A copy in which the old row's Vars stand one level up, for the deparser. */
static Node *
old_one_level_up(Node *node, void *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var		   *var = copyObject((Var *) node);

		var->varlevelsup = var->varno == OLD_VARNO ? 1 : 0;
		var->varno = 1;
		var->varnosyn = 1;
		return (Node *) var;
	}
	return expression_tree_mutator(node, old_one_level_up, context);
}

/*
 * The condition as it is kept: text as the caller understands it, every name
 * qualified.
 */
char *
al_condition_qualify(Relation rel, const char *text)
{
	Node	   *expr = parse(rel, text);
	List	   *namespaces;
	AlFixed		saved;
	char	   *volatile result = NULL;

	namespaces = list_concat(deparse_context_for("new", RelationGetRelid(rel)),
							 deparse_context_for("old", RelationGetRelid(rel)));
	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		result = deparse_expression(old_one_level_up(expr, NULL), namespaces,
									true, false);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return result;
}

static Node *
parse_fixed(Relation rel, const char *text)
{
	AlFixed		saved;
	Node	   *volatile expr = NULL;

	al_fixed_enter(&saved, AL_FIXED_ALL);
	PG_TRY();
	{
		expr = parse(rel, text);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return expr;
}

static struct AlCondition *
prepare(Relation rel, const char *text)
{
	MemoryContext cxt = AllocSetContextCreate(TopTransactionContext,
											  "audit_log condition",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	struct AlCondition *condition = palloc0(sizeof(struct AlCondition));
	Node	   *expr = parse_fixed(rel, text);

	/* as core does for WHEN: OLD is the inner tuple, NEW the outer one */
	ChangeVarNodes(expr, OLD_VARNO, INNER_VAR, 0);
	ChangeVarNodes(expr, NEW_VARNO, OUTER_VAR, 0);
	condition->cxt = cxt;
	condition->estate = CreateExecutorState();
	condition->user = GetUserId();
	condition->state = ExecPrepareQual(make_ands_implicit((Expr *) expr), condition->estate);
	MemoryContextSwitchTo(old);
	return condition;
}

static void
release(struct AlCondition *condition)
{
	FreeExecutorState(condition->estate);
	MemoryContextDelete(condition->cxt);
}

/* apart from its caller, whose variables a longjmp might clobber */
static pg_noinline bool
evaluate(struct AlCondition *condition, ExprContext *econtext)
{
	volatile bool result = false;

	condition->busy = true;
	PG_TRY();
	{
		result = ExecQual(condition->state, econtext);
	}
	PG_FINALLY();
	{
		condition->busy = false;
	}
	PG_END_TRY();
	return result;
}

/*
 * Does the condition hold?  The absent one of the rows is NULL and stands for
 * the other, so that NEW.x > 1 speaks of a deleted row too.  Prepared once a
 * transaction and role: functions may have been replaced, rights revoked.
 */
bool
al_condition_holds(AlTable *table, Relation rel,
				   TupleTableSlot *old, TupleTableSlot *new)
{
	ExprContext *econtext;
	struct AlCondition *volatile condition = table->condition;
	volatile bool result = false;

	/*
	 * A function in the condition may change the table: what is being
	 * evaluated cannot be evaluated for another row at the same time.
	 */
	if (condition == NULL || condition->user != GetUserId() || condition->busy)
	{
		struct AlCondition *other = condition;

		condition = prepare(rel, table->settings->condition);
		if (other == NULL || !other->busy)
			table->condition = condition;
		if (other != NULL && !other->busy)
			release(other);
	}
	econtext = GetPerTupleExprContext(condition->estate);
	ResetExprContext(econtext);
	econtext->ecxt_innertuple = old ? old : new;
	econtext->ecxt_outertuple = new ? new : old;
	result = evaluate(condition, econtext);
	if (table->condition != condition)
		release(condition);
	return result;
}
