/*
 * outbox.c
 *		What the outbox (audit_log.poll) needs of C: the announcement of commits,
 *		the next transaction id, and the notice that rows came from a dump.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/xid8.h"

#include "audit_log.h"

#define AL_CHANNEL "audit_log"

/*
 * Called when the transaction is about to commit, its changes written.  Never
 * before PREPARE TRANSACTION, which a queued notification makes fail: COMMIT
 * PREPARED tells nobody.
 */
void
al_outbox_announce(void)
{
	if (al_settings_notify && al_session_has_row())
		Async_Notify(AL_CHANNEL, "");
}

/* audit_log._next_xid() RETURNS xid8: the id that the next transaction gets */
PG_FUNCTION_INFO_V1(audit_log_next_xid);
Datum
audit_log_next_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_FULLTRANSACTIONID(ReadNextFullTransactionId());
}

/* a restore of single INSERTs, in this transaction: noted, and since then gone on */
static bool noted = false;
static bool gone_on = false;

static void
note_restore(void)
{
	Oid			type = TEXTOID;
	Datum		session = CStringGetTextDatum(psprintf(UINT64_FORMAT " %d " INT64_FORMAT,
													   GetSystemIdentifier(), MyProcPid,
													   (int64) MyStartTimestamp));
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute_with_args("SELECT audit_log._record_restore($1)", 1, &type, &session,
								  NULL, false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not note that the log was restored");
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/* Called before the transaction ends. */
void
al_outbox_finish(void)
{
	if (!gone_on)
		return;
	gone_on = false;
	PushActiveSnapshot(GetTransactionSnapshot());
	note_restore();
	PopActiveSnapshot();
}

void
al_outbox_end_transaction(void)
{
	noted = gone_on = false;
}

/*
 * AFTER INSERT on audit_log.transaction, for each statement.  Capture writes
 * past it (writer.c), so what comes here is a dump's COPY or INSERTs, or our own
 * function that adopts the transactions of others.  All INSERTs of a transaction
 * are noted twice, not one by one: each note leaves a dead row until it ends.
 */
PG_FUNCTION_INFO_V1(audit_log_on_restore);
Datum
audit_log_on_restore(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager", "audit_log.on_restore")));
	if (al_own_active())
		return PointerGetDatum(NULL);

	if (noted)
		gone_on = true;
	else
	{
		note_restore();
		noted = true;
	}
	return PointerGetDatum(NULL);
}
