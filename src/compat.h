/*
 * compat.h
 *		The differences between PostgreSQL 15, 17, 18 and 19, all of them here.
 */
#ifndef AUDIT_LOG_COMPAT_H
#define AUDIT_LOG_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "audit_log needs PostgreSQL 15 or later"
#endif

/* relation file numbers were renamed in 16 */
#if PG_VERSION_NUM >= 160000
#define AL_XL_SEQ_REC_SET(record, rel) ((record).locator = (rel)->rd_locator)
#else
#define AL_XL_SEQ_REC_SET(record, rel) ((record).node = (rel)->rd_node)
#endif

/* 18 has NOT NULL constraints that are not valid for all rows */
#if PG_VERSION_NUM >= 180000
#define AL_ATT_NOT_NULL(desc, attnum) \
	(TupleDescAttr(desc, (attnum) - 1)->attnotnull && \
	 TupleDescCompactAttr(desc, (attnum) - 1)->attnullability != ATTNULLABLE_INVALID)
#else
#define AL_ATT_NOT_NULL(desc, attnum) (TupleDescAttr(desc, (attnum) - 1)->attnotnull)
#endif

/* 18 has generated columns that are computed when read */
#if PG_VERSION_NUM >= 180000
#define AL_ATT_IS_VIRTUAL(att) ((att)->attgenerated == ATTRIBUTE_GENERATED_VIRTUAL)
#else
#define AL_ATT_IS_VIRTUAL(att) (false)
#endif

/* whose expression, with those of other such columns in it, the server gives */
#if PG_VERSION_NUM >= 180000
#include "rewrite/rewriteHandler.h"
#define AL_GENERATION_EXPRESSION(rel, attnum) build_generation_expression(rel, attnum)
#else
#define AL_GENERATION_EXPRESSION(rel, attnum) NULL
#endif

/* 19 moved the sequence's WAL record to a header of its own */
#if PG_VERSION_NUM >= 190000
#include "commands/sequence_xlog.h"
#endif

/* 19 prepares a tuple descriptor for reading when it is complete */
#if PG_VERSION_NUM >= 190000
#define AL_TUPLE_DESC_FINALIZE(desc) TupleDescFinalize(desc)
#else
#define AL_TUPLE_DESC_FINALIZE(desc) ((void) 0)
#endif

/* 19 gave table scans flags */
#if PG_VERSION_NUM >= 190000
#define AL_TABLE_BEGINSCAN(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL, SO_NONE)
#else
#define AL_TABLE_BEGINSCAN(rel, snapshot) table_beginscan((rel), (snapshot), 0, NULL)
#endif

/* 19 gave the ids of system caches a type */
#if PG_VERSION_NUM >= 190000
#define AL_CACHE_ID SysCacheIdentifier
#else
#define AL_CACHE_ID int
#endif

/* ExecInsertIndexTuples() for a plain INSERT */
#if PG_VERSION_NUM >= 190000
#define AL_INSERT_INDEX_TUPLES(info, slot, estate) \
	ExecInsertIndexTuples((info), (estate), 0, (slot), NIL, NULL)
#elif PG_VERSION_NUM >= 160000
#define AL_INSERT_INDEX_TUPLES(info, slot, estate) \
	ExecInsertIndexTuples((info), (slot), (estate), false, false, NULL, NIL, false)
#else
#define AL_INSERT_INDEX_TUPLES(info, slot, estate) \
	ExecInsertIndexTuples((info), (slot), (estate), false, false, NULL, NIL)
#endif

/* 17 lets access methods keep things open between entries */
#if PG_VERSION_NUM >= 170000
#define AL_INDEX_INSERT_CLEANUP(rel, info) index_insert_cleanup((rel), (info))
#else
#define AL_INDEX_INSERT_CLEANUP(rel, info) ((void) 0)
#endif

/* a scan of an index: 18 counts its searches, 19 gave it flags */
#if PG_VERSION_NUM >= 190000
#define AL_INDEX_BEGINSCAN(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0, SO_NONE)
#elif PG_VERSION_NUM >= 180000
#define AL_INDEX_BEGINSCAN(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0)
#else
#define AL_INDEX_BEGINSCAN(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), (nkeys), 0)
#endif

/* 16 tells which indexes an UPDATE has to write: all, none, or BRIN ones only */
#if PG_VERSION_NUM >= 160000
#define AL_INDEXES_TO_UPDATE TU_UpdateIndexes
#else
#define AL_INDEXES_TO_UPDATE bool
#endif

/* does an UPDATE that has done so write this index? */
#if PG_VERSION_NUM >= 160000
#define AL_INDEX_TO_UPDATE(which, info) \
	((which) == TU_All || ((which) == TU_Summarizing && (info)->ii_Summarizing))
#else
#define AL_INDEX_TO_UPDATE(which, info) (which)
#endif

/* 16 gave tuplesort_getdatum() a flag: copy what is not passed by value */
#if PG_VERSION_NUM >= 160000
#define AL_TUPLESORT_GETDATUM(sort, value, isnull) \
	tuplesort_getdatum((sort), true, false, (value), (isnull), NULL)
#else
#define AL_TUPLESORT_GETDATUM(sort, value, isnull) \
	tuplesort_getdatum((sort), true, (value), (isnull), NULL)
#endif

/* 19 also tells of volatile ones */
#if PG_VERSION_NUM >= 190000
#define AL_DOMAIN_HAS_CONSTRAINTS(type) DomainHasConstraints((type), NULL)
#else
#define AL_DOMAIN_HAS_CONSTRAINTS(type) DomainHasConstraints(type)
#endif

/* one session's entry among those of all, from 1 */
#if PG_VERSION_NUM >= 160000
#define AL_BACKEND_STATUS(i) pgstat_get_local_beentry_by_index(i)
#else
#define AL_BACKEND_STATUS(i) pgstat_fetch_stat_local_beentry(i)
#endif

/* 16 made one function of those that ask who owns an object */
#if PG_VERSION_NUM >= 160000
#define AL_OWNS_TABLE(relid, role) object_ownercheck(RelationRelationId, (relid), (role))
#else
#define AL_OWNS_TABLE(relid, role) pg_class_ownercheck((relid), (role))
#endif

/* 18 has foreign keys that are not enforced */
#if PG_VERSION_NUM >= 180000
#define AL_CONSTRAINT_ENFORCED(constraint) ((constraint)->conenforced)
#else
#define AL_CONSTRAINT_ENFORCED(constraint) (true)
#endif

/* 18 has foreign keys of periods, which no single row need hold */
#if PG_VERSION_NUM >= 180000
#define AL_CONSTRAINT_PERIOD(constraint) ((constraint)->conperiod)
#else
#define AL_CONSTRAINT_PERIOD(constraint) (false)
#endif

#endif							/* AUDIT_LOG_COMPAT_H */
