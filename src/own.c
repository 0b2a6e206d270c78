/*
 * own.c
 *		Doing things as the owner of the log: what SECURITY DEFINER does, but
 *		for code that has looked at its caller's rights first.
 *
 * The guards on the log's tables let statements pass only in between.
 * Expressions of users are not evaluated there: whoever comes to one yields.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/rls.h"
#include "utils/syscache.h"

#include "audit_log.h"

const Node *al_own_command = NULL;

static int	depth = 0;
static AlOwn *innermost = NULL; /* on the stack of who entered */

bool
al_own_active(void)
{
	return depth > 0;
}

/* Put PG_TRY/PG_FINALLY round what stands between enter and leave. */
void
al_own_enter(AlOwn *saved)
{
	const AlCatalog *catalog = al_catalog_get();

	GetUserIdAndSecContext(&saved->user, &saved->context);
	saved->search_path = pstrdup(namespace_search_path);
	saved->gucnest = NewGUCNestLevel();
	SetUserIdAndSecContext(catalog->owner,
						   saved->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	al_fixed_set("search_path", "pg_catalog, pg_temp");
	/* our own rows are not subject to row security of anybody */
	al_fixed_set("row_security", "off");
	/* nor do names and texts that we compare, or our tables, follow his taste */
	al_fixed_set("quote_all_identifiers", "off");
	al_fixed_set("standard_conforming_strings", "on");
	al_fixed_set("default_tablespace", "");
	al_fixed_set("default_table_access_method", "heap");
	saved->depth = depth++;
	saved->outer = innermost;
	innermost = saved;
}

/* Ends what enter or yield began. */
void
al_own_leave(AlOwn *saved)
{
	depth = saved->depth;
	innermost = saved->outer;
	AtEOXact_GUC(true, saved->gucnest);
	SetUserIdAndSecContext(saved->user, saved->context);
}

/*
 * Back to the rights and the search_path of whoever called: what he wrote is
 * understood as he meant it, and does what he may do.
 */
void
al_own_yield_to_caller(AlOwn *saved)
{
	const AlOwn *outermost = innermost;

	while (outermost != NULL && outermost->outer != NULL)
		outermost = outermost->outer;
	GetUserIdAndSecContext(&saved->user, &saved->context);
	saved->gucnest = NewGUCNestLevel();
	saved->depth = depth;
	saved->outer = innermost;
	if (outermost == NULL)
		return;
	SetUserIdAndSecContext(outermost->user, outermost->context);
	al_fixed_set("search_path", outermost->search_path);
	depth = 0;
	innermost = NULL;
}

/* The same with another role's rights, as maintenance is done as a table's owner. */
void
al_own_yield_to(AlOwn *saved, Oid role)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	saved->gucnest = NewGUCNestLevel();
	saved->depth = depth;
	saved->outer = innermost;
	SetUserIdAndSecContext(role, saved->context | SECURITY_RESTRICTED_OPERATION);
	depth = 0;
	innermost = NULL;
}

/*
 * The log of a table is for whoever may read all of the table: every column,
 * with no row security in between.
 */
bool
al_own_may_read(Oid relid, Oid role)
{
	/* a view may see the row of a table that has just been dropped */
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		return false;
	if (pg_class_aclcheck(relid, role, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, role, ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		return false;
	return check_enable_rls(relid, role, true) != RLS_ENABLED;
}
