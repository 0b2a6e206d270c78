/*
 * settings.c
 *		The settings of the session and of one table.
 *
 * Those of the session are ordinary configuration parameters.  Those of a
 * table are the arguments of its trigger (design.md, section 4), each
 * "name=value", so that everything that carries a trigger carries them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"

#include "audit_log.h"

char	   *al_settings_user_id = NULL;
char	   *al_settings_context = NULL;
char	   *al_settings_user_id_source = NULL;
bool		al_settings_notify = false;

void
al_settings_init(void)
{
	DefineCustomStringVariable("audit_log.user_id",
							   "Names the application's user to whom changes are attributed.",
							   "A claim of the session, not proof. Empty means none. Set it with SET LOCAL, or by audit_log.set_context().",
							   &al_settings_user_id, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomStringVariable("audit_log.context",
							   "Says why changes are made: any JSON, kept with the transaction's row.",
							   "What is not JSON is kept as a JSON string. Empty means none. Set it with SET LOCAL, or by audit_log.set_context().",
							   &al_settings_context, "",
							   PGC_USERSET, 0, NULL, NULL, NULL);

	DefineCustomStringVariable("audit_log.user_id_source",
							   "Names a setting, and the keys of a path inside its JSON, that hold the user where audit_log.user_id is empty.",
							   "Comma-separated: the setting's name, then one key a level. Without a key the setting's whole text is the user.",
							   &al_settings_user_id_source, "request.jwt.claims, sub",
							   PGC_SUSET, GUC_LIST_INPUT, NULL, NULL, NULL);

	DefineCustomBoolVariable("audit_log.notify",
							 "Announces committed changes by NOTIFY on channel audit_log.",
							 "For the consumers of audit_log.poll(). A transaction that is prepared is not announced. While it is on, commits of tracked changes wait for each other.",
							 &al_settings_notify, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);

	MarkGUCPrefixReserved("audit_log");
}

/* '{a,"b c"}' or a single name without braces, as a List of char * */
static List *
parse_names(const char *value)
{
	List	   *result = NIL;
	ArrayType  *array;
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	if (value[0] != '{')
		return list_make1(pstrdup(value));

	array = DatumGetArrayTypeP(OidInputFunctionCall(F_ARRAY_IN,
													unconstify(char *, value),
													TEXTOID, -1));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			result = lappend(result, TextDatumGetCString(elems[i]));
	return result;
}

static void
bad_argument(const char *table, const char *argument)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid argument \"%s\" of the audit trigger on table \"%s\"",
					argument, table),
			 errhint("Drop the trigger; then run audit_log.enable(), or create it again, with other arguments.")));
}

static int
parse_actions(List *names, const char *table, const char *argument)
{
	int			actions = 0;
	ListCell   *lc;

	foreach(lc, names)
	{
		int			action;

		for (action = 0; action <= AL_TRUNCATE; action++)
			if (pg_strcasecmp(lfirst(lc), al_catalog_action_label(action)) == 0)
				break;
		if (action > AL_TRUNCATE)
			bad_argument(table, argument);
		actions |= 1 << action;
	}
	return actions;
}

/* ---- version tables ---- */

static const char *const version_column_names[AL_VERSION_COLUMNS] =
{"transaction_id", "end_transaction_id", "operation_type", "valid_from", "valid_to"};

/* The name of one of the columns that a version table has of its own. */
const char *
al_settings_version_column(const AlSettings *settings, AlVersionColumn column)
{
	return settings->version_columns[column] ? settings->version_columns[column] :
		version_column_names[column];
}

/* '{"transaction_id": "tx", …}' */
static void
parse_version_columns(AlSettings *settings, const char *value, const char *table,
					  const char *argument)
{
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value)));

	if (!JB_ROOT_IS_OBJECT(json))
		bad_argument(table, argument);
	for (int i = 0; i < AL_VERSION_COLUMNS; i++)
	{
		JsonbValue	buf;
		JsonbValue *name = getKeyJsonValueFromContainer(&json->root, version_column_names[i],
														strlen(version_column_names[i]), &buf);

		if (name == NULL)
			continue;
		if (name->type != jbvString || name->val.string.len == 0 ||
			name->val.string.len >= NAMEDATALEN)
			bad_argument(table, argument);
		settings->version_columns[i] = pnstrdup(name->val.string.val, name->val.string.len);
	}
}

/* ---- descriptions ---- */

/* '{"update": {"activity type": "template", …}, …}' */
static void
parse_descriptions(AlSettings *settings, const char *value, const char *table,
				   const char *argument)
{
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value)));
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	AlDescription *description = NULL;
	int			action = 0;
	int			depth = 0;

	if (!JB_ROOT_IS_OBJECT(json))
		bad_argument(table, argument);
	it = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
		switch (token)
		{
			case WJB_BEGIN_OBJECT:
				if (++depth > 2)
					bad_argument(table, argument);
				break;
			case WJB_END_OBJECT:
				depth--;
				break;
			case WJB_KEY:
				if (depth == 1)
				{
					for (action = 0; action <= AL_DELETE; action++)
						if (pg_strcasecmp(pnstrdup(v.val.string.val, v.val.string.len),
										  al_catalog_action_label(action)) == 0)
							break;
					if (action > AL_DELETE)
						bad_argument(table, argument);
					break;
				}
				description = palloc0(sizeof(AlDescription));
				description->action = action;
				description->activity_type = pnstrdup(v.val.string.val, v.val.string.len);
				break;
			case WJB_VALUE:
				if (depth != 2 || v.type != jbvString)
					bad_argument(table, argument);
				description->template = pnstrdup(v.val.string.val, v.val.string.len);
				settings->describe = lappend(settings->describe, description);
				break;
			default:
				bad_argument(table, argument);
		}
}

/* The same as JSON text, as jsonb sorts it. */
char *
al_settings_descriptions(List *descriptions)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int action = 0; action <= AL_DELETE; action++)
	{
		bool		first = true;
		ListCell   *lc;

		foreach(lc, descriptions)
		{
			const AlDescription *description = lfirst(lc);

			if ((int) description->action != action)
				continue;
			if (first)
			{
				char	   *label = pstrdup(al_catalog_action_label(action));

				for (char *c = label; *c; c++)
					*c = pg_ascii_tolower(*c);
				appendStringInfo(&buf, "%s\"%s\": {", buf.len > 0 ? "}, " : "{", label);
			}
			else
				appendStringInfoString(&buf, ", ");
			escape_json(&buf, description->activity_type);
			appendStringInfoString(&buf, ": ");
			escape_json(&buf, description->template);
			first = false;
		}
	}
	appendStringInfoString(&buf, buf.len > 0 ? "}}" : "{}");
	return buf.data;
}

/*
 * Reads the arguments of a trigger; table is for messages.  Whether the
 * columns they name exist is not checked here.
 */
AlSettings *
al_settings_parse(int nargs, char **args, const char *table)
{
	AlSettings *settings = palloc0(sizeof(AlSettings));

	settings->actions = AL_ALL_ACTIONS;
	for (int i = 0; i < nargs; i++)
	{
		char	   *value = strchr(args[i], '=');
		char	   *name;

		if (value == NULL)
			bad_argument(table, args[i]);
		name = pnstrdup(args[i], value - args[i]);
		value++;

		if (strcmp(name, "table") == 0)
			settings->table = pstrdup(value);
		else if (strcmp(name, "exclude") == 0)
			settings->exclude = parse_names(value);
		else if (strcmp(name, "include") == 0)
			settings->include = parse_names(value);
		else if (strcmp(name, "mask") == 0)
			settings->mask = parse_names(value);
		else if (strcmp(name, "require") == 0)
			settings->require = parse_names(value);
		else if (strcmp(name, "condition") == 0)
			settings->condition = pstrdup(value);
		else if (strcmp(name, "user_column") == 0)
			settings->user_column = pstrdup(value);
		else if (strcmp(name, "actions") == 0)
			settings->actions = parse_actions(parse_names(value), table, args[i]);
		else if (strcmp(name, "on_truncate") == 0)
		{
			if (strcmp(value, "rows") == 0)
				settings->on_truncate = AL_TRUNCATE_ROWS;
			else if (strcmp(value, "event") == 0)
				settings->on_truncate = AL_TRUNCATE_EVENT;
			else if (strcmp(value, "forbid") == 0)
				settings->on_truncate = AL_TRUNCATE_FORBID;
			else
				bad_argument(table, args[i]);
		}
		else if (strcmp(name, "always") == 0)
		{
			if (!parse_bool(value, &settings->always))
				bad_argument(table, args[i]);
		}
		else if (strcmp(name, "versioned") == 0)
		{
			if (!parse_bool(value, &settings->versioned))
				bad_argument(table, args[i]);
		}
		else if (strcmp(name, "version_table") == 0)
			settings->version_table = pstrdup(value);
		else if (strcmp(name, "version_columns") == 0)
			parse_version_columns(settings, value, table, args[i]);
		else if (strcmp(name, "describe") == 0)
			parse_descriptions(settings, value, table, args[i]);
		else
			bad_argument(table, args[i]);
	}
	return settings;
}

static void
add_names(StringInfo buf, const char *name, List *names)
{
	ListCell   *lc;

	if (names == NIL)
		return;
	appendStringInfo(buf, "%s\"%s\": [", buf->len > 1 ? ", " : "", name);
	foreach(lc, names)
	{
		if (lc != list_head(names))
			appendStringInfoString(buf, ", ");
		escape_json(buf, lfirst(lc));
	}
	appendStringInfoChar(buf, ']');
}

static void
add_text(StringInfo buf, const char *name, const char *value)
{
	appendStringInfo(buf, "%s\"%s\": ", buf->len > 1 ? ", " : "", name);
	escape_json(buf, value);
}

static void
add_version_columns(StringInfo buf, const AlSettings *settings)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < AL_VERSION_COLUMNS; i++)
		if (settings->version_columns[i])
			add_text(&names, version_column_names[i], settings->version_columns[i]);
	if (names.len > 0)
		appendStringInfo(buf, "%s\"version_columns\": {%s}", buf->len > 1 ? ", " : "",
						 names.data);
}

/* The settings that differ from the defaults, as tracked_table keeps them. */
char *
al_settings_json(const AlSettings *settings)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	add_names(&buf, "exclude", settings->exclude);
	add_names(&buf, "include", settings->include);
	add_names(&buf, "mask", settings->mask);
	if (settings->condition)
		add_text(&buf, "condition", settings->condition);
	if (settings->actions != AL_ALL_ACTIONS)
	{
		List	   *names = NIL;

		for (int i = 0; i <= AL_TRUNCATE; i++)
			if (settings->actions & (1 << i))
			{
				char	   *label = pstrdup(al_catalog_action_label(i));

				for (char *c = label; *c; c++)
					*c = pg_ascii_tolower(*c);
				names = lappend(names, label);
			}
		add_names(&buf, "actions", names);
	}
	if (settings->on_truncate != AL_TRUNCATE_ROWS)
		add_text(&buf, "on_truncate",
				 settings->on_truncate == AL_TRUNCATE_EVENT ? "event" : "forbid");
	if (settings->user_column)
		add_text(&buf, "user_column", settings->user_column);
	add_names(&buf, "require", settings->require);
	if (settings->always)
		appendStringInfo(&buf, "%s\"always\": true", buf.len > 1 ? ", " : "");
	if (settings->versioned)
		appendStringInfo(&buf, "%s\"versioned\": true", buf.len > 1 ? ", " : "");
	if (settings->version_table)
		add_text(&buf, "version_table", settings->version_table);
	add_version_columns(&buf, settings);
	if (settings->describe != NIL)
		appendStringInfo(&buf, "%s\"describe\": %s", buf.len > 1 ? ", " : "",
						 al_settings_descriptions(settings->describe));
	appendStringInfoChar(&buf, '}');
	return buf.data;
}
