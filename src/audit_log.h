/*
 * audit_log.h
 *		Types shared by the files of audit_log, and its map: every shared
 *		function stands below under the file that owns it, lowest layer first.
 *		A file calls only what stands above it here (tools/check-layers).
 *
 * SQL-callable symbols are named audit_log_*, others that cross files
 * al_<file>_*.
 */
#ifndef AUDIT_LOG_H
#define AUDIT_LOG_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "nodes/bitmapset.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/relcache.h"

#include "compat.h"

#define AL_SCHEMA "audit_log"

/* the triggers that enable() makes */
#define AL_ROW_TRIGGER "audit_log_row"
#define AL_FLUSH_TRIGGER "audit_log_flush"
#define AL_TRUNCATE_TRIGGER "audit_log_truncate"

/*
 * One value as the log writes it.  AL_NULL is SQL NULL and JSON null alike: a
 * column whose own value is JSON null is AL_PG.
 */
typedef enum AlValueKind
{
	AL_NULL,
	AL_BOOL,
	AL_NUMBER,
	AL_STRING,
	AL_CONTAINER,				/* JSON object or array */
	AL_PG						/* {"$pg": "text"}: only for a whole column */
} AlValueKind;

typedef struct AlValue
{
	AlValueKind kind;
	bool		boolean;		/* AL_BOOL */
	Numeric		number;			/* AL_NUMBER; finite; may have the short
								 * varlena header: DatumGetNumeric */
	const char *string;			/* AL_STRING, AL_PG: not terminated */
	JsonbContainer *container;	/* AL_CONTAINER: 4-byte aligned */
	int			len;			/* bytes of string or container */
} AlValue;

/* audit_log.action_type, in the order of its labels */
typedef enum AlAction
{
	AL_INSERT,
	AL_UPDATE,
	AL_DELETE,
	AL_TRUNCATE,
	AL_SNAPSHOT
} AlAction;

#define AL_ACTIONS 5
#define AL_ALL_ACTIONS ((1 << AL_INSERT) | (1 << AL_UPDATE) | \
						(1 << AL_DELETE) | (1 << AL_TRUNCATE))

/* columns of audit_log.transaction */
#define Natts_al_transaction 14
#define Anum_al_transaction_id 1
#define Anum_al_transaction_xid 2
#define Anum_al_transaction_timestamp 3
#define Anum_al_transaction_started_at 4
#define Anum_al_transaction_continues 5
#define Anum_al_transaction_user_id 6
#define Anum_al_transaction_db_user 7
#define Anum_al_transaction_db_role 8
#define Anum_al_transaction_application_name 9
#define Anum_al_transaction_client_addr 10
#define Anum_al_transaction_client_port 11
#define Anum_al_transaction_backend_pid 12
#define Anum_al_transaction_context 13
#define Anum_al_transaction_undoes 14

/* columns of audit_log.change */
#define Natts_al_change 9
#define Anum_al_change_id 1
#define Anum_al_change_transaction_id 2
#define Anum_al_change_timestamp 3
#define Anum_al_change_command 4
#define Anum_al_change_action_type 5
#define Anum_al_change_table_id 6
#define Anum_al_change_record_id 7
#define Anum_al_change_changes 8
#define Anum_al_change_old_record_id 9

/* ---------------------------------------------------------------- layer 1 */

/*
 * catalog.c: the extension's own relations.
 */
typedef struct AlCatalog
{
	Oid			schema;
	Oid			owner;			/* of the log's tables */
	Oid			transaction;
	Oid			change;
	Oid			tracked_table;
	Oid			table_state;
	Oid			mask_secret;
	Oid			transaction_id_seq;
	Oid			change_id_seq;
	Oid			tracked_table_id_seq;
	Oid			table_state_id_seq;
	Oid			action[AL_ACTIONS]; /* labels of audit_log.action_type */
	Oid			capture;		/* the trigger functions */
	Oid			capture_flush;
	Oid			capture_truncate;
} AlCatalog;

extern const AlCatalog *al_catalog_get(void);
extern bool al_catalog_forget(Oid relid);
extern Oid	al_catalog_mask_secret(void);
extern const char *al_catalog_action_label(AlAction action);

/*
 * sequence.c
 */
extern int64 al_sequence_take(Oid seqid, int64 count);
extern int64 al_sequence_last(Oid seqid);

/*
 * settings.c
 */
typedef enum AlOnTruncate
{
	AL_TRUNCATE_ROWS,
	AL_TRUNCATE_EVENT,
	AL_TRUNCATE_FORBID
} AlOnTruncate;

/* the columns that a version table has beside those of its table */
typedef enum AlVersionColumn
{
	AL_VERSION_TRANSACTION,
	AL_VERSION_END_TRANSACTION,
	AL_VERSION_OPERATION,
	AL_VERSION_FROM,
	AL_VERSION_TO
} AlVersionColumn;

#define AL_VERSION_COLUMNS 5

/* the arguments of one table's trigger; lists are of char * */
typedef struct AlSettings
{
	char	   *table;			/* uuid, NULL when attached by hand */
	List	   *exclude;
	List	   *include;
	List	   *mask;
	List	   *require;
	char	   *condition;
	char	   *user_column;
	int			actions;		/* 1 << AlAction */
	AlOnTruncate on_truncate;
	bool		always;
	bool		versioned;
	char	   *version_table;	/* NULL: <table>_version */
	char	   *version_columns[AL_VERSION_COLUMNS];	/* NULL: its usual name */
} AlSettings;

extern char *al_settings_user_id;
extern char *al_settings_context;
extern char *al_settings_user_id_source;
extern bool al_settings_notify;

extern void al_settings_init(void);
extern const char *al_settings_version_column(const AlSettings *settings,
											  AlVersionColumn column);
extern AlSettings *al_settings_parse(int nargs, char **args, const char *table);
extern char *al_settings_json(const AlSettings *settings);

/*
 * jsonbuild.c: writes jsonb's binary form directly.
 *
 * The number of entries is told at the beginning, the keys of an object come
 * first and in jsonb's order (al_jsonbuild_key_cmp), then the values in the
 * same order.  Everything raises 54000 where jsonb's limit of 256 MB is
 * passed.
 */
typedef struct AlJsonFrame
{
	StringInfo	buf;
	int			start;			/* where the container's entry begins,
								 * alignment included */
	int			entries;		/* offset of the first JEntry in buf */
	int			nentries;		/* all of them: keys and values */
	int			next;			/* the entry to write next */
	uint32		total;			/* length of all data so far */
	uint32		header;			/* the container's header word */
} AlJsonFrame;

/* the keys of an object, kept for others with the same */
typedef struct AlJsonKeys
{
	int			n;
	JEntry	   *entries;
	char	   *names;
	int			len;			/* of names */
} AlJsonKeys;

extern void al_jsonbuild_init(StringInfo buf);	/* empties buf, leaves room
												 * for the varlena header */
extern void al_jsonbuild_object(AlJsonFrame *frame, StringInfo buf, int npairs);
extern void al_jsonbuild_array(AlJsonFrame *frame, StringInfo buf, int nelems);
extern void al_jsonbuild_key(AlJsonFrame *frame, const char *key, int len);
extern void al_jsonbuild_keys(AlJsonFrame *frame, const AlJsonKeys *keys);
extern void al_jsonbuild_keep_keys(const AlJsonFrame *frame, AlJsonKeys *keys,
								   MemoryContext cxt);
extern void al_jsonbuild_value(AlJsonFrame *frame, const AlValue *value);
extern void al_jsonbuild_close(AlJsonFrame *frame, AlJsonFrame *parent);
extern Jsonb *al_jsonbuild_finish(StringInfo buf);	/* buf's own data */
extern Jsonb *al_jsonbuild_scalar(const AlValue *value);	/* raw scalar, or a
															 * copy of the
															 * container */
extern int	al_jsonbuild_key_cmp(const char *a, int alen, const char *b, int blen);
extern void al_jsonbuild_from_jsonb(AlValue *out, const JsonbValue *value);
extern void al_jsonbuild_from_root(AlValue *out, Jsonb *root);
extern bool al_jsonbuild_image_eq(const AlValue *a, const AlValue *b);
extern char *al_jsonbuild_text(const AlValue *value, int *len); /* as ->> gives */

/*
 * jsonwalk.c: the children of a jsonb container, in order.
 */
typedef struct AlJsonWalk
{
	const JsonbContainer *container;
	char	   *data;			/* of the container's children */
	int			npairs;			/* pairs, or elements of an array */
	int			next;
	uint32		keyoff;			/* where the next child begins in data */
	uint32		valoff;

	const char *key;			/* of the current pair; NULL in an array, and
								 * at the end */
	int			keylen;
	AlValue		value;
} AlJsonWalk;

extern void al_jsonwalk_begin(AlJsonWalk *walk, const JsonbContainer *container);
extern bool al_jsonwalk_next(AlJsonWalk *walk);
extern int	al_jsonwalk_cmp(const AlJsonWalk *a, const AlJsonWalk *b);

static inline bool
al_jsonwalk_is_object(const AlValue *value)
{
	return value->kind == AL_CONTAINER && JsonContainerIsObject(value->container);
}

/*
 * jsontext.c: text to jsonb without an error: NULL where it cannot be (try), and
 * where jsonb would not write that very text (parse)
 */
extern Jsonb *al_jsontext_try(const char *text, int len);
extern Jsonb *al_jsontext_parse(const char *text, int len);

/*
 * fixed.c: the settings under which values are written and read, whatever the
 * session's own are (design.md, section 3).
 */
typedef enum AlFixedNeed
{
	AL_FIXED_NOTHING,			/* output does not depend on settings */
	AL_FIXED_VARIABLES,			/* on those that are plain C variables */
	AL_FIXED_ALL				/* on search_path, lc_monetary or who knows */
} AlFixedNeed;

typedef struct AlFixed
{
	AlFixedNeed need;
	int			gucnest;
	int			interval_style;
	int			date_style;
	int			date_order;
	int			float_digits;
	int			bytea_out;
	int			xml_option;
	struct pg_tz *timezone;
} AlFixed;

/* enter may be left by al_fixed_leave only; put PG_TRY/PG_FINALLY round it */
extern void al_fixed_set(const char *name, const char *value);
extern void al_fixed_enter(AlFixed *saved, AlFixedNeed need);
extern void al_fixed_leave(AlFixed *saved);
/* what a type's output function needs, of whatever type */
extern AlFixedNeed al_fixed_text_need(Oid typid);

/* ---------------------------------------------------------------- layer 2 */

/*
 * encode_single.c: a value that is neither array nor composite to an AlValue.
 * The caller has entered the fixed settings that are needed.  Results point
 * into the datum or into CurrentMemoryContext.
 */
typedef struct AlSingle
{
	Oid			typid;			/* never a domain */
	FmgrInfo	output;
	AlFixedNeed need;			/* of encode: the caller's to enter */
	AlFixedNeed text_need;		/* of the output function: entered by
								 * al_encode_single_pg */
	bool		verify;			/* whether its text is in the database's
								 * encoding: not all types care */

	/* whole: the value is a column's, not part of an array or a composite */
	void		(*encode) (struct AlSingle *single, Datum value, AlValue *out,
						   bool whole);
} AlSingle;

extern void al_encode_single_prepare(AlSingle *single, Oid typid, MemoryContext cxt);
extern void al_encode_single_pg(AlSingle *single, Datum value, AlValue *out);
/* an object whose only key is $pg */
extern bool al_encode_single_is_pg(const JsonbContainer *container);

/*
 * encode.c: a column's value to an AlValue, by rules prepared once a column;
 * as for encode_single.c, the caller has entered the settings.
 */
typedef struct AlEncoder AlEncoder;

extern AlEncoder *al_encode_prepare(Oid typid, int32 typmod, MemoryContext cxt);
extern AlFixedNeed al_encode_need(const AlEncoder *encoder);
extern void al_encode_value(AlEncoder *encoder, Datum value, AlValue *out);

/*
 * decode.c: the way back, through the types' input functions.  All enter the
 * fixed settings themselves.
 */
typedef struct AlDecoder AlDecoder;

/* columns that the object lacks are NULL; keys that are no column: 42703 */
extern AlDecoder *al_decode_prepare(TupleDesc tupdesc, MemoryContext cxt);
extern void al_decode_columns(AlDecoder *decoder, Jsonb *object,
							  Datum *values, bool *nulls);

/*
 * delta.c: makes jsondiffpatch deltas between JSON values.
 */
/* what a delta says of one place */
typedef enum AlDeltaKind
{
	AL_DELTA_ADDED,
	AL_DELTA_CHANGED,
	AL_DELTA_REMOVED,
	AL_DELTA_NESTED
} AlDeltaKind;

typedef struct AlDelta
{
	AlDeltaKind kind;
	AlValue		old;			/* of AL_DELTA_CHANGED and AL_DELTA_REMOVED */
	AlValue		new;			/* of AL_DELTA_CHANGED and AL_DELTA_ADDED; read
								 * of AL_DELTA_NESTED: the delta itself */
} AlDelta;

/* delta of two JSON objects; false where their images are equal */
extern bool al_delta_objects(const AlValue *old, const AlValue *new, AlValue *out);

/*
 * deltaread.c: reads deltas; what is none is an error (22023) that names the
 * place.
 */
/* the way down to a place, innermost first; NULL is the whole document */
typedef struct AlPlace
{
	const struct AlPlace *parent;
	const char *key;
	int			keylen;
} AlPlace;

extern void al_deltaread_value(const AlValue *value, const AlPlace *place,
							   AlDelta *delta);
extern void al_deltaread_key(const AlJsonWalk *walk, const AlPlace *parent,
							 AlDelta *delta);
extern char *al_deltaread_place(const AlPlace *place);

/*
 * patch.c: applies deltas.  NULL stands for no document, as argument and as
 * result.
 */
extern Jsonb *al_patch_apply(Jsonb *document, Jsonb *delta, bool reverse);

/*
 * session.c
 */
extern bool al_session_context_has(const char *key);
extern const char *al_session_user(const char *row_user);
extern int64 al_session_row_id(const char *user);
extern int64 al_session_next_id(void);
extern void al_session_fill_row(const char *user, Datum *values, bool *nulls);
extern void al_session_row_written(int64 id, const char *user);
extern int64 al_session_transaction_id(void);
extern void al_session_force_new(void);
extern bool al_session_has_row(void);
extern bool al_session_is_highest(const char *user);
extern void al_session_rise_above(const char *user, int64 id);
extern void al_session_pass_id(int64 id);
extern void al_session_end_transaction(void);
extern void al_session_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_session_abort_sub(SubTransactionId subid);

/*
 * mask.c
 */
extern void al_mask_value(const char *text, int len, AlValue *out);
extern char *al_mask_fingerprint(void);
extern void al_mask_forget(Oid relid);

/* ---------------------------------------------------------------- layer 3 */

/*
 * target.c: a relation into which rows are written, a batch at a time.
 */
typedef struct AlTarget AlTarget;
typedef void (*AlTargetCheck) (Relation rel);

extern void al_target_init(void);
extern void al_target_forget(Oid relid);
extern AlTarget *al_target_open(Oid relid, AlTargetCheck check);
extern TupleDesc al_target_desc(const AlTarget *target);
extern void al_target_store(AlTarget *target, int i, HeapTuple tuple);
extern void al_target_insert(AlTarget *target, int n);
extern void al_target_update(AlTarget *target, ItemPointer tid, HeapTuple tuple);
extern Relation al_target_relation(const AlTarget *target);
extern void al_target_close(AlTarget *target);
extern void al_target_end_transaction(void);
extern void al_target_abort_sub(SubTransactionId subid);

/*
 * route.c: which partition of audit_log.change a moment belongs to.
 */
extern void al_route_forget(Oid relid);
extern Oid	al_route_lock(TimestampTz timestamp, TimestampTz *from, TimestampTz *to);

/* -------------------------------------------------------------- layer 3.1 */

/*
 * table.c: what is known of one tracked table, from the point of view of one
 * trigger of one relation (of a partition: names and key are the root's,
 * attribute numbers its own).
 */
typedef struct AlColumn
{
	char	   *name;
	int			namelen;
	AttrNumber	attnum;
	int16		typlen;
	bool		typbyval;
	bool		masked;
	bool		json;			/* json or jsonb: objects are compared inside */
	bool		integer;		/* smallint, integer or bigint */
	AlEncoder  *encoder;
} AlColumn;

/* which columns an object had last, and its keys */
typedef struct AlColumnKeys
{
	bool	   *present;		/* of each column; NULL: nothing kept yet */
	AlJsonKeys	keys;
} AlColumnKeys;

typedef struct AlTable
{
	Oid			relid;
	Oid			trigger;
	Oid			root;			/* relid itself if no partition */
	char	   *own_schema;		/* of relid */
	char	   *schema;			/* of the root */
	char	   *name;
	AlSettings *settings;
	int			ncolumns;		/* the tracked ones, in jsonb's key order */
	AlColumn   *columns;
	AttrNumber	last_attnum;	/* deform up to here */
	int			nkeys;			/* 0: table without key */
	AlColumn  **keys;			/* in key order */
	bool		key_masked;
	AlColumnKeys *row_keys;		/* of whole rows, */
	AlColumnKeys *delta_keys;	/* and of deltas: row.c's */
	AlFixedNeed need;
	AlColumn   *user_column;	/* NULL: none; may be one not tracked */
	bool		flush_certain;	/* a flush trigger ends each statement */
	int			deputed;		/* events (TRIGGER_TYPE_…) that another trigger of
								 * ours captures */
	int			replication_role;	/* for which these two hold */
	struct AlCondition *condition;	/* prepared in this transaction, or NULL */
	int32		table_id;		/* 0: not looked up yet */
	Oid			version_relid;	/* whose change makes this invalid too */
	struct AlVersions *versions;	/* NULL: not prepared */
	MemoryContext cxt;
} AlTable;

extern void al_table_init(void);
extern void al_table_end_transaction(void);
extern AlTable *al_table_get(Relation rel, Trigger *trigger);
extern Trigger *al_table_trigger(Relation rel, const char *name, Oid function);
extern bool al_table_trigger_fires(const Trigger *trigger);
extern Oid	al_table_root(Relation rel);
extern List *al_table_key_columns(Relation root, List *excluded);
extern char *al_table_columns_json(Relation rel);
extern void al_table_forget_ids(void);

/*
 * condition.c
 */
extern char *al_condition_qualify(Relation rel, const char *text);
extern bool al_condition_holds(AlTable *table, Relation rel,
							   TupleTableSlot *old, TupleTableSlot *new);

/*
 * writer.c: the only code that inserts into the log.
 */
typedef struct AlEntry
{
	int64		transaction_id;
	CommandId	command;
	TimestampTz timestamp;
	AlAction	action;
	int32		table_id;
	text	   *record_id;		/* NULL: none */
	text	   *old_record_id;
	Jsonb	   *changes;
} AlEntry;

extern int64 al_writer_transaction(const char *user);
extern void al_writer_add(const AlEntry *entry);
extern void al_writer_flush(void);
extern void al_writer_end_transaction(void);
extern void al_writer_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_writer_abort_sub(SubTransactionId subid);

/*
 * row.c: what the log says of a row.
 */
extern void al_row_whole(const AlTable *table, TupleTableSlot *slot, AlEntry *entry);
extern bool al_row_difference(const AlTable *table, TupleTableSlot *old,
							  TupleTableSlot *new, AlEntry *entry);
extern const char *al_row_user(const AlTable *table, TupleTableSlot *new);

/*
 * version.c: a table's version table (design.md, section 6), and the search for a
 * record's newest version.
 */
/* one key column of a version table, in the order of its primary key */
typedef struct AlVersionKey
{
	AttrNumber	attnum;			/* in the version table */
	AttrNumber	source;			/* in the tracked relation */
	bool		byval;
	int16		len;
	FmgrInfo	equal;
	Oid			collation;
} AlVersionKey;

/* a version table, seen from one tracked relation; in its AlTable's memory */
typedef struct AlVersions
{
	Oid			relid;
	Oid			index;			/* of the primary key */
	TupleDesc	desc;
	AttrNumber *source;			/* of each column in the tracked relation, 0:
								 * NULL */
	AttrNumber	last_source;
	AttrNumber	own[AL_VERSION_COLUMNS];
	int			nkeys;
	AlVersionKey *keys;
	bool		image_keys;		/* keys that are equal have the same image */
	bool		ids_passed;		/* ids given out are higher than all there */
} AlVersions;

/* operation_type */
#define AL_INSERTED 0
#define AL_UPDATED 1
#define AL_DELETED 2

/* one record as its newest version has it, seen from our own transaction */
typedef struct AlVersionRecord
{
	bool		found;			/* it has a version */
	ItemPointerData tid;		/* of the newest */
	int64		id;				/* its transaction_id */
	int16		operation;
	TimestampTz valid_from;
	bool		ours;			/* this transaction has written it … */
	CommandId	command;		/* … in this command */
	bool		before;			/* the record was there before that version;
								 * of a delete version known where it is ours */
	uint64		looked;			/* when: what was written since makes it stale */
} AlVersionRecord;

/* the records that a change touches, before it is attributed */
typedef struct AlVersionLook
{
	bool		key_changed;	/* then there are two, the new key's second */
	int64		newest;			/* highest id of their versions, 0: none */
	AlVersionRecord record[2];
} AlVersionLook;

/* one search after the other in the primary key of a version table */
typedef struct AlVersionSearch
{
	const AlVersions *versions;
	struct IndexScanDescData *scan;
	MemoryContext cxt;			/* of the scan */
	TupleTableSlot *slot;		/* holds what was found */
} AlVersionSearch;

extern uint64 al_version_writes;

extern AlVersions *al_version_of(AlTable *table);
extern int64 al_version_value(const AlVersions *versions, HeapTuple tuple,
							  AlVersionColumn column);
extern void al_version_key(const AlVersions *versions, TupleTableSlot *slot, Datum *key);
extern bool al_version_same_key(AlVersions *versions, const Datum *a, const Datum *b);
extern void al_version_begin_search(AlVersionSearch *search, const AlVersions *versions,
									Relation rel, Relation index);
extern void al_version_search(AlVersionSearch *search, const Datum *key,
							  AlVersionRecord *record);
extern void al_version_end_search(AlVersionSearch *search);
extern void al_version_record(const AlVersions *versions, TupleTableSlot *slot,
							  AlVersionRecord *record);
extern void al_version_look(AlTable *table, AlAction action, TupleTableSlot *old,
							TupleTableSlot *new, bool ids, AlVersionLook *look);

/*
 * version_past.c: changes that a later command of ours has overtaken.
 */
extern bool al_version_past_row(const AlTable *table, TupleTableSlot *slot);
extern void al_version_past_arrival(const AlTable *table, CommandId command);
extern bool al_version_past_key(const AlTable *table, const AlVersions *versions,
								const Datum *key, CommandId command);
extern void al_version_past_end_transaction(void);

/*
 * version_write.c: writes version tables.
 */
extern void al_version_add(AlTable *table, const AlVersionLook *look, AlAction action,
						   TupleTableSlot *old, TupleTableSlot *new,
						   const AlEntry *entry);
extern void al_version_put(AlVersions *versions, const AlVersionRecord *record, bool present,
						   const Datum *key, TupleTableSlot *slot, HeapTuple row,
						   const AlEntry *entry);
extern void al_version_flush(void);
extern void al_version_end_transaction(void);
extern void al_version_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_version_abort_sub(SubTransactionId subid);

/* -------------------------------------------------------------- layer 3.5 */

/*
 * own.c: doing things as the owner of the log.
 */
typedef struct AlOwn
{
	Oid			user;
	int			context;
	int			gucnest;
	int			depth;
	struct AlOwn *outer;
	const char *search_path;	/* of the session, when the outermost */
} AlOwn;

/* the command that an event trigger is called for, NULL outside of one */
extern const Node *al_own_command;

extern bool al_own_active(void);
extern void al_own_enter(AlOwn *saved);
extern void al_own_leave(AlOwn *saved);
/* what users wrote is evaluated in between, whoever has entered own */
extern void al_own_yield_to_caller(AlOwn *saved);
extern void al_own_yield_to(AlOwn *saved, Oid role);
extern bool al_own_may_read(Oid relid, Oid role);

/*
 * register.c: tracked_table and table_state.  detail is a JSON object or NULL.
 */
extern void al_register_table(AlTable *table);
extern void al_register_state(AlTable *table, const char *kind, const char *detail);
extern void al_register_note(int32 table_id, const char *kind, const char *detail);
extern void al_register_set_mask_key(bytea *key);
extern void al_register_pause(int32 table_id);
extern bool al_register_paused(int32 table_id);
extern bool al_register_pausing(void);
extern void al_register_end_transaction(bool commit);
extern void al_register_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_register_abort_sub(SubTransactionId subid);

/*
 * entry.c: one change, from the slots to the writer.
 */
typedef struct AlActivity
{
	const char *action;			/* for the error context */
	Relation	rel;
	const char *schema;			/* its schema; NULL: not looked up yet */
} AlActivity;

typedef struct AlRowMemory
{
	MemoryContext cxt;
	MemoryContext old;
	bool		nested;
} AlRowMemory;

extern TriggerData *al_entry_protocol(FunctionCallInfo fcinfo, const char *function,
									  bool row, bool after);
extern void al_entry_report(void *arg);
extern int	al_entry_depth(void);
extern void al_entry_memory_enter(AlRowMemory *memory);
extern void al_entry_memory_leave(AlRowMemory *memory);
extern void al_entry_end_transaction(void);
extern bool al_entry_wanted(const AlTable *table, AlAction action);
extern bool al_entry_condition(AlTable *table, Relation rel,
							   TupleTableSlot *old, TupleTableSlot *new);
extern void al_entry_attribute(AlEntry *entry, AlTable *table, AlAction action,
							   CommandId command, TupleTableSlot *old,
							   TupleTableSlot *new, AlVersionLook *look);
extern void al_entry_log(AlTable *table, AlAction action, TupleTableSlot *old,
						 TupleTableSlot *new, CommandId command);

/* ---------------------------------------------------------------- layer 4 */

/*
 * truncate.c: whole tables.
 */
extern void al_truncate_refuse_changes(const AlTable *table);
extern void al_truncate_finish(Oid root, int min_depth);
extern bool al_truncate_pending(void);
extern void al_truncate_finish_all(void);
extern void al_truncate_end_transaction(void);
extern void al_truncate_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_truncate_abort_sub(SubTransactionId subid);

/*
 * outbox.c
 */
extern void al_outbox_announce(void);

/* -------------------------------------------------------------- layer 4.5 */

/*
 * capture.c
 */
extern void al_capture_init(void);

#endif							/* AUDIT_LOG_H */
