/*
 * fixed.c
 *		The settings under which values are written and read.
 *
 * What a type's output function gives depends on settings that anybody may
 * change for his session.  The log must read the same whoever wrote it, so
 * these are fixed while values are encoded and decoded.
 *
 * Capture needs that for every row, and the settings' own machinery costs more
 * than many a row.  But nearly all that matters are plain C variables, which
 * only output and input functions look at: those we swap directly.  Only what
 * other backend state hangs on (the search path's list of namespaces, the
 * locale's money symbols) goes through set_config_option.
 *
 * One thing escapes the swapping: a function with a clause SET TimeZone or SET
 * DateStyle puts the session's value back when it returns.  No output function
 * has such a clause; a domain's CHECK, which decoding runs, may call one that
 * has, but the texts that are read then name zone and order themselves.
 *
 * Between enter and leave no state is kept here: the caller's AlFixed holds
 * what leave restores, so that they nest like the calls do.
 */
#include "audit_log.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/xml.h"

/*
 * pg_temp is named so that it is searched last: where it is not named it is
 * searched first, and a temporary table or type could take the place of one of
 * pg_catalog.
 */
#define AL_FIXED_SEARCH_PATH	"pg_catalog, pg_temp"
#define AL_FIXED_LC_MONETARY	"C"
#define AL_FIXED_FLOAT_DIGITS	1

/* from utils/pg_locale.h, which cannot be included without ICU's headers */
extern PGDLLIMPORT char *locale_monetary;

/* for the life of the backend; the server caches time zones as long */
static pg_tz *utc = NULL;

/*
 * What the text of a type's output function depends on.  Types that stand
 * nowhere here may depend on anything: those of extensions and users, money,
 * those named reg..., and built-in types of versions yet to come.
 */
AlFixedNeed
al_fixed_text_need(Oid typid)
{
	Oid			element;

	switch (typid)
	{
		case BOOLOID:
		case CHAROID:
		case NAMEOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case INT2VECTOROID:
		case OIDOID:
		case OIDVECTOROID:
		case TIDOID:
		case XIDOID:
		case XID8OID:
		case CIDOID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case REFCURSOROID:
		case UUIDOID:
		case BITOID:
		case VARBITOID:
		case INETOID:
		case CIDROID:
		case MACADDROID:
		case MACADDR8OID:
		case JSONOID:
		case JSONBOID:
		case JSONPATHOID:
		case XMLOID:
		case TSVECTOROID:
		case TSQUERYOID:
		case PG_LSNOID:
		case TXID_SNAPSHOTOID:
		case PG_SNAPSHOTOID:
		case ACLITEMOID:
			return AL_FIXED_NOTHING;

		case FLOAT4OID:
		case FLOAT8OID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case BYTEAOID:
		case POINTOID:
		case LSEGOID:
		case PATHOID:
		case BOXOID:
		case POLYGONOID:
		case LINEOID:
		case CIRCLEOID:
			return AL_FIXED_VARIABLES;

		default:
			break;
	}

	switch (get_typtype(typid))
	{
		case TYPTYPE_DOMAIN:
			return al_fixed_text_need(getBaseType(typid));
		case TYPTYPE_ENUM:
			return AL_FIXED_NOTHING;
		case TYPTYPE_RANGE:
			return al_fixed_text_need(get_range_subtype(typid));
		case TYPTYPE_MULTIRANGE:
			return al_fixed_text_need(get_multirange_range(typid));
		case TYPTYPE_BASE:
			element = get_element_type(typid);
			if (OidIsValid(element))
				return al_fixed_text_need(element);
			break;
		default:
			break;
	}

	/* composite types change: all, so that it stays true */
	return AL_FIXED_ALL;
}

/* Sets a parameter until the current nest level ends. */
void
al_fixed_set(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

/*
 * Until the caller's nest level of settings ends: what is read and written at
 * once is maintenance, whose sorts and joins need not go to disk.  Nor does the
 * planner know how many rows there are, so it is no judge of what pays.
 */
void
al_fixed_maintenance(void)
{
	if (work_mem < maintenance_work_mem)
		al_fixed_set("work_mem", psprintf("%d", maintenance_work_mem));
	al_fixed_set("jit", "off");
}

/*
 * Everything that can fail comes before the first variable is swapped, so the
 * caller's PG_TRY may begin after this call.  A nest level that an error left
 * open here is closed by the abort of the transaction.
 */
void
al_fixed_enter(AlFixed *saved, AlFixedNeed need)
{
	saved->need = need;
	saved->gucnest = 0;

	if (need == AL_FIXED_NOTHING)
		return;

	if (utc == NULL)
	{
		utc = pg_tzset("UTC");
		if (utc == NULL)
			utc = pg_tzset("GMT");	/* needs no file of the tz database */
		if (utc == NULL)
			elog(ERROR, "could not find time zone UTC");
	}

	if (need == AL_FIXED_ALL)
	{
		bool		path = strcmp(namespace_search_path, AL_FIXED_SEARCH_PATH) != 0;
		bool		money = strcmp(locale_monetary, AL_FIXED_LC_MONETARY) != 0;

		if (path || money)
		{
			saved->gucnest = NewGUCNestLevel();
			if (path)
				al_fixed_set("search_path", AL_FIXED_SEARCH_PATH);
			if (money)
				al_fixed_set("lc_monetary", AL_FIXED_LC_MONETARY);
		}
	}

	saved->interval_style = IntervalStyle;
	saved->date_style = DateStyle;
	saved->date_order = DateOrder;
	saved->float_digits = extra_float_digits;
	saved->bytea_out = bytea_output;
	saved->xml_option = xmloption;
	saved->timezone = session_timezone;

	IntervalStyle = INTSTYLE_POSTGRES;
	DateStyle = USE_ISO_DATES;
	DateOrder = DATEORDER_MDY;
	extra_float_digits = AL_FIXED_FLOAT_DIGITS;
	bytea_output = BYTEA_OUTPUT_HEX;
	xmloption = XMLOPTION_CONTENT;
	session_timezone = utc;
}

/*
 * Called after an error too, before the transaction is aborted.  That is safe:
 * no catalog is read, and if settings of levels above ours, which the error
 * left behind, are merged into the level below as if they had been committed,
 * the abort takes them back from there.  Leaving it to the abort alone would
 * restore search_path only, not the variables, of which the settings' machinery
 * knows nothing.
 */
void
al_fixed_leave(AlFixed *saved)
{
	if (saved->need == AL_FIXED_NOTHING)
		return;

	IntervalStyle = saved->interval_style;
	DateStyle = saved->date_style;
	DateOrder = saved->date_order;
	extra_float_digits = saved->float_digits;
	bytea_output = saved->bytea_out;
	xmloption = saved->xml_option;
	session_timezone = saved->timezone;

	if (saved->gucnest > 0)
		AtEOXact_GUC(true, saved->gucnest);
}
