/*
 * key_order.c
 *		An order of texts by length first, then by bytes; equality is text's own.
 *
 * The log's index by record is in this order: numbers as texts ascend in it as
 * the numbers do, so that rows written in the order of their keys come to
 * neighbouring places, and fill pages that are not split again.
 *
 * And it serves to say in the predicate of an index that a key is short, so
 * that the planner can prove it of a query's record_id = '…'.  A B-tree takes
 * no entry of more than a third of a page, and a record's id may be longer; of
 * ordinary keys it finds those of one table alone, which the hash index on
 * record_id cannot.  The planner proves such a predicate only by operators
 * that stand in one B-tree family with the query's "=".
 */
#include "postgres.h"

#include "fmgr.h"

#include "audit_log.h"

static int
compare(FunctionCallInfo fcinfo)
{
	text	   *a = PG_GETARG_TEXT_PP(0);
	text	   *b = PG_GETARG_TEXT_PP(1);
	int			alen = VARSIZE_ANY_EXHDR(a);
	int			blen = VARSIZE_ANY_EXHDR(b);
	int			result = alen < blen ? -1 : alen > blen ? 1 :
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), alen);

	PG_FREE_IF_COPY(a, 0);
	PG_FREE_IF_COPY(b, 1);
	return result < 0 ? -1 : result > 0 ? 1 : 0;
}

PG_FUNCTION_INFO_V1(audit_log_key_cmp);
Datum
audit_log_key_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(fcinfo));
}

PG_FUNCTION_INFO_V1(audit_log_key_lt);
Datum
audit_log_key_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) < 0);
}

PG_FUNCTION_INFO_V1(audit_log_key_le);
Datum
audit_log_key_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) <= 0);
}

PG_FUNCTION_INFO_V1(audit_log_key_ge);
Datum
audit_log_key_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) >= 0);
}

PG_FUNCTION_INFO_V1(audit_log_key_gt);
Datum
audit_log_key_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) > 0);
}
