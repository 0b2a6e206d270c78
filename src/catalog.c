/*
 * catalog.c
 *		Where the extension's own relations are.
 *
 * Looked up by name once and kept until one of them is invalidated (DROP
 * EXTENSION, ALTER EXTENSION … UPDATE); al_catalog_forget() is called by the
 * one relcache callback, in table.c.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "audit_log.h"

static AlCatalog catalog;
static bool catalog_valid = false;
static uint64 forgotten = 0;	/* how often it was invalidated */

static const char *const action_labels[AL_ACTIONS] =
{"INSERT", "UPDATE", "DELETE", "TRUNCATE", "SNAPSHOT"};

/*
 * The SQL versions that this library serves.  A newer one may keep things
 * that this library would not write, so it refuses.
 */
static const char served_versions[] = " 1.0 1.1 1.2 1.3 ";

static Oid
own_relation(const char *name)
{
	Oid			relid = get_relname_relid(name, catalog.schema);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation \"%s.%s\" of extension audit_log is missing",
						AL_SCHEMA, name),
				 errhint("Run CREATE EXTENSION audit_log, or drop the triggers that call it.")));
	return relid;
}

static void
check_version(void)
{
	Oid			extension = get_extension_oid("audit_log", true);
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;
	char	   *version = NULL;

	if (!OidIsValid(extension))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension audit_log is not installed in this database"),
				 errhint("Run CREATE EXTENSION audit_log, or drop the triggers that call it.")));

	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		isnull;
		Datum		d = heap_getattr(tuple, Anum_pg_extension_extversion,
									 RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (version != NULL && strstr(served_versions, psprintf(" %s ", version)) != NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this session's audit_log library does not serve version %s of the extension",
					version ? version : "(none)"),
			 errdetail("The session loaded the library before the extension was updated."),
			 errhint("Disconnect and connect again.")));
}

/* The extension's trigger function of that name. */
static Oid
own_function(const char *name)
{
	oidvector  *noargs = buildoidvector(NULL, 0);
	Oid			oid = GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid,
									  CStringGetDatum(name),
									  PointerGetDatum(noargs),
									  ObjectIdGetDatum(catalog.schema));

	if (!OidIsValid(oid))
		elog(ERROR, "function audit_log.%s() is missing", name);
	return oid;
}

const AlCatalog *
al_catalog_get(void)
{
	Oid			enumtype;
	HeapTuple	tuple;
	uint64		before = forgotten;

	if (catalog_valid)
		return &catalog;

	check_version();
	catalog.schema = get_namespace_oid(AL_SCHEMA, false);
	catalog.transaction = own_relation("transaction");
	catalog.change = own_relation("change");
	catalog.tracked_table = own_relation("tracked_table");
	catalog.table_state = own_relation("table_state");
	catalog.mask_secret = own_relation("mask_secret");
	catalog.transaction_id_seq = own_relation("transaction_id_seq");
	catalog.change_id_seq = own_relation("change_id_seq");
	catalog.tracked_table_id_seq = own_relation("tracked_table_id_seq");
	catalog.table_state_id_seq = own_relation("table_state_id_seq");
	catalog.cluster = get_relname_relid("cluster", catalog.schema);

	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(catalog.change));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", catalog.change);
	catalog.owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	enumtype = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
							   CStringGetDatum("action_type"),
							   ObjectIdGetDatum(catalog.schema));
	for (int i = 0; i < AL_ACTIONS; i++)
	{
		catalog.action[i] = GetSysCacheOid2(ENUMTYPOIDNAME, Anum_pg_enum_oid,
											ObjectIdGetDatum(enumtype),
											CStringGetDatum(action_labels[i]));
		if (!OidIsValid(catalog.action[i]))
			elog(ERROR, "audit_log.action_type has no label %s", action_labels[i]);
	}
	catalog.capture = own_function("capture");
	catalog.capture_flush = own_function("capture_flush");
	catalog.capture_truncate = own_function("capture_truncate");

	/* unless an invalidation has come meanwhile */
	catalog_valid = forgotten == before;
	return &catalog;
}

/*
 * Is relid one whose invalidation makes us look again?  An update script of
 * the extension alters one of these, so that sessions notice it.
 */
bool
al_catalog_forget(Oid relid)
{
	if (relid == InvalidOid || relid == catalog.tracked_table ||
		relid == catalog.table_state || relid == catalog.mask_secret)
	{
		catalog_valid = false;
		forgotten++;
		return true;
	}
	return false;
}

/* For invalidation callbacks, which must not look anything up. */
Oid
al_catalog_mask_secret(void)
{
	return catalog.mask_secret;
}

const char *
al_catalog_action_label(AlAction action)
{
	return action_labels[action];
}
