/*
 * own.c
 *		Doing things as the owner of the log: what SECURITY DEFINER does, but
 *		for code that has looked at its caller's rights first.
 *
 * The guards on the log's tables let statements pass only in between.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"
#include "utils/rls.h"

#include "audit_log.h"

static int	depth = 0;

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
	saved->gucnest = NewGUCNestLevel();
	SetUserIdAndSecContext(catalog->owner,
						   saved->context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* our own rows are not subject to row security of anybody */
	(void) set_config_option("row_security", "off", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	depth++;
}

void
al_own_leave(AlOwn *saved)
{
	depth--;
	AtEOXact_GUC(true, saved->gucnest);
	SetUserIdAndSecContext(saved->user, saved->context);
}

/*
 * The log of a table is for whoever may read all of the table: every column,
 * with no row security in between.
 */
bool
al_own_may_read(Oid relid, Oid role)
{
	if (pg_class_aclcheck(relid, role, ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, role, ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		return false;
	return check_enable_rls(relid, role, true) != RLS_ENABLED;
}
