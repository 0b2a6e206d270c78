/*
 * register.c
 *		Keeps audit_log.tracked_table and audit_log.table_state true.
 *
 * Called with the first change of a table that a backend sees after it was
 * altered, and by enable() and the event triggers.  Uses SPI, as the owner of
 * the log, under the latest snapshot: the transaction's own may be older than
 * what another session has registered since.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "audit_log.h"

typedef struct Paused
{
	int32		table_id;
	SubTransactionId subid;
} Paused;

static List *paused = NIL;		/* of Paused *, in TopTransactionContext */
static bool wrote = false;		/* ids were given out in this transaction */

/* ---- SPI under the latest snapshot ---- */

#define MAX_PARAMS 8

typedef struct Params
{
	int			n;
	Oid			types[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS];
} Params;

static void
add_param(Params *params, Oid type, Datum value, bool isnull)
{
	Assert(params->n < MAX_PARAMS);
	params->types[params->n] = type;
	params->values[params->n] = value;
	params->nulls[params->n] = isnull ? 'n' : ' ';
	params->n++;
}

static void
add_text_param(Params *params, const char *text)
{
	add_param(params, TEXTOID, text ? CStringGetTextDatum(text) : (Datum) 0, text == NULL);
}

static uint64
run(const char *sql, Params *params)
{
	SPIPlanPtr	plan = SPI_prepare(sql, params->n, params->types);
	int			rc;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed for \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	rc = SPI_execute_snapshot(plan, params->values, params->nulls,
							  GetLatestSnapshot(), InvalidSnapshot,
							  false, true, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_snapshot failed for \"%s\": %s", sql,
			 SPI_result_code_string(rc));
	return SPI_processed;
}

static Datum
result(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}

static bool
result_bool(uint64 row, int column)
{
	bool		isnull;
	Datum		d = result(row, column, &isnull);

	return !isnull && DatumGetBool(d);
}

static char *
result_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

/* ---- states ---- */

/* What a new row of table_state says. */
typedef struct State
{
	int32		table_id;
	const char *settings;		/* JSON */
	const char *columns;		/* JSON */
	Datum		key;			/* text[] */
	const char *detail;			/* JSON or NULL */
} State;

static void
note_state(const State *state, const char *kind, const char *detail)
{
	const AlCatalog *catalog = al_catalog_get();
	Params		params = {0};

	add_param(&params, INT8OID,
			  Int64GetDatum(al_sequence_take(catalog->table_state_id_seq, 1)), false);
	add_param(&params, INT4OID, Int32GetDatum(state->table_id), false);
	add_text_param(&params, kind);
	add_text_param(&params, state->settings);
	add_text_param(&params, state->columns);
	add_param(&params, TEXTARRAYOID, state->key, state->key == (Datum) 0);
	add_text_param(&params, detail);

	/*
	 * The next change's id, used up here: every change captured under what
	 * held before has a lower one, since the table's lock or the capturing
	 * transaction itself keeps others from being in between.
	 */
	add_param(&params, INT8OID,
			  Int64GetDatum(al_sequence_take(catalog->change_id_seq, 1)), false);
	run("INSERT INTO audit_log.table_state (id, table_id, kind, settings, columns,"
		" key_columns, detail, db_user, xid, timestamp, first_change_id)"
		" VALUES ($1, $2, $3, $4::pg_catalog.jsonb, $5::pg_catalog.jsonb, $6,"
		" $7::pg_catalog.jsonb, session_user, pg_catalog.pg_current_xact_id(),"
		" pg_catalog.clock_timestamp(), $8)", &params);
}

static Datum
names_array(List *names)
{
	Datum	   *elems = palloc(sizeof(Datum) * Max(list_length(names), 1));
	int			n = 0;
	ListCell   *lc;

	if (names == NIL)
		return (Datum) 0;
	foreach(lc, names)
		elems[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(elems, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* ---- the mask key ---- */

/*
 * Sees to it that there is a key, and that it is the one under which this
 * table's keys were masked before.  Returns the detail that states of a table
 * with masked columns bear, NULL for others.
 */
static const char *
ensure_mask_key(const AlTable *table, int32 table_id)
{
	Params		params = {0};
	char	   *before = NULL;
	char	   *now;

	if (table->settings->mask == NIL)
		return NULL;

	add_param(&params, INT4OID, Int32GetDatum(table_id), false);
	if (run("SELECT detail OPERATOR(pg_catalog.->>) 'mask_key' FROM audit_log.table_state"
			" WHERE table_id OPERATOR(pg_catalog.=) $1"
			" AND detail OPERATOR(pg_catalog.?) 'mask_key' ORDER BY id DESC LIMIT 1",
			&params) > 0)
		before = result_text(0, 1);

	now = al_mask_fingerprint();
	if (table->key_masked && before != NULL &&
		(now == NULL || strcmp(now, before) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the key that masks the record ids of table \"%s.%s\" is not the one used before",
						table->schema, table->name),
				 errdetail("Under another key the records' history could not be found."),
				 errhint("A superuser sets the former key by audit_log.mask_key(bytea), or goes on under a new one by audit_log.disable() and audit_log.enable().")));
	if (now == NULL)
	{
		/* of two sessions one makes the key */
		LockRelationOid(al_catalog_get()->mask_secret, ShareUpdateExclusiveLock);
		now = al_mask_fingerprint();
	}
	if (now == NULL)
	{
		bytea	   *key = palloc(VARHDRSZ + 32);

		SET_VARSIZE(key, VARHDRSZ + 32);
		if (!pg_strong_random(VARDATA(key), 32))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a mask key")));
		al_register_set_mask_key(key);
		now = al_mask_fingerprint();
	}
	return psprintf("{\"mask_key\": \"%s\"}", now);
}

/* Writes the installation's key; the caller has entered SPI and own. */
void
al_register_set_mask_key(bytea *key)
{
	Params		params = {0};

	add_param(&params, BYTEAOID, PointerGetDatum(key), false);
	run("DELETE FROM audit_log.mask_secret", &(Params) {0});
	run("INSERT INTO audit_log.mask_secret (key) VALUES ($1)", &params);
	CommandCounterIncrement();
	CacheInvalidateRelcacheByRelid(al_catalog_get()->mask_secret);
	al_mask_forget(InvalidOid);
	wrote = true;
}

/* ---- tracked_table ---- */

/*
 * Does another relation bear the recorded name?  Then ours is a copy of it;
 * otherwise it was renamed.  The other one need not have a trigger of that uid
 * any more: everybody can read it in the catalogs and put it into a trigger of
 * a table of his own, which must not get a disabled table's history by that.
 */
static bool
other_bears(const AlTable *table, const char *schema, const char *name)
{
	Oid			nspid = get_namespace_oid(schema, true);
	Oid			relid = OidIsValid(nspid) ? get_relname_relid(name, nspid) : InvalidOid;

	return OidIsValid(relid) && relid != table->root;
}

typedef struct Found
{
	int32		id;				/* 0: none */
	bool		renamed;		/* recorded under another name */
	bool		settings_differ;
	int32		stale_id;		/* row of an earlier table of the name */
} Found;

static Found
find_row(const AlTable *table, const char *settings)
{
	Params		params = {0};
	Found		found = {0};
	uint64		n;
	const char *uid = table->settings->table;
	int32		by_name = 0;
	bool		by_name_differs = false;
	bool		uid_known = false;

	add_text_param(&params, table->schema);
	add_text_param(&params, table->name);
	add_text_param(&params, uid);
	add_text_param(&params, settings);
	n = run("SELECT id, table_schema, table_name,"
			" uid OPERATOR(pg_catalog.=) $3::pg_catalog.uuid,"
			" (table_schema OPERATOR(pg_catalog.=) $1 AND table_name OPERATOR(pg_catalog.=) $2),"
			" dropped_at IS NULL, settings OPERATOR(pg_catalog.<>) $4::pg_catalog.jsonb"
			" FROM audit_log.tracked_table"
			" WHERE uid OPERATOR(pg_catalog.=) $3::pg_catalog.uuid"
			" OR (dropped_at IS NULL AND table_schema OPERATOR(pg_catalog.=) $1"
			" AND table_name OPERATOR(pg_catalog.=) $2)", &params);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		int32		id = DatumGetInt32(result(i, 1, &isnull));
		bool		same_uid = result_bool(i, 4);
		bool		same_name = result_bool(i, 5);
		bool		live = result_bool(i, 6);
		bool		differs = result_bool(i, 7);

		if (same_uid)
			uid_known = true;
		if (same_uid && live &&
			(same_name ||
			 !other_bears(table, result_text(i, 2), result_text(i, 3))))
		{
			found.id = id;
			found.renamed = !same_name;
			found.settings_differ = differs;
		}
		else if (same_name && live)
		{
			by_name = id;
			by_name_differs = differs;
		}
	}
	if (found.id != 0)
	{
		found.stale_id = by_name;
		return found;
	}
	if (by_name != 0 && (uid == NULL || uid_known))
	{
		found.id = by_name;
		found.settings_differ = by_name_differs;
	}
	else
		found.stale_id = by_name;
	return found;
}

static int32
insert_row(const AlTable *table, const char *settings)
{
	Params		params = {0};
	int32		id = (int32) al_sequence_take(al_catalog_get()->tracked_table_id_seq, 1);

	add_param(&params, INT4OID, Int32GetDatum(id), false);
	add_text_param(&params, table->schema);
	add_text_param(&params, table->name);
	add_text_param(&params, table->settings->table);
	add_text_param(&params, settings);
	run("INSERT INTO audit_log.tracked_table (id, uid, table_schema, table_name, settings)"
		" SELECT $1, CASE WHEN $4 IS NULL OR EXISTS (SELECT FROM audit_log.tracked_table"
		" WHERE uid OPERATOR(pg_catalog.=) $4::pg_catalog.uuid)"
		" THEN pg_catalog.gen_random_uuid() ELSE $4::pg_catalog.uuid END,"
		" $2, $3, $5::pg_catalog.jsonb", &params);
	return id;
}

static void
mark_dropped(int32 id)
{
	Params		params = {0};

	add_param(&params, INT4OID, Int32GetDatum(id), false);
	run("UPDATE audit_log.tracked_table SET dropped_at = pg_catalog.clock_timestamp()"
		" WHERE id OPERATOR(pg_catalog.=) $1", &params);
	al_register_note(id, "dropped", NULL);
}

static void
rename_row(const AlTable *table, int32 id)
{
	Params		params = {0};

	add_param(&params, INT4OID, Int32GetDatum(id), false);
	add_text_param(&params, table->schema);
	add_text_param(&params, table->name);
	run("UPDATE audit_log.tracked_table SET table_schema = $2, table_name = $3"
		" WHERE id OPERATOR(pg_catalog.=) $1", &params);
}

static void
update_settings(int32 id, const char *settings)
{
	Params		params = {0};

	add_param(&params, INT4OID, Int32GetDatum(id), false);
	add_text_param(&params, settings);
	run("UPDATE audit_log.tracked_table SET settings = $2::pg_catalog.jsonb"
		" WHERE id OPERATOR(pg_catalog.=) $1", &params);
}

/* Which of columns and key differ from the latest state; both if there is none. */
static bool
latest_state(const State *state, bool *columns_differ, bool *key_differs,
			 bool *mask_differs)
{
	Params		params = {0};

	add_param(&params, INT4OID, Int32GetDatum(state->table_id), false);
	add_text_param(&params, state->columns);
	add_param(&params, TEXTARRAYOID, state->key, state->key == (Datum) 0);
	add_text_param(&params, state->detail);
	if (run("SELECT columns OPERATOR(pg_catalog.<>) $2::pg_catalog.jsonb,"
			" key_columns IS DISTINCT FROM $3,"
			" $4 IS NOT NULL AND NOT EXISTS (SELECT FROM audit_log.table_state m"
			"  WHERE m.table_id OPERATOR(pg_catalog.=) $1"
			"  AND m.detail OPERATOR(pg_catalog.@>) $4::pg_catalog.jsonb)"
			" FROM audit_log.table_state WHERE table_id OPERATOR(pg_catalog.=) $1"
			" ORDER BY id DESC LIMIT 1", &params) == 0)
		return false;
	*columns_differ = result_bool(0, 1);
	*key_differs = result_bool(0, 2);
	*mask_differs = result_bool(0, 3);
	return true;
}

/*
 * Before a change is captured: a setting speaks of a column by name, so where
 * another column bears the name now (renamed while the event trigger was off),
 * the setting would leave out or mask the wrong one.
 */
static void
refuse_exchanged_columns(const AlTable *table, const State *state)
{
	Params		params = {0};

	add_param(&params, INT4OID, Int32GetDatum(state->table_id), false);
	add_text_param(&params, state->columns);
	add_text_param(&params, state->settings);
	if (run("SELECT n OPERATOR(pg_catalog.->>) 'name'"
			" FROM (SELECT columns FROM audit_log.table_state"
			"  WHERE table_id OPERATOR(pg_catalog.=) $1 ORDER BY id DESC LIMIT 1) s,"
			" pg_catalog.jsonb_array_elements(s.columns) o,"
			" pg_catalog.jsonb_array_elements($2::pg_catalog.jsonb) n,"
			" pg_catalog.jsonb_each($3::pg_catalog.jsonb) e"
			" WHERE e.key OPERATOR(pg_catalog.=) ANY ('{exclude,include,mask,user_column}')"
			" AND n OPERATOR(pg_catalog.->>) 'name' OPERATOR(pg_catalog.=) (o OPERATOR(pg_catalog.->>) 'name')"
			" AND n OPERATOR(pg_catalog.->) 'number' OPERATOR(pg_catalog.<>) (o OPERATOR(pg_catalog.->) 'number')"
			" AND e.value OPERATOR(pg_catalog.?) (n OPERATOR(pg_catalog.->>) 'name')", &params) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of audited table \"%s.%s\" is another one than its settings mean",
					result_text(0, 1), table->schema, table->name),
			 errdetail("It was replaced or renamed without audit_log noticing."),
			 errhint("Run audit_log.enable() on the table, with the settings that it shall have.")));
}

static const char *
version_table_name(const AlTable *table)
{
	return table->settings->version_table ? table->settings->version_table :
		psprintf("%s_version", table->name);
}

/*
 * A trigger can name any version table, and only one table's versions are to be
 * found in it: the first to be registered with it, dropped or not, has it.  So
 * whoever comes with a name that is new to him finds it free, or is refused.
 */
static void
refuse_version_table_of_another(const AlTable *table, int32 table_id)
{
	Params		params = {0};
	const char *name = version_table_name(table);

	if (!table->settings->versioned)
		return;
	add_param(&params, INT4OID, Int32GetDatum(table_id), false);
	add_text_param(&params, table->schema);
	add_text_param(&params, name);
	if (run("SELECT FROM audit_log.tracked_table o WHERE o.id OPERATOR(pg_catalog.<>) $1"
			" AND o.table_schema OPERATOR(pg_catalog.=) $2"
			" AND o.settings OPERATOR(pg_catalog.->>) 'version_table' OPERATOR(pg_catalog.=) $3"
			" AND (o.id OPERATOR(pg_catalog.<) $1 OR NOT EXISTS (SELECT FROM audit_log.tracked_table t"
			"  WHERE t.id OPERATOR(pg_catalog.=) $1"
			"  AND t.settings OPERATOR(pg_catalog.->>) 'version_table' OPERATOR(pg_catalog.=) $3))",
			&params) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write versions of table \"%s.%s\"", table->schema, table->name),
			 errdetail("Version table \"%s.%s\" is another table's.", table->schema, name),
			 errhint("Run audit_log.enable() on \"%s.%s\" with another version_table.",
					 table->schema, table->name)));
}

/*
 * A version table that was restored without the log is nobody's by our own
 * word: not everyone whose trigger names it may have it.
 */
static bool
may_claim_versions(const AlTable *table, int32 table_id, const char *settings)
{
	Params		params = {0};

	if (!table->settings->versioned)
		return true;
	add_param(&params, REGCLASSOID, ObjectIdGetDatum(table->root), false);
	add_text_param(&params, settings);
	add_param(&params, INT4OID, Int32GetDatum(table_id), false);
	add_text_param(&params, version_table_name(table));
	return run("SELECT WHERE EXISTS (SELECT FROM audit_log.tracked_table t WHERE t.id OPERATOR(pg_catalog.=) $3"
			   "  AND COALESCE(t.settings OPERATOR(pg_catalog.->>) 'version_table',"
			   "   t.table_name OPERATOR(pg_catalog.||) '_version') OPERATOR(pg_catalog.=) $4)"
			   " OR audit_log._may_claim_versions($1, $2::pg_catalog.jsonb)", &params) != 0;
}

static void
refuse_claim(const AlTable *table)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot write versions of table \"%s.%s\"", table->schema, table->name),
			 errdetail("Version table \"%s.%s\" was restored without the log, and is named by another table too, or not to be read by the owner of this one.",
					   table->schema, version_table_name(table)),
			 errhint("A superuser can run audit_log.enable() on the table whose versions it holds, and audit_log.disable() on others that name it.")));
}

/* {"mask_key": …} and what the caller tells, as one JSON object */
static const char *
join_details(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a ? a : b;
	return psprintf("%.*s, %s", (int) strlen(a) - 1, a, b + 1);
}

/*
 * Looks the table up in tracked_table, registers it where it is new, and notes
 * what is different from what was known.  kind, if not NULL, is a state that
 * begins now; detail is a JSON object or NULL.  Sets table->table_id.
 */
static void
sync_table(AlTable *table, const char *kind, const char *detail, bool capturing)
{
	Relation	root = relation_open(table->root, AccessShareLock);
	const char *settings = al_settings_json(table->settings);
	State		state = {.settings = settings};
	Found		found;
	bool		columns_differ = false;
	bool		key_differs = false;
	bool		mask_differs = false;
	bool		known;

	state.columns = al_table_columns_json(root);
	state.key = names_array(al_table_key_columns(root, table->settings->exclude));
	relation_close(root, AccessShareLock);

	found = find_row(table, settings);
	if (found.id == 0 || found.renamed || found.settings_differ || found.stale_id)
	{
		/* one session at a time registers; then look again */
		LockRelationOid(al_catalog_get()->tracked_table, ShareUpdateExclusiveLock);
		found = find_row(table, settings);
		wrote = true;
	}
	if (found.stale_id)
		mark_dropped(found.stale_id);
	if ((found.id == 0 || found.settings_differ) && !may_claim_versions(table, found.id, settings))
	{
		AlSettings	plain = *table->settings;

		if (kind == NULL || strcmp(kind, "disabled") != 0)
		{
			refuse_version_table_of_another(table, found.id);
			refuse_claim(table);
		}
		/* it ends, and without having had them */
		plain.versioned = false;
		plain.version_table = NULL;
		settings = al_settings_json(&plain);
		state.settings = settings;
	}
	if (found.id == 0)
		found.id = insert_row(table, settings);
	state.table_id = found.id;
	state.detail = ensure_mask_key(table, found.id);
	known = latest_state(&state, &columns_differ, &key_differs, &mask_differs);
	if (!known || columns_differ || key_differs || mask_differs)
		wrote = true;
	if (capturing && columns_differ)
		refuse_exchanged_columns(table, &state);
	if (capturing || found.settings_differ)
		refuse_version_table_of_another(table, found.id);

	if (found.renamed)
	{
		rename_row(table, found.id);
		note_state(&state, "renamed", state.detail);
	}
	if (found.settings_differ)
		update_settings(found.id, settings);
	if (kind != NULL)
	{
		wrote = true;
		note_state(&state, kind, join_details(state.detail, detail));
	}
	else if (!known || found.settings_differ || mask_differs)
		note_state(&state, "settings", state.detail);
	else
	{
		if (columns_differ)
			note_state(&state, "columns", state.detail);
		if (key_differs)
			note_state(&state, "key", state.detail);
	}
	table->table_id = found.id;
}

static void
with_own_spi(AlTable *table, const char *kind, const char *detail, bool capturing)
{
	AlOwn		saved;

	al_own_enter(&saved);
	PG_TRY();
	{
		SPI_connect();
		sync_table(table, kind, detail, capturing);
		SPI_finish();
	}
	PG_FINALLY();
	{
		al_own_leave(&saved);
	}
	PG_END_TRY();
}

/* For capture: gives table its id, and notes what nobody has noted yet. */
void
al_register_table(AlTable *table)
{
	with_own_spi(table, NULL, NULL, true);
}

/* For enable() and the event triggers: the same, and a state begins. */
void
al_register_state(AlTable *table, const char *kind, const char *detail)
{
	with_own_spi(table, kind, detail, false);
}

/*
 * A state of a table that need not exist any more: settings, columns and key
 * are those of its latest.  The caller has entered SPI and own.
 */
void
al_register_note(int32 table_id, const char *kind, const char *detail)
{
	const AlCatalog *catalog = al_catalog_get();
	Params		params = {0};

	add_param(&params, INT8OID,
			  Int64GetDatum(al_sequence_take(catalog->table_state_id_seq, 1)), false);
	add_param(&params, INT4OID, Int32GetDatum(table_id), false);
	add_text_param(&params, kind);
	add_text_param(&params, detail);
	add_param(&params, INT8OID,
			  Int64GetDatum(al_sequence_take(catalog->change_id_seq, 1)), false);
	run("INSERT INTO audit_log.table_state (id, table_id, kind, settings, columns,"
		" key_columns, detail, db_user, xid, timestamp, first_change_id)"
		" SELECT $1, $2, $3, s.settings, s.columns, s.key_columns,"
		" $4::pg_catalog.jsonb, session_user, pg_catalog.pg_current_xact_id(),"
		" pg_catalog.clock_timestamp(), $5"
		" FROM audit_log.table_state s WHERE s.table_id OPERATOR(pg_catalog.=) $2"
		" ORDER BY s.id DESC LIMIT 1", &params);
}

/* ---- pause ---- */

void
al_register_pause(int32 table_id)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Paused	   *p = palloc(sizeof(Paused));

	p->table_id = table_id;
	p->subid = GetCurrentSubTransactionId();
	paused = lappend(paused, p);
	MemoryContextSwitchTo(old);
}

/* Is any table paused? */
bool
al_register_pausing(void)
{
	return paused != NIL;
}

bool
al_register_paused(int32 table_id)
{
	ListCell   *lc;

	foreach(lc, paused)
		if (((Paused *) lfirst(lc))->table_id == table_id)
			return true;
	return false;
}

/* ---- following the transaction ---- */

void
al_register_end_transaction(bool commit)
{
	paused = NIL;
	if (wrote && !commit)
	{
		al_table_forget_ids();
		al_mask_forget(InvalidOid);
	}
	wrote = false;
}

void
al_register_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	ListCell   *lc;

	foreach(lc, paused)
		if (((Paused *) lfirst(lc))->subid == subid)
			((Paused *) lfirst(lc))->subid = parent;
}

void
al_register_abort_sub(SubTransactionId subid)
{
	ListCell   *lc;

	foreach(lc, paused)
		if (((Paused *) lfirst(lc))->subid == subid)
			paused = foreach_delete_current(paused, lc);
	if (wrote)
	{
		/* wrote stays: another level may have written too */
		al_table_forget_ids();
		al_mask_forget(InvalidOid);
	}
}
