/*
 * template.c
 *		Templates of audit_log.describe(): text with the names of columns in
 *		braces.
 *
 *	{column}		the column's value
 *	{column.old}	its value before an UPDATE
 *	{"any name"}	a name as SQL quotes it, also with .old behind
 *	{{ and }}		the braces themselves
 *
 * Pure: knows nothing of tables.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"

#include "audit_log.h"

static void
bad_template(const char *template, const char *place, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid template \"%s\"", template),
			 errdetail("At character %d: %s",
					   pg_mbstrlen_with_len(template, place - template) + 1, detail),
			 errhint("A column's value is {column} or {column.old}, a brace itself {{ or }}.")));
}

/* "any name": leaves *c behind the closing quote */
static char *
quoted_name(const char *template, const char **c)
{
	const char *start = *c;
	StringInfoData name;

	initStringInfo(&name);
	for ((*c)++;; (*c)++)
	{
		if (**c == '\0')
			bad_template(template, start, "a quoted name does not end.");
		if (**c == '"' && (*c)[1] != '"')
			break;
		if (**c == '"')
			(*c)++;
		appendStringInfoChar(&name, **c);
	}
	(*c)++;
	return name.data;
}

/* What stands between braces; *c is behind the opening one, then behind the closing one. */
static AlTemplatePart *
parse_reference(const char *template, const char **c)
{
	AlTemplatePart *part = palloc0(sizeof(AlTemplatePart));
	const char *open = *c - 1;

	if (**c == '"')
	{
		part->column = quoted_name(template, c);
		if (strncmp(*c, ".old", 4) == 0)
		{
			part->old = true;
			*c += 4;
		}
	}
	else
	{
		const char *start = *c;
		int			len;

		while (**c != '\0' && strchr("{}\"", **c) == NULL)
			(*c)++;
		len = *c - start;
		if (len > 4 && strncmp(*c - 4, ".old", 4) == 0)
		{
			part->old = true;
			len -= 4;
		}
		part->column = pnstrdup(start, len);
	}
	if (**c != '}')
		bad_template(template, open, "a brace does not end, or there is more in it than a column.");
	if (part->column[0] == '\0')
		bad_template(template, open, "the braces name no column.");
	(*c)++;
	return part;
}

static List *
add_literal(List *parts, StringInfo literal)
{
	AlTemplatePart *part;

	if (literal->len == 0)
		return parts;
	part = palloc0(sizeof(AlTemplatePart));
	part->text = pstrdup(literal->data);
	resetStringInfo(literal);
	return lappend(parts, part);
}

/* The parts of a template, of AlTemplatePart *; an error (22023) says what is wrong. */
List *
al_template_parse(const char *template)
{
	List	   *parts = NIL;
	StringInfoData literal;
	const char *c = template;

	initStringInfo(&literal);
	while (*c != '\0')
	{
		if (*c != '{' && *c != '}')
			appendStringInfoChar(&literal, *c++);
		else if (c[1] == *c)
		{
			appendStringInfoChar(&literal, *c);
			c += 2;
		}
		else if (*c == '}')
			bad_template(template, c, "a closing brace has no opening one.");
		else
		{
			parts = add_literal(parts, &literal);
			c++;
			parts = lappend(parts, parse_reference(template, &c));
		}
	}
	return add_literal(parts, &literal);
}

/* Can the name stand in braces as it is? */
static bool
needs_quotes(const char *name)
{
	size_t		len = strlen(name);

	return strpbrk(name, "{}\"") != NULL || (len > 4 && strcmp(name + len - 4, ".old") == 0);
}

/* The template of these parts. */
char *
al_template_write(List *parts)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, parts)
	{
		const AlTemplatePart *part = lfirst(lc);
		bool		quotes = part->column != NULL && needs_quotes(part->column);

		if (part->column != NULL)
			appendStringInfoString(&buf, quotes ? "{\"" : "{");
		for (const char *c = part->column ? part->column : part->text; *c != '\0'; c++)
		{
			if (part->column ? *c == '"' : *c == '{' || *c == '}')
				appendStringInfoChar(&buf, *c);
			appendStringInfoChar(&buf, *c);
		}
		if (part->column != NULL)
			appendStringInfo(&buf, "%s%s}", quotes ? "\"" : "", part->old ? ".old" : "");
	}
	return buf.data;
}
