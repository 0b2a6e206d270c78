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

/* columns of audit_log.cluster */
#define Natts_al_cluster 5
#define Anum_al_cluster_system_identifier 1
#define Anum_al_cluster_timeline 2
#define Anum_al_cluster_first_transaction_id 3
#define Anum_al_cluster_first_change_id 4
#define Anum_al_cluster_timestamp 5

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
	Oid			cluster;		/* InvalidOid before version 1.2 */
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

/* one template of describe() */
typedef struct AlDescription
{
	AlAction	action;
	char	   *activity_type;
	char	   *template;
} AlDescription;

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
	List	   *describe;		/* of AlDescription * */
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
extern char *al_settings_descriptions(List *descriptions);

/*
 * template.c: templates of describe().
 */
typedef struct AlTemplatePart
{
	char	   *text;			/* a literal, or NULL */
	char	   *column;
	bool		old;			/* its value before */
} AlTemplatePart;

extern List *al_template_parse(const char *template);
extern char *al_template_write(List *parts);

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
extern void al_fixed_maintenance(void);
extern void al_fixed_enter(AlFixed *saved, AlFixedNeed need);
extern void al_fixed_leave(AlFixed *saved);
/* what a type's output function needs, of whatever type */
extern AlFixedNeed al_fixed_text_need(Oid typid);

/*
 * texthash.c: hash tables by text, an entry's first member points to its own.
 */
extern struct HTAB *al_texthash_create(const char *name, int64 entries, Size entrysize,
									   MemoryContext cxt);

/*
 * pairs.c: JSON objects put together from the pairs of others.
 */
typedef struct AlPairs
{
	int			n;
	AlJsonWalk *pairs;			/* only key and value are used */
} AlPairs;

extern AlPairs *al_pairs_room(Jsonb *a, Jsonb *b);	/* for those of both */
extern void al_pairs_add(AlPairs *pairs, const AlJsonWalk *walk);
extern Jsonb *al_pairs_object(const AlPairs *pairs);
extern Jsonb *al_pairs_empty(void);
extern Jsonb *al_pairs_without_nulls(Jsonb *object);
extern bool al_pairs_same(const AlValue *now, const AlValue *then, bool null_is_none);

/*
 * progress.c: how far taking back has come.
 */
typedef enum AlProgressPhase
{
	AL_PROGRESS_LOG,
	AL_PROGRESS_ROWS,
	AL_PROGRESS_CONFLICTS,
	AL_PROGRESS_WRITING,
	AL_PROGRESS_TRIGGERS
} AlProgressPhase;

extern void al_progress_begin(AlProgressPhase new_phase, int64 new_total);
extern void al_progress_add(int64 rows);
extern void al_progress_row(void);
extern void al_progress_end(void);

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

/*
 * columns that the object lacks are NULL; keys that are no column: 42703.
 * wanted: attribute numbers of those to be read, NULL: all
 */
extern AlDecoder *al_decode_prepare(TupleDesc tupdesc, MemoryContext cxt);
extern void al_decode_columns(AlDecoder *decoder, Jsonb *object, const Bitmapset *wanted,
							  Datum *values, bool *nulls);
/*
 * One column's value, attno from 0; the caller has entered AL_FIXED_ALL.  pg:
 * an object with the only key $pg stands for a text
 */
extern Datum al_decode_value(AlDecoder *decoder, int attno, const AlValue *value,
							 bool pg, bool *isnull);

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
extern Jsonb *al_session_set_undoes(Jsonb *what);
extern bool al_session_undoing(void);
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
extern void al_target_add(AlTarget *target, HeapTuple tuple);
extern void al_target_update(AlTarget *target, ItemPointer tid, HeapTuple tuple);
extern void al_target_write(AlTarget *target);
extern Relation al_target_relation(const AlTarget *target);
extern void al_target_close(AlTarget *target);
extern void al_target_end_transaction(void);
extern void al_target_abort_sub(SubTransactionId subid);

/*
 * buffer.c: rows that wait to be written, each under the (sub)transaction that
 * made its change.
 */
#define AL_BUFFER_ITEMS 1000
#define AL_BUFFER_BYTES (2 * 1024 * 1024)

typedef struct AlBuffered		/* what an item begins with */
{
	HeapTuple	tuple;			/* in the buffer's memory */
	SubTransactionId subid;
} AlBuffered;

typedef struct AlBuffer
{
	Size		item_size;
	char	   *items;
	int			used;
	int			room;
	Size		bytes;			/* of the tuples */
	MemoryContext cxt;
} AlBuffer;

typedef bool (*AlBufferTest) (const AlBuffered *head, SubTransactionId subid);

#define al_buffer_item(buffer, i) ((void *) ((buffer)->items + (buffer)->item_size * (i)))

extern void al_buffer_begin(AlBuffer *buffer);
extern MemoryContext al_buffer_memory(AlBuffer *buffer);
extern bool al_buffer_is_full(const AlBuffer *buffer);
extern void *al_buffer_add(AlBuffer *buffer, HeapTuple tuple);
extern void al_buffer_replace(AlBuffer *buffer, AlBuffered *head, HeapTuple tuple);
extern int	al_buffer_drop(AlBuffer *buffer, AlBufferTest is_gone, SubTransactionId subid);
extern bool al_buffer_is_of(const AlBuffered *head, SubTransactionId subid);
extern int	al_buffer_take(AlBuffer *buffer, void **items, MemoryContext *cxt);

/*
 * route.c: which partition of audit_log.change a moment belongs to.
 */
extern void al_route_forget(Oid relid);
extern Oid	al_route_lock(TimestampTz timestamp, TimestampTz *from, TimestampTz *to);

/* ------------------------------------------------------------- layer 3.05 */

/*
 * cluster.c
 */
extern void al_cluster_note(void);
extern void al_cluster_end_transaction(bool commit);
extern void al_cluster_abort_sub(void);

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

/* a description as one table renders it */
typedef struct AlRendering
{
	AlAction	action;
	char	   *activity_type;
	int			nparts;
	struct
	{
		char	   *text;		/* a literal, or NULL */
		AlColumn   *column;
		bool		old;
	}		   *parts;
} AlRendering;

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
	List	   *renderings;		/* of AlRendering *: the table is described */
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
/* as al_table_get(), of a root and settings given, in the current memory */
extern AlTable *al_table_of(Relation root, AlSettings *settings);
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
	const char *user;			/* whom the change is attributed to, or NULL */
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
/* every tracked column, NULL as null */
extern Jsonb *al_row_object(const AlTable *table, TupleTableSlot *slot);
/* the id alone, NULL without key; one column's value */
extern text *al_row_record_id(const AlTable *table, TupleTableSlot *slot);
extern void al_row_column(const AlColumn *column, Datum value, bool isnull, AlValue *out);
extern bool al_row_column_differs(const AlColumn *column, TupleTableSlot *old,
								  TupleTableSlot *new);
extern char *al_row_column_text(const AlColumn *column, TupleTableSlot *slot, int *len);

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
extern int64 al_version_value(const AlVersions *versions, TupleTableSlot *slot,
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
extern bool al_version_past_key(const AlTable *table, AlVersions *versions,
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
 * feed.c: the activity table, and what describe() has written there.
 */
extern void al_feed_change(const AlTable *table, AlAction action, TupleTableSlot *old,
						   TupleTableSlot *new, const AlEntry *entry);
extern bool al_feed_is_full(void);
extern void al_feed_flush(void);
extern void al_feed_end_transaction(void);
extern void al_feed_commit_sub(SubTransactionId subid, SubTransactionId parent);
extern void al_feed_abort_sub(SubTransactionId subid);

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

/* ------------------------------------------------------------- layer 3.75 */

/*
 * moment.c: points in time: timestamps and marks (design.md, section 7).
 */
typedef struct AlMoment
{
	const char *text;			/* as it was given, for messages and undoes */
	bool		mark;
	TimestampTz timestamp;		/* of a mark: when it was made */

	/*
	 * Transaction rows, sorted by id: of database transactions that had begun
	 * by then but are not in it, and those that are in it although they have
	 * changes of a later time.
	 */
	int			nlater;
	int64	   *later;
	int			nearlier;
	int64	   *earlier;
	TimestampTz begun;			/* no transaction of later began its changes before */

	/* of a mark */
	int64		change_id;		/* the highest id given out by then */
	int			nown;
	int64	   *own;			/* transaction rows of the transaction that made it */
	CommandId	command;		/* its changes before this command are in the mark */
	int			ntruncated;		/* tables that it had truncated, */
	int64	   *truncated;		/* each its id, and that of the event */

	/* states of later transactions */
	int			nlater_states;
	int64	   *later_states;	/* ids of table_state */
} AlMoment;

/* both raise errors of their own; the caller needs no rights but his own */
extern AlMoment *al_moment_of_timestamp(TimestampTz timestamp);
extern AlMoment *al_moment_of_text(text *moment);
/* argument n of an SQL function, whichever overload: timestamptz or text */
extern AlMoment *al_moment_argument(FunctionCallInfo fcinfo, int n);
/* was this change made, or has this state begun, after the moment? */
extern bool al_moment_is_later(const AlMoment *moment, int32 table_id, int64 change_id,
							   int64 transaction_id, CommandId command,
							   TimestampTz timestamp);
extern bool al_moment_state_is_later(const AlMoment *moment, int64 state_id,
									 int64 first_change_id, TimestampTz timestamp);

/*
 * states.c: what table_state says of a table: its columns at each change, and
 * what stands in the way of looking back.
 */
/* a column by one state, and what it is today */
typedef struct AlPastColumn
{
	char	   *name;			/* under which changes have it */
	int			namelen;
	char	   *type;
	AttrNumber	number;			/* by the state */
	AttrNumber	attnum;			/* of today's column, 0: dropped since */
	bool		same_type;		/* else values are read through the new type */
	bool		same_text;		/* the new type writes values as this one did */
	bool		masked;
} AlPastColumn;

typedef struct AlState
{
	int64		id;
	char	   *kind;
	Jsonb	   *settings;
	Jsonb	   *detail;			/* NULL: none */
	TimestampTz timestamp;
	int64		first_change_id;
	int			ncolumns;
	AlPastColumn *columns;		/* in jsonb's key order */
	int			nkeys;
	AttrNumber *keys;			/* today's, 0: dropped since */
	bool		key_same_texts; /* else the ids are to be read through the types */
	bool		key_masked;
	int			era;			/* the same for states that name records alike,
								 * today's is 0 */
} AlState;

typedef struct AlStates
{
	Oid			relid;			/* the root's */
	char	   *name;			/* qualified and quoted, for messages */
	int32		table_id;
	int			n;
	AlState    *states;			/* oldest first */
} AlStates;

/* one thing that stands in the way */
typedef struct AlObstacle
{
	const AlState *state;		/* NULL: tracking had not begun */
	const char *what;			/* a complete sentence, for DETAIL */
	Bitmapset  *columns;		/* attnums of today's that were not captured; NULL:
								 * whole rows may be missing */
} AlObstacle;

/* error where the table was never registered */
extern AlStates *al_states_read(Relation root);
/* the state under which a change was captured */
extern const AlState *al_states_at(const AlStates *states, int64 change_id);
/* the state in force at a moment, NULL: none */
extern const AlState *al_states_then(const AlStates *states, const AlMoment *moment);
/*
 * of AlObstacle *; NIL: the way is free.  *went: partitions that had come empty
 * since the moment have gone again, so that rows which have come since need not
 * be there now
 */
extern List *al_states_obstacles(const AlStates *states, const AlMoment *moment, bool *went);
extern void al_states_refuse(const AlStates *states, const AlMoment *moment, List *obstacles);
/*
 * The first state between two changes (ids, the later may be PG_INT64_MAX: now)
 * after which a row need not be what the earlier of them left; NULL: none
 */
extern const AlState *al_states_gap(const AlStates *states, int64 from_change_id, int64 to_change_id);
/* today's columns that a state did not capture */
extern Bitmapset *al_states_left_out(const AlState *state);
/* do all changes name today's records by the texts of today's key? */
extern bool al_states_same_ids(const AlStates *states);
/* when the audit began, or would have, under which a change was captured */
extern TimestampTz al_states_began(const AlStates *states, int64 change_id);
extern const AlPastColumn *al_states_column(const AlState *state, const char *name, int namelen);

/*
 * logread.c: changes out of the log, as the caller's snapshot has them.  The
 * caller has looked at rights; the log is read as its owner.
 */
typedef struct AlLogChange
{
	int64		id;
	int64		transaction_id;
	CommandId	command;
	TimestampTz timestamp;
	AlAction	action;
	int32		table_id;
	char	   *record_id;		/* NULL: none */
	char	   *old_record_id;
	Jsonb	   *changes;		/* NULL: none */
} AlLogChange;

/*
 * Calls back for each change in the order asked for: newest first undoes, oldest
 * first replays (design.md, section 2: whole database transactions one after the
 * other, within one by command and id).  The change lives until the callback
 * returns.
 */
typedef void (*AlLogCallback) (const AlLogChange *change, void *arg);

/* a table's changes after the moment (NULL: all), newest first */
extern void al_logread_table(int32 table_id, const AlMoment *after,
							 AlLogCallback callback, void *arg);
/* all changes of a table, oldest first */
extern void al_logread_all(int32 table_id, AlLogCallback callback, void *arg);
/*
 * The changes of the records that bore one of these ids (char *) at any time, key
 * changes followed both ways, after the moment (NULL: all)
 */
extern void al_logread_records(int32 table_id, List *record_ids, const AlMoment *after,
							   bool newest_first, AlLogCallback callback, void *arg);
/* one change; false: there is none of that id */
extern bool al_logread_change(int64 change_id, AlLogChange *change);
/*
 * All changes of transaction rows, of all tables, newest first: the row with
 * those that continue it, or every row of its database transaction but those
 * that take something back themselves.  An error where there is no such row,
 * with a hint where the number is an xid.
 */
extern List *al_logread_transaction_rows(int64 transaction_id, bool same_xid);	/* of int64 * */
extern void al_logread_transactions(List *transaction_ids, AlLogCallback callback, void *arg);
extern List *al_logread_table_ids(List *transaction_ids);	/* int */

/*
 * translate.c: what the log says, under the names and types of today.
 */
/* the value that a key's text in a record id stands for; pg as al_decode_value() has it */
extern void al_translate_key_text(Oid type, char *text, int len, AlValue *out);
/* the key's values of an id, in the order of table->keys; under AL_FIXED_ALL */
extern Datum *al_translate_keys(const AlTable *table, TupleDesc desc, const char *record_id);
/* a record's id, from whatever text the key's types read: '007' is 7 */
extern char *al_translate_normal_id(const AlTable *table, Relation rel, const char *record_id);
extern char *al_translate_normal_id_as_caller(const AlTable *table, Relation rel,
												const char *record_id);
/* an id of the log, as a change under this state has it, under today's key types */
extern char *al_translate_id(const AlTable *table, Relation rel, const AlState *state,
							 const char *record_id);
/* attnums of columns that were not there under a state */
extern Bitmapset *al_translate_added(Relation rel, const AlState *then);
/*
 * The columns of a change's object or delta under today's names; what has been
 * dropped since is left out.
 */
extern Jsonb *al_translate_changes(const AlState *state, Relation rel, Jsonb *object);

/*
 * current.c: the table as it is, for those who look back from it.
 */
extern void al_current_check_rights(Relation rel);
/* error where the caller's snapshot is too old for the table, which has been read */
extern void al_current_check_snapshot(Relation root);
/* the table by the settings under which it was captured last */
extern AlTable *al_current_table(Relation root, const AlStates *states);
/*
 * Calls back for each row of the table as the active snapshot has it, in the
 * root's row type, partitions included.  The slot lives until the callback
 * returns; its memory is reset then.
 */
typedef void (*AlCurrentCallback) (TupleTableSlot *slot, void *arg);
extern void al_current_scan(Relation root, AlCurrentCallback callback, void *arg);
/*
 * The row that bears this id now, under the caller's rights and snapshot; the
 * id is one that the log would write (al_translate_normal_id)
 */
extern bool al_current_fetch(Relation root, const AlTable *table, const char *record_id,
							 TupleTableSlot *slot);
extern Jsonb *al_current_object(const AlTable *table, TupleTableSlot *slot);
/* error: the caller's snapshot shows two rows of one key */
extern void al_current_twice(Relation root, const char *record_id);

/*
 * past.c: the state of a table at a moment, made from the present by taking
 * changes back.
 */
/* a value of a column as it was; of the log's form */
typedef struct AlPastValue
{
	AttrNumber	attnum;			/* of today's column */
	bool		masked;			/* a hash stands for it */
	bool		known;			/* value is the value, before nested is undone */
	Jsonb	   *value;			/* NULL: SQL NULL; else a scalar or container */
	List	   *nested;			/* deltas of the inside of a json value to undo,
								 * in this order: Jsonb * */
} AlPastValue;

/* a record that has been changed since */
typedef struct AlPastRecord
{
	const char *id_now;			/* NULL: not there now */
	const char *id_then;		/* NULL: was not there */
	bool		gone_now;		/* id_gone is to be free now */
	const char *id_gone;
	int64		change_id;		/* the newest of its changes */
	const AlState *whole_state; /* under which whole was captured */
	Jsonb	   *whole;			/* the row as a DELETE has it; NULL: the row now */
	int			nvalues;		/* what was different then from that row */
	int			room;
	AlPastValue *values;

	/* of a table without key: rows of this image that are missing now (positive)
	 * or too many (negative) */
	Jsonb	   *image;
	int64		count;
	int64		left;			/* for who reads the rows as they are */
	bool		seen;
} AlPastRecord;

/* an entry of by_now */
typedef struct AlPastName
{
	const char *id;				/* hash key: pointer to the text */
	AlPastRecord *record;
} AlPastName;

typedef struct AlPast
{
	Relation	rel;
	AlTable    *table;			/* with today's columns, and the log's settings */
	AlStates   *states;
	const AlMoment *moment;
	List	   *obstacles;		/* of AlObstacle * */
	Bitmapset  *added;			/* attnums of columns that were not there then */
	bool		keyed;
	const AlState *other_era;	/* a state since then that named records otherwise */
	bool		went;			/* a partition that had come since has gone with its
								 * rows */
	List	   *records;		/* of AlPastRecord *; some neither are nor were there */
	struct HTAB *by_now;		/* those that are there now, by id_now:
								 * AlPastName */
	struct AlPastFilter *filter;	/* of past_row.c */
	AlDecoder  *decoder;
	MemoryContext cxt;
} AlPast;

/*
 * Reads what has changed of a table, or of the records with these ids (char *)
 * then or now; without (attnums) are columns to pass over besides those added
 * since, NULL usually.  Refuses nothing: the caller looks at obstacles.  Rights
 * are the caller's to check too (al_current_check_rights).
 */
extern AlPast *al_past_read(Relation root, const AlMoment *moment, List *record_ids,
							Bitmapset *without);
extern void al_past_refuse(const AlPast *past);
/* error, unless there is a reason why a row that its last change left is gone */
extern void al_past_missing(const AlPast *past, const AlPastRecord *record);
extern void al_past_misfit(const AlPast *past, const char *detail);
/*
 * Is another row of the key that this change gave up in the moment too?  As in
 * the snapshot of a mark that its own transaction's changes are in.
 */
extern bool al_past_shows_both(const AlPast *past, const char *id, int64 change_id);
/* what a whole row of a table without key is known by, from its object */
extern Jsonb *al_past_image(const AlPast *past, Jsonb *object);
extern void al_past_end(AlPast *past);

/*
 * past_row.c: from a row as it is to the row as it was.
 */
/*
 * The record of a row as it is now; NULL: has not changed since.  The caller has
 * entered the settings that past->table needs (al_fixed_enter).
 */
extern AlPastRecord *al_past_row_find(AlPast *past, TupleTableSlot *now);
/*
 * The row as it was then, in the table's own row type: false where there was
 * none.  now is the row as it is, NULL where there is none.  Attnums whose value
 * is not known (masked) are added to unknown, and NULL in then.
 */
extern bool al_past_row_make(AlPast *past, const AlPastRecord *record, TupleTableSlot *now,
							 TupleTableSlot *then, Bitmapset **unknown);
/* error: a column's value of then is not known */
extern void al_past_row_refuse_unknown(const AlPast *past, Bitmapset *unknown);

/*
 * virtual.c: generated columns that are computed when read.
 */
typedef struct AlVirtual AlVirtual;

extern AlVirtual *al_virtual_prepare(Relation rel);
extern void al_virtual_compute(AlVirtual *virtual, TupleTableSlot *slot);
extern void al_virtual_end(AlVirtual *virtual);

/* -------------------------------------------------------------- layer 3.8 */

/*
 * plan.c: what taking back is to make of rows.
 */
typedef enum AlPlanAction
{
	AL_PLAN_NONE,
	AL_PLAN_INSERT,
	AL_PLAN_UPDATE,
	AL_PLAN_DELETE
} AlPlanAction;

/* one change of a record that is to be taken back */
typedef struct AlPlanStep
{
	AlAction	action;
	Jsonb	   *changes;		/* by today's names */
	Bitmapset  *columns;		/* captured then, today's attribute numbers */
	Bitmapset  *lost;			/* there then, but not captured */
	List	   *gone;			/* names of columns that it has, and the table has
								 * not any more */
	List	   *unreadable;		/* and of those whose type has another text now */
	struct AlPlanStep *earlier;
} AlPlanStep;

typedef struct AlPlanTable AlPlanTable;

/* one record */
typedef struct AlPlanRow
{
	AlPlanTable *table;
	int			no;				/* within the table */
	const char *id;				/* where it is found now; NULL: nowhere */
	struct AlPlanRow *same_id;	/* without a key rows may be equal */
	const char *then_id;		/* its id when it is taken back */
	const char *looked_id;		/* id when it was looked for */
	const char *left_id;		/* id under which its steps have left it */
	AlPlanStep *steps;			/* newest first */
	AlPlanStep **last;			/* where an earlier one goes */
	int64		last_change;	/* the newest step's id and command */
	CommandId	last_command;
	bool		gone;			/* deleted since */
	int			others;			/* records that have borne its id since then, and
								 * were not taken back */
	bool		wanted;			/* not filtered out */
	int64		by;				/* the newest transaction that changed it since,
								 * 0: none */
	bool		undone;			/* steps are taken back, conflicts are looked for */

	/* the row now */
	bool		present;
	HeapTuple	tuple;
	Oid			tableoid;
	Jsonb	   *before;

	/* the row that it is to be */
	bool		known;			/* aim is given, not made by its steps */
	Jsonb	   *aim;			/* NULL: none */
	AlPlanAction action;
	Bitmapset  *columns;		/* to be set */
	HeapTuple	target;
	bool		replace;		/* by DELETE and INSERT, which frees its keys */
	Bitmapset  *park;			/* columns to be given other values in between */

	List	   *conflicts;		/* char * */
	bool		left_out;		/* cannot be written */
} AlPlanRow;

struct AlPlanTable
{
	Oid			relid;
	int32		table_id;
	char	   *name;			/* quoted and qualified, as statements have it */
	Relation	rel;			/* open while there is a plan */
	AlTable    *table;
	int			nkeys;
	AttrNumber *keys;
	Bitmapset  *usable;			/* columns whose values the log has */
	Bitmapset  *generated;
	Bitmapset  *virtual;
	Bitmapset  *lost;			/* those it has not, generated ones apart */
	List	   *obstacles;		/* texts: what stands in the way of the table */
	AlDecoder  *decoder;
	AlPlanRow **rows;
	int			nrows;
	int			maxrows;
	struct HTAB *by_id;			/* of rows, by id now */
	int			ncolumns;		/* not dropped, in jsonb's key order */
	struct AlPlanColumn *columns;
	MemoryContext cxt;			/* the plan's */
	MemoryContext scratch;		/* of one row */
	const char **parking;		/* by attribute number from 0: an expression for
								 * values that no row has or gets; NULL: none yet */
	bool		again;			/* a cascade may change what is written */
};

typedef struct AlPlan
{
	List	   *tables;			/* AlPlanTable *, in the order of their OIDs */
	bool		force;
	MemoryContext cxt;
} AlPlan;

extern AlPlanTable *al_plan_add_table(AlPlan *plan, Relation rel, AlTable *table,
									  int32 table_id);
extern AlPlanTable *al_plan_table(AlPlan *plan, Oid relid);
extern AlPlanRow *al_plan_add_row(AlPlanTable *table, const char *id);
extern AlPlanRow *al_plan_find_row(AlPlanTable *table, const char *id);
extern void al_plan_move_row(AlPlanRow *row, const char *id);
extern void al_plan_add_step(AlPlanRow *row, AlPlanStep *step);
extern void al_plan_keep_wanted(AlPlanTable *table);
extern char *al_plan_image_id(Jsonb *row, Jsonb **stripped);
extern void al_plan_conflict(AlPlanRow *row, const char *text);
extern void al_plan_leave_out(AlPlanRow *row, const char *text);
extern void al_plan_set_present(AlPlanRow *row, HeapTuple tuple, Oid tableoid, Jsonb *before);
extern void al_plan_pair(AlPlanTable *table);
extern void al_plan_decide(AlPlanRow *row);
extern char *al_plan_try(void (*work) (void *arg), void *arg);
extern AttrNumber al_plan_column(const AlPlanTable *table, const char *name, int namelen);
extern Jsonb *al_plan_keep(AlPlanTable *table, Jsonb *json);

/* ------------------------------------------------------------- layer 3.82 */

/*
 * revert.c: changes taken back from a row as it stands.
 */
extern void al_revert_row(AlPlanRow *row);

/*
 * values.c: the rows to be, as rows of their table.
 */
extern void al_values_decode(AlPlanTable *table);

/* ------------------------------------------------------------- layer 3.85 */

/*
 * walk.c: changes of the log, newest first, to the rows of a plan.
 */
typedef struct AlWalk
{
	AlPlanTable *table;
	AlStates   *states;
	struct HTAB *positions;		/* of rows, by the id where the walk stands */
	Bitmapset **captured;		/* of each state: today's attribute numbers */
	Bitmapset **lost;			/* there then, but not captured */
	int64		first;			/* the lowest id of the changes seen */
	List	   *record_ids;		/* only rows that bear one of these, NIL: all */
	bool		undone;			/* conflicts with later changes are looked for */
	MemoryContext cxt;			/* the plan's */
	MemoryContext scratch;
} AlWalk;

extern AlWalk *al_walk_make(AlPlan *plan, AlPlanTable *table, AlStates *states);
extern void al_walk_change(AlWalk *walk, const AlLogChange *change);
extern void al_walk_end(AlWalk *walk);

/* -------------------------------------------------------------- layer 3.9 */

/*
 * rowset.c: rows of a plan as a relation that statements read.
 */
typedef struct AlRowset
{
	AlPlanTable *table;
	TupleDesc	desc;
	char	   *name;			/* quoted, like all names */
	char	   *no;
	char	   *tableoid;
	char	   *tid;
	char	  **keys;			/* of the row now */
	char	  **columns;		/* by attribute number from 0; NULL where
								 * dropped: of the row to be */
	AttrNumber *attnums;		/* in desc, of columns */
	struct Tuplestorestate *store;
	int64		nrows;
} AlRowset;

extern AlRowset *al_rowset_make(AlPlanTable *table, const char *name);
extern void al_rowset_add(AlRowset *rowset, AlPlanRow *row, bool present,
						  const Bitmapset *columns);
extern void al_rowset_add_key(AlRowset *rowset, AlPlanRow *row, const Datum *values,
							  const bool *nulls);
extern void al_rowset_register(AlRowset *rowset);
extern void al_rowset_free(AlRowset *rowset);
extern char *al_rowset_same_row(AlRowset *rowset, const char *row, const char *set);

/*
 * run.c: statements, as the user would have run them, or as a table's owner.
 */
extern Snapshot al_run_snapshot(void);
extern uint64 al_run(const char *sql, bool writes);
extern uint64 al_run_as(Oid role, const char *sql);

/* ---------------------------------------------------------------- layer 4 */

/*
 * present.c: the rows of a plan as they stand now.
 */
extern char *al_present_record_id(AlPlanTable *table, const char *id);
extern void al_present_find(AlPlan *plan, AlPlanTable *table, bool lock);

/*
 * later.c: what came after the changes that are taken back.
 */
extern bool al_later_read(AlPlan *plan, List *walks, int64 transaction_id, List *ours);

/*
 * obstacle.c: keys that are taken, parents that are missing.
 */
extern void al_obstacle_find(AlPlan *plan);

/*
 * rewrite.c: writes what a plan is about.
 */
extern void al_rewrite(AlPlan *plan, bool user_triggers);

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
extern void al_outbox_finish(void);
extern void al_outbox_announce(void);
extern void al_outbox_end_transaction(void);

/* -------------------------------------------------------------- layer 4.5 */

/*
 * capture.c
 */
extern void al_capture_init(void);

#endif							/* AUDIT_LOG_H */
