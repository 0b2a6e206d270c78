/*
 * run.c
 *		Statements of taking back.  They see what is committed now, whatever the
 *		transaction's isolation level; where that is more than the transaction
 *		may see, what they would change ends in a serialization error, as it
 *		does for the checks of foreign keys.
 *
 * AFTER triggers are not fired by the statement, but when whoever has begun a
 * level of triggers ends it.
 *
 * The caller is connected to SPI.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

/* What is committed now, and what this transaction has done itself. */
Snapshot
al_run_snapshot(void)
{
	CommandCounterIncrement();
	return GetLatestSnapshot();
}

/* Rows processed; those of a SELECT are in SPI_tuptable. */
uint64
al_run(const char *sql, bool writes)
{
	int			nest = NewGUCNestLevel();
	SPIPlanPtr	plan;
	Snapshot	snapshot;
	Snapshot	crosscheck = InvalidSnapshot;
	int			rc;

	al_fixed_maintenance();
	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\": %s", sql, SPI_result_code_string(SPI_result));
	if (IsolationUsesXactSnapshot() && writes)
	{
		/* before the other one: taking it may be this transaction's first look */
		crosscheck = GetTransactionSnapshot();
	}
	snapshot = RegisterSnapshot(al_run_snapshot());
	rc = SPI_execute_snapshot(plan, NULL, NULL, snapshot, crosscheck, false, false, 0);
	UnregisterSnapshot(snapshot);
	if (rc < 0)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(rc));
	SPI_freeplan(plan);
	AtEOXact_GUC(true, nest);
	return SPI_processed;
}

/*
 * A look at a table that the caller may not read, as its owner: as the server's
 * own checks of foreign keys do, past row security that is forced on owners.
 */
uint64
al_run_as(Oid role, const char *sql)
{
	AlOwn		saved;
	volatile uint64 n = 0;
	Oid			user;
	int			security;

	al_own_yield_to(&saved, role);
	GetUserIdAndSecContext(&user, &security);
	SetUserIdAndSecContext(user, security | SECURITY_NOFORCE_RLS);
	PG_TRY();
	{
		n = al_run(sql, false);
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
	return n;
}
