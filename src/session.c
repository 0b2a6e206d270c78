/*
 * session.c
 *		Who makes the changes of the current transaction, and why; and which
 *		row of audit_log.transaction is in force for them.
 *
 * A row of audit_log.transaction is never updated: where its author or reason
 * no longer holds, a further row begins.  The rows that this transaction has
 * written stand in a stack, newest first, each with the subtransaction that
 * wrote it: one whose subtransaction is rolled back is gone from the table, so
 * it leaves the stack too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "utils/xid8.h"

#include "audit_log.h"

typedef struct TransactionRow
{
	int64		id;
	SubTransactionId subid;		/* that wrote it, or its surviving parent */
	const char *user;			/* NULL: none */
	Oid			role;
	const char *context;		/* the setting's text */
	Jsonb	   *undoes;			/* NULL: nothing */
	SubTransactionId forced;	/* force_new that it answered */
	struct TransactionRow *older;
} TransactionRow;

static TransactionRow *in_force = NULL; /* all in TopTransactionContext */
/* where new_transaction() was called since, or its surviving parent */
static SubTransactionId force_new = InvalidSubTransactionId;
static int64 reserved_id = 0;	/* the next row's id: transaction_id() gave it
								 * away */
static int64 given_id = 0;		/* what transaction_id() returned last */

/*
 * Ids rise along a versioned record: where it has a version with a higher id
 * than the row in force, that row is outgrown, and the next one goes on from it.
 */
static bool outgrown = false;
static int64 floor_id = 0;		/* the next row's id must be higher */

/* what the changes take back that are made now, NULL outside of taking back */
static Jsonb *undoes = NULL;

/* the setting audit_log.context, parsed; valid while the text is the same */
static char *context_text = NULL;
static Jsonb *context_json = NULL;

/* audit_log.user_id_source and its parts, which point into source_raw */
static char *source_setting = NULL;
static char *source_raw = NULL;
static List *source_path = NIL;

/* what it gave; valid while it and the named setting's text are the same */
static char *source_text = NULL;
static char *source_user = NULL;

/* ---- JSON out of settings ---- */

/* longer than a jsonb can be, the text is cut: the change must not fail for it */
#define MAX_CONTEXT_STRING (64 * 1024 * 1024)

static Jsonb *
json_string(const char *text)
{
	AlValue		value = {.kind = AL_STRING,.string = text,.len = strlen(text)};

	if (value.len > MAX_CONTEXT_STRING)
		value.len = pg_mbcliplen(text, value.len, MAX_CONTEXT_STRING);

	return al_jsonbuild_scalar(&value);
}

/* The context in force as jsonb, NULL where there is none. */
static Jsonb *
current_context(void)
{
	MemoryContext old;
	Jsonb	   *json;

	if (al_settings_context == NULL || al_settings_context[0] == '\0')
		return NULL;
	if (context_text != NULL && strcmp(context_text, al_settings_context) == 0)
		return context_json;

	json = al_jsontext_try(al_settings_context, strlen(al_settings_context));
	if (json == NULL)
	{
		json = json_string(al_settings_context);
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_JSON_TEXT),
				 errmsg("audit_log.context is not JSON that can be kept, so it is kept as a JSON string")));
	}

	if (context_text != NULL)
	{
		pfree(context_text);
		pfree(context_json);
		context_text = NULL;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	context_json = (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(json));
	context_text = pstrdup(al_settings_context);
	MemoryContextSwitchTo(old);
	return context_json;
}

/* Has the context in force this top-level key, with a value other than null? */
bool
al_session_context_has(const char *key)
{
	Jsonb	   *context = current_context();
	JsonbValue	k;
	JsonbValue *v;

	if (context == NULL || !JB_ROOT_IS_OBJECT(context))
		return false;
	k.type = jbvString;
	k.val.string.val = unconstify(char *, key);
	k.val.string.len = strlen(key);
	v = findJsonbValueFromContainer(&context->root, JB_FOBJECT, &k);
	return v != NULL && v->type != jbvNull;
}

/* ---- who ---- */

/*
 * The parts of user_id_source: the setting's name, then the keys; NIL where it
 * names nothing.
 */
static List *
source_parts(void)
{
	MemoryContext old;

	if (al_settings_user_id_source == NULL || al_settings_user_id_source[0] == '\0')
		return NIL;
	if (source_setting != NULL &&
		strcmp(source_setting, al_settings_user_id_source) == 0)
		return source_path;

	old = MemoryContextSwitchTo(TopMemoryContext);
	if (source_setting)
		pfree(source_setting);
	if (source_raw)
		pfree(source_raw);
	if (source_text)
		pfree(source_text);
	list_free(source_path);
	source_setting = source_raw = source_text = NULL;
	source_path = NIL;
	source_raw = pstrdup(al_settings_user_id_source);
	if (!SplitGUCList(source_raw, ',', &source_path))
	{
		list_free(source_path);
		source_path = NIL;
	}
	source_setting = pstrdup(al_settings_user_id_source);
	MemoryContextSwitchTo(old);
	return source_path;
}

/* The value that user_id_source names, NULL where there is none. */
static const char *
user_from_source(void)
{
	List	   *path = source_parts();
	const char *text;
	char	   *user = NULL;
	Jsonb	   *json;
	AlValue		value;

	if (path == NIL)
		return NULL;
	text = GetConfigOption(linitial(path), true, false);
	if (text == NULL || text[0] == '\0')
		return NULL;
	/* the usual way: the same text as for the row before */
	if (source_text != NULL && strcmp(source_text, text) == 0)
		return source_user;

	value.kind = AL_STRING;
	value.string = text;
	value.len = strlen(text);
	if (list_length(path) > 1)
	{
		json = al_jsontext_try(text, strlen(text));
		if (json == NULL)
			value.kind = AL_NULL;
		else
			al_jsonbuild_from_root(&value, json);
		for (int i = 1; i < list_length(path) && value.kind != AL_NULL; i++)
		{
			JsonbValue	k;
			JsonbValue *v = NULL;

			if (value.kind == AL_CONTAINER && JsonContainerIsObject(value.container))
			{
				k.type = jbvString;
				k.val.string.val = list_nth(path, i);
				k.val.string.len = strlen(k.val.string.val);
				v = findJsonbValueFromContainer(value.container, JB_FOBJECT, &k);
			}
			if (v == NULL)
				value.kind = AL_NULL;
			else
				al_jsonbuild_from_jsonb(&value, v);
		}
	}

	if (value.kind != AL_NULL)
	{
		int			len;

		user = al_jsonbuild_text(&value, &len);
		user = len > 0 ? pnstrdup(user, len) : NULL;
	}

	if (source_text)
		pfree(source_text);
	source_text = NULL;
	if (source_user)
		pfree(source_user);
	source_user = user ? MemoryContextStrdup(TopMemoryContext, user) : NULL;
	source_text = MemoryContextStrdup(TopMemoryContext, text);
	return source_user;
}

/*
 * The application's user: the setting, else what user_id_source names, else
 * row_user (the new row's claim, NULL where there is none).
 */
const char *
al_session_user(const char *row_user)
{
	const char *user;

	if (al_settings_user_id != NULL && al_settings_user_id[0] != '\0')
		return al_settings_user_id;
	user = user_from_source();
	return user ? user : row_user;
}

/* ---- the row in force ---- */

/* A role's name; of one dropped under a living session its number. */
static Datum
role_name(Oid role)
{
	char	   *name = GetUserNameFromId(role, true);

	return CStringGetTextDatum(name ? name : psprintf("%u", role));
}

static bool
same_text(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a == b || strcmp(a, b) == 0;
}

static const char *
context_setting(void)
{
	return al_settings_context ? al_settings_context : "";
}

static bool
same_json(Jsonb *a, Jsonb *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return VARSIZE(a) == VARSIZE(b) && memcmp(a, b, VARSIZE(a)) == 0;
}

static bool
row_holds(const char *user)
{
	return in_force != NULL && force_new == InvalidSubTransactionId && !outgrown &&
		in_force->role == GetOuterUserId() &&
		same_text(in_force->user, user) &&
		same_json(in_force->undoes, undoes) &&
		strcmp(in_force->context, context_setting()) == 0;
}

/*
 * The id of the row in force for a change by this user, 0 where a further row
 * must be written first.
 */
int64
al_session_row_id(const char *user)
{
	return row_holds(user) ? in_force->id : 0;
}

/* inet_client_addr() and inet_client_port(): NULL for a unix socket */
static void
client_value(PGFunction function, int anum, Datum *values, bool *nulls)
{
	LOCAL_FCINFO(fcinfo, 0);

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	values[anum - 1] = function(fcinfo);
	nulls[anum - 1] = fcinfo->isnull;
}

/* The content of a further row of audit_log.transaction, but for its id. */
void
al_session_fill_row(const char *user, Datum *values, bool *nulls)
{
	Jsonb	   *context = current_context();

	memset(nulls, 0, sizeof(bool) * Natts_al_transaction);
	values[Anum_al_transaction_xid - 1] =
		FullTransactionIdGetDatum(GetTopFullTransactionId());
	values[Anum_al_transaction_timestamp - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_al_transaction_started_at - 1] =
		TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[Anum_al_transaction_continues - 1] =
		outgrown ? Int64GetDatum(in_force->id) : (Datum) 0;
	nulls[Anum_al_transaction_continues - 1] = !outgrown;
	if (user)
		values[Anum_al_transaction_user_id - 1] = CStringGetTextDatum(user);
	else
		nulls[Anum_al_transaction_user_id - 1] = true;
	values[Anum_al_transaction_db_user - 1] =
		role_name(GetSessionUserId());
	values[Anum_al_transaction_db_role - 1] =
		role_name(GetOuterUserId());
	if (application_name && application_name[0] != '\0')
		values[Anum_al_transaction_application_name - 1] =
			CStringGetTextDatum(application_name);
	else
		nulls[Anum_al_transaction_application_name - 1] = true;
	client_value(inet_client_addr, Anum_al_transaction_client_addr, values, nulls);
	client_value(inet_client_port, Anum_al_transaction_client_port, values, nulls);
	values[Anum_al_transaction_backend_pid - 1] = Int32GetDatum(MyProcPid);
	if (context)
		values[Anum_al_transaction_context - 1] = JsonbPGetDatum(context);
	else
		nulls[Anum_al_transaction_context - 1] = true;
	if (undoes)
		values[Anum_al_transaction_undoes - 1] = JsonbPGetDatum(undoes);
	else
		nulls[Anum_al_transaction_undoes - 1] = true;
}

/* Has this transaction written a row, and not taken it back? */
bool
al_session_has_row(void)
{
	return in_force != NULL;
}

/*
 * The id for the next row: the one given away before, else a new one.  It stays
 * given away until the row has been written.
 */
int64
al_session_next_id(void)
{
	Oid			sequence = al_catalog_get()->transaction_id_seq;
	int64		id;

	if (reserved_id != 0)
		return reserved_id;
	id = al_sequence_take(sequence, 1);
	if (id <= floor_id)
	{
		al_session_pass_id(floor_id);
		id = al_sequence_take(sequence, 1);
	}
	return id;
}

/*
 * Ids from here on are higher: for version tables that were adopted, or restored
 * without the log.  By taking what lies between, since setval() could set the
 * sequence back behind what others have taken meanwhile.
 */
void
al_session_pass_id(int64 id)
{
	Oid			sequence = al_catalog_get()->transaction_id_seq;
	int64		last = al_sequence_last(sequence);

	if (last < id)
		al_sequence_take(sequence, id - last);
}

/*
 * Is the id of the next change by this user higher than all that others have
 * been given by now?  Then no record that it has locked has a higher one.
 */
bool
al_session_is_highest(const char *user)
{
	int64		id = row_holds(user) ? in_force->id : reserved_id;

	return id == 0 || id >= al_sequence_last(al_catalog_get()->transaction_id_seq);
}

/*
 * The next change by this user touches a record that has a version of this id:
 * its own must be that one or a higher.
 */
void
al_session_rise_above(const char *user, int64 id)
{
	if (row_holds(user))
	{
		if (in_force->id >= id)
			return;
		outgrown = true;
	}
	if (reserved_id != 0 && reserved_id <= id)
		reserved_id = 0;
	floor_id = id;
}

/* The row has been written: it is in force from here on. */
void
al_session_row_written(int64 id, const char *user)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	TransactionRow *row = palloc(sizeof(TransactionRow));

	row->id = id;
	row->subid = GetCurrentSubTransactionId();
	row->user = user ? pstrdup(user) : NULL;
	row->role = GetOuterUserId();
	row->context = pstrdup(context_setting());
	row->undoes = undoes ? (Jsonb *) PG_DETOAST_DATUM_COPY(JsonbPGetDatum(undoes)) : NULL;
	row->forced = force_new;
	row->older = in_force;
	in_force = row;
	force_new = InvalidSubTransactionId;
	outgrown = false;
	floor_id = 0;
	reserved_id = 0;
	MemoryContextSwitchTo(old);
}

/* What transaction_id() returns: the row in force, or one to come. */
int64
al_session_transaction_id(void)
{
	int64		id = al_session_row_id(al_session_user(NULL));

	if (id == 0)
		id = reserved_id;
	if (id == 0)
	{
		/*
		 * A row attributed by user_column holds as long as nothing but the
		 * row's own claim would tell another author.
		 */
		if (in_force != NULL && al_session_user(NULL) == NULL &&
			al_session_row_id(in_force->user) != 0)
			id = in_force->id;
		else
			id = reserved_id = al_sequence_take(al_catalog_get()->transaction_id_seq, 1);
	}
	given_id = id;
	return id;
}

void
al_session_force_new(void)
{
	if (force_new == InvalidSubTransactionId)
		force_new = GetCurrentSubTransactionId();
	reserved_id = 0;
	given_id = 0;
}

/*
 * What changes take back from here on, NULL for nothing; returns what it was, for
 * whoever sets it back.  It must live until then; an error of the transaction
 * ends it, too.
 */
Jsonb *
al_session_set_undoes(Jsonb *what)
{
	Jsonb	   *former = undoes;

	undoes = what;
	return former;
}

bool
al_session_undoing(void)
{
	return undoes != NULL;
}

/* ---- following the transaction ---- */

void
al_session_end_transaction(void)
{
	in_force = NULL;
	undoes = NULL;
	force_new = InvalidSubTransactionId;
	outgrown = false;
	floor_id = 0;
	reserved_id = 0;
	given_id = 0;
}

void
al_session_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	for (TransactionRow *row = in_force; row && row->subid >= subid; row = row->older)
	{
		if (row->subid == subid)
			row->subid = parent;
		if (row->forced == subid)
			row->forced = parent;
	}
	if (force_new == subid)
		force_new = parent;
}

void
al_session_abort_sub(SubTransactionId subid)
{
	if (force_new == subid)
		force_new = InvalidSubTransactionId;
	/* an error kept the row from being written */
	outgrown = false;
	floor_id = 0;
	while (in_force && in_force->subid == subid)
	{
		/*
		 * Whoever was told this id still counts on it, and nothing bears it
		 * any more; it is higher than those of the rows that are left.
		 */
		if (in_force->id == given_id)
			reserved_id = given_id;
		/* a call of new_transaction() further out has no row any more */
		if (in_force->forced != subid && in_force->forced != InvalidSubTransactionId)
			force_new = in_force->forced;
		in_force = in_force->older;
	}
}
