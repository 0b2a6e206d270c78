/*
 * writer.c
 *		What is written into audit_log.change and audit_log.transaction: the only
 *		code that inserts there.
 *
 * Changes are kept as finished tuples, all but the id, in a buffer of fixed
 * size; they are written when the statement ends, the buffer is full, or the
 * transaction is about to commit.
 *
 * A row must be written under the (sub)transaction that made the change, or a
 * rollback would leave it, or take it away alone.  So each entry carries its
 * subtransaction, and a flush writes those of the current one only: what an
 * outer level has buffered stays until that level is current again.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "audit_log.h"

#define AL_BUFFER_ENTRIES 1000
#define AL_BUFFER_BYTES (2 * 1024 * 1024)

/* larger rows are written at once instead of being kept in the buffer */
#define AL_BUFFER_LARGE (256 * 1024)

typedef struct BufferedChange
{
	HeapTuple	tuple;			/* id still to come */
	TimestampTz timestamp;
	SubTransactionId subid;
} BufferedChange;

static BufferedChange *buffer = NULL;	/* in buffer_cxt, as its tuples */
static int	buffer_used = 0;
static int	buffer_room = 0;
static Size buffer_bytes = 0;
static MemoryContext buffer_cxt = NULL;

/* ---- the shape of what is written ---- */

static const char *const change_columns[Natts_al_change] =
{"id", "transaction_id", "timestamp", "command", "action_type", "table_id",
"record_id", "changes", "old_record_id"};

static const char *const transaction_columns[Natts_al_transaction] =
{"id", "xid", "timestamp", "started_at", "continues", "user_id", "db_user",
"db_role", "application_name", "client_addr", "client_port", "backend_pid",
"context", "undoes"};

static void
check_columns(Relation rel, const char *const *names, int n)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool		right = desc->natts == n;

	for (int i = 0; i < n && right; i++)
		right = !TupleDescAttr(desc, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(desc, i)->attname), names[i]) == 0;
	if (!right)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" does not have the columns of the log",
						get_namespace_name(RelationGetNamespace(rel)),
						RelationGetRelationName(rel)),
				 errhint("Run SELECT * FROM audit_log.check().")));
}

static void
check_change(Relation rel)
{
	check_columns(rel, change_columns, Natts_al_change);
}

static void
check_transaction(Relation rel)
{
	check_columns(rel, transaction_columns, Natts_al_transaction);
}

/* ---- transaction rows ---- */

/*
 * The id of the transaction row under which a change by this user belongs;
 * writes a further row where none in force serves.
 */
int64
al_writer_transaction(const char *user)
{
	int64		id = al_session_row_id(user);
	Datum		values[Natts_al_transaction];
	bool		nulls[Natts_al_transaction];
	AlTarget   *target;

	if (id != 0)
		return id;

	al_cluster_note();
	id = al_session_next_id();
	al_session_fill_row(user, values, nulls);
	values[Anum_al_transaction_id - 1] = Int64GetDatum(id);

	target = al_target_open(al_catalog_get()->transaction, check_transaction);
	al_target_store(target, 0, heap_form_tuple(al_target_desc(target), values, nulls));
	al_target_insert(target, 1);
	al_target_close(target);

	al_session_row_written(id, user);
	return id;
}

/* ---- changes ---- */

/* Writes n changes that belong to one partition; ids ascend from first_id. */
static void
write_batch(Oid partition, const BufferedChange *changes, int n, int64 first_id)
{
	AlTarget   *target = al_target_open(partition, check_change);

	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = changes[i].tuple;
		int64		id = first_id + i;

		/* the first column, of fixed width and never NULL */
		memcpy((char *) tuple->t_data + tuple->t_data->t_hoff, &id, sizeof(id));
		al_target_store(target, i, tuple);
	}
	al_target_insert(target, n);
	al_target_close(target);
}

static void
write_changes(const BufferedChange *changes, int n)
{
	const AlCatalog *catalog = al_catalog_get();
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "audit_log flush",
											  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	int64		id = al_sequence_take(catalog->change_id_seq, n);
	bool		pushed = false;

	/* toasting wants a snapshot, which a commit does not have */
	if (!ActiveSnapshotSet())
	{
		PushActiveSnapshot(GetTransactionSnapshot());
		pushed = true;
	}

	for (int done = 0; done < n;)
	{
		TimestampTz from;
		TimestampTz to;
		Oid			partition = al_route_lock(changes[done].timestamp, &from, &to);
		int			end = done + 1;

		while (end < n && (changes[end].timestamp == changes[done].timestamp ||
						   (changes[end].timestamp >= from &&
							changes[end].timestamp < to)))
			end++;
		write_batch(partition, changes + done, end - done, id + done);
		done = end;
	}

	if (pushed)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

static Size
entry_bytes(const AlEntry *entry)
{
	Size		bytes = 0;

	if (entry->record_id)
		bytes += VARSIZE_ANY(entry->record_id);
	if (entry->old_record_id)
		bytes += VARSIZE_ANY(entry->old_record_id);
	if (entry->changes)
		bytes += VARSIZE_ANY(entry->changes);
	return bytes;
}

/*
 * What a change's tuple looks like.  The key before comes last, and a tuple
 * that has none ends before it: columns that a tuple does not have read as
 * NULL, and a row without a NULL needs no bitmap, which here would be eight
 * bytes.  So there are two shapes.  An enum is stored as an OID is.
 */
static TupleDesc whole_shape = NULL;	/* both set when both are made */
static TupleDesc short_shape = NULL;

static TupleDesc
make_shape(int natts)
{
	static const Oid types[] = {INT8OID, INT8OID, TIMESTAMPTZOID, INT4OID, OIDOID,
	INT4OID, TEXTOID, JSONBOID, TEXTOID};
	TupleDesc	shape = CreateTemplateTupleDesc(natts);

	for (int i = 0; i < natts; i++)
		TupleDescInitEntry(shape, i + 1, change_columns[i], types[i], -1, 0);
	AL_TUPLE_DESC_FINALIZE(shape);
	return shape;
}

static void
make_shapes(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	TupleDesc	whole = make_shape(Natts_al_change);

	short_shape = make_shape(Natts_al_change - 1);
	whole_shape = whole;
	MemoryContextSwitchTo(old);
}

/* The change as a tuple, all but its id. */
static HeapTuple
form_change(const AlEntry *entry)
{
	Datum		values[Natts_al_change];
	bool		nulls[Natts_al_change] = {0};

	if (whole_shape == NULL)
		make_shapes();
	values[Anum_al_change_id - 1] = Int64GetDatum(0);
	values[Anum_al_change_transaction_id - 1] = Int64GetDatum(entry->transaction_id);
	values[Anum_al_change_timestamp - 1] = TimestampTzGetDatum(entry->timestamp);
	values[Anum_al_change_command - 1] = Int32GetDatum((int32) entry->command);
	values[Anum_al_change_action_type - 1] =
		ObjectIdGetDatum(al_catalog_get()->action[entry->action]);
	values[Anum_al_change_table_id - 1] = Int32GetDatum(entry->table_id);
	values[Anum_al_change_record_id - 1] = PointerGetDatum(entry->record_id);
	nulls[Anum_al_change_record_id - 1] = entry->record_id == NULL;
	values[Anum_al_change_changes - 1] = PointerGetDatum(entry->changes);
	nulls[Anum_al_change_changes - 1] = entry->changes == NULL;
	values[Anum_al_change_old_record_id - 1] = PointerGetDatum(entry->old_record_id);

	return heap_form_tuple(entry->old_record_id ? whole_shape : short_shape, values, nulls);
}

/* A new, empty one; the old one is somebody else's, or gone. */
static void
begin_buffer(void)
{
	buffer = NULL;
	buffer_cxt = NULL;
	buffer_used = buffer_room = 0;
	buffer_bytes = 0;
}

/* Drops the changes of one (sub)transaction; those of others keep their order. */
static void
drop_changes(SubTransactionId subid)
{
	int			kept = 0;

	for (int i = 0; i < buffer_used; i++)
	{
		if (buffer[i].subid != subid)
			buffer[kept++] = buffer[i];
		else
		{
			buffer_bytes -= buffer[i].tuple->t_len;
			pfree(buffer[i].tuple);
		}
	}
	buffer_used = kept;
}

/*
 * Takes what the current (sub)transaction has buffered out of the buffer;
 * returns how many changes.  They are in a memory of their own, *cxt, which
 * goes with the (sub)transaction if it fails.
 */
static int
take_changes(BufferedChange **changes, MemoryContext *cxt)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	MemoryContext old;
	int			n = 0;

	for (int i = 0; i < buffer_used; i++)
		n += buffer[i].subid == subid;
	if (n == 0)
		return 0;

	if (n == buffer_used)
	{
		/* the usual case: the buffer as a whole */
		*changes = buffer;
		*cxt = buffer_cxt;
		MemoryContextSetParent(buffer_cxt, CurTransactionContext);
		begin_buffer();
		return n;
	}

	*cxt = AllocSetContextCreate(CurTransactionContext, "audit_log buffer of a level",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(*cxt);
	*changes = palloc(sizeof(BufferedChange) * n);
	n = 0;
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid == subid)
		{
			(*changes)[n] = buffer[i];
			(*changes)[n++].tuple = heap_copytuple(buffer[i].tuple);
		}
	MemoryContextSwitchTo(old);
	drop_changes(subid);
	return n;
}

/*
 * Writes what the current (sub)transaction has buffered.  It leaves the buffer
 * first: what an index evaluates may change rows, and come here again.
 */
void
al_writer_flush(void)
{
	BufferedChange *changes;
	MemoryContext cxt;
	int			n = take_changes(&changes, &cxt);

	if (n == 0)
		return;
	write_changes(changes, n);
	MemoryContextDelete(cxt);
}

/* Takes a change over; what entry points to is copied or written at once. */
void
al_writer_add(const AlEntry *entry)
{
	BufferedChange change = {.timestamp = entry->timestamp,
	.subid = GetCurrentSubTransactionId()};
	MemoryContext old;

	if (entry_bytes(entry) > AL_BUFFER_LARGE)
	{
		BufferedChange *large = &change;

		al_writer_flush();		/* ids follow the order of capture */
		change.tuple = form_change(entry);
		write_changes(large, 1);
		return;
	}

	if (buffer_used >= AL_BUFFER_ENTRIES || buffer_bytes > AL_BUFFER_BYTES)
		al_writer_flush();
	if (buffer_cxt == NULL)
		buffer_cxt = AllocSetContextCreate(TopTransactionContext, "audit_log buffer",
										   ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(buffer_cxt);
	if (buffer_used == buffer_room)
	{
		int			room = buffer_room ? buffer_room * 2 : 16;

		buffer = buffer ?
			repalloc(buffer, sizeof(BufferedChange) * room) :
			palloc(sizeof(BufferedChange) * room);
		buffer_room = room;
	}
	change.tuple = form_change(entry);
	MemoryContextSwitchTo(old);
	buffer_bytes += change.tuple->t_len;
	buffer[buffer_used++] = change;
}

/* ---- following the transaction ---- */

void
al_writer_end_transaction(void)
{
	begin_buffer();				/* it went with TopTransactionContext */
}

void
al_writer_commit_sub(SubTransactionId subid, SubTransactionId parent)
{
	for (int i = 0; i < buffer_used; i++)
		if (buffer[i].subid == subid)
			buffer[i].subid = parent;
}

void
al_writer_abort_sub(SubTransactionId subid)
{
	drop_changes(subid);
}
