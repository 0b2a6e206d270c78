/*
 * progress.c
 *		How far this session has come in taking back: a NOTICE every few
 *		seconds, and numbers that other sessions read (view
 *		audit_log.taking_back).
 *
 * The numbers stand where the server keeps those of its own commands, in the
 * session's entry of shared memory, under a command number that is none of
 * the server's: so nothing has to be preloaded, and a session that ends or
 * fails leaves nothing behind.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/progress.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/backend_progress.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "audit_log.h"

/* far from the server's own, which are counted from 0 */
#define COMMAND ((ProgressCommandType) 0x616c)

#define PARAM_PHASE 0
#define PARAM_DONE 1
#define PARAM_TOTAL 2

#define NOTICE_SECONDS 5
#define ROWS_BETWEEN_LOOKS 512

static const char *const phases[] = {"reading the log", "reading rows", "looking for conflicts", "writing rows", "firing triggers"};

static bool active = false;
static AlProgressPhase phase;
static int64 done;
static int64 total;
static TimestampTz last_notice;

static void
look(void)
{
	TimestampTz now;

	pgstat_progress_update_param(PARAM_DONE, done);
	now = GetCurrentTimestamp();
	if (!TimestampDifferenceExceeds(last_notice, now, NOTICE_SECONDS * 1000))
		return;
	last_notice = now;
	if (total > 0)
		ereport(NOTICE,
				(errmsg("audit_log: %s: %lld of %lld", phases[phase],
						(long long) done, (long long) total)));
	else
		ereport(NOTICE,
				(errmsg("audit_log: %s: %lld", phases[phase], (long long) done)));
}

/* A phase begins; total is 0 where it is not known beforehand. */
void
al_progress_begin(AlProgressPhase new_phase, int64 new_total)
{
	if (!active)
	{
		pgstat_progress_start_command(COMMAND, InvalidOid);
		last_notice = GetCurrentTimestamp();
		active = true;
	}
	phase = new_phase;
	done = 0;
	total = new_total;
	pgstat_progress_update_param(PARAM_PHASE, phase);
	pgstat_progress_update_param(PARAM_DONE, 0);
	pgstat_progress_update_param(PARAM_TOTAL, total);
}

/* So many rows more are done. */
void
al_progress_add(int64 rows)
{
	if (!active)
		return;
	done += rows;
	look();
}

/* One row more is captured: while triggers fire these are what is waited for. */
void
al_progress_row(void)
{
	if (!active || phase != AL_PROGRESS_TRIGGERS)
		return;
	if (++done % ROWS_BETWEEN_LOOKS == 0)
		look();
}

/* Also after an error. */
void
al_progress_end(void)
{
	if (!active)
		return;
	active = false;
	pgstat_progress_end_command();
}

/*
 * audit_log._taking_back(OUT pid int, OUT phase text, OUT rows_done bigint,
 * OUT rows_total bigint) RETURNS SETOF record: of the sessions of this database
 * whose statistics the caller may see.
 */
PG_FUNCTION_INFO_V1(audit_log_taking_back);
Datum
audit_log_taking_back(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	int			n = pgstat_fetch_stat_numbackends();

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 1; i <= n; i++)
	{
		LocalPgBackendStatus *local = AL_BACKEND_STATUS(i);
		PgBackendStatus *status = local ? &local->backendStatus : NULL;
		Datum		values[4];
		bool		nulls[4] = {false};

		if (status == NULL || status->st_progress_command != COMMAND ||
			status->st_databaseid != MyDatabaseId)
			continue;
		if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS) &&
			!has_privs_of_role(GetUserId(), status->st_userid))
			continue;
		if (status->st_progress_param[PARAM_PHASE] < 0 ||
			status->st_progress_param[PARAM_PHASE] >= (int64) lengthof(phases))
			continue;
		values[0] = Int32GetDatum(status->st_procpid);
		values[1] = CStringGetTextDatum(phases[status->st_progress_param[PARAM_PHASE]]);
		values[2] = Int64GetDatum(status->st_progress_param[PARAM_DONE]);
		values[3] = Int64GetDatum(status->st_progress_param[PARAM_TOTAL]);
		nulls[3] = status->st_progress_param[PARAM_TOTAL] == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
