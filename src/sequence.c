/*
 * sequence.c
 *		Takes ids from a sequence of the extension, a block at a time.
 *
 * nextval() is not used for two reasons.  It sets what lastval() returns, so
 * that an application which reads lastval() after its INSERT would get an id
 * of the log; and it gives one value a call.  The sequence relation is changed
 * as PostgreSQL's own nextval() changes it, WAL included (commands/sequence.c:
 * the same record, redone by the same code), so that everything else that
 * reads sequences (pg_dump, setval, standbys) sees nothing unusual.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"

#include "audit_log.h"

/* values logged ahead in one WAL record; a crash skips at most so many */
#define AL_SEQUENCE_AHEAD 32

/*
 * Take count consecutive values; returns the first.  The block belongs to the
 * caller whether or not the transaction commits.
 */
int64
al_sequence_take(Oid seqid, int64 count)
{
	Relation	seqrel;
	Buffer		buffer;
	Page		page;
	ItemId		lp;
	HeapTupleData tuple;
	Form_pg_sequence_data seq;
	int64		first;
	bool		log;

	/* the lock is kept until the end of the transaction, as nextval() does */
	seqrel = relation_open(seqid, RowExclusiveLock);
	if (seqrel->rd_rel->relkind != RELKIND_SEQUENCE)
		elog(ERROR, "\"%s\" is not a sequence", RelationGetRelationName(seqrel));

	/* a WAL record without xid would not be flushed at commit */
	if (RelationNeedsWAL(seqrel))
		GetTopTransactionId();

	buffer = ReadBuffer(seqrel, 0);
	LockBuffer(buffer, BUFFER_LOCK_EXCLUSIVE);
	page = BufferGetPage(buffer);
	lp = PageGetItemId(page, FirstOffsetNumber);
	tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
	tuple.t_len = ItemIdGetLength(lp);
	seq = (Form_pg_sequence_data) GETSTRUCT(&tuple);

	first = seq->last_value + (seq->is_called ? 1 : 0);
	if (first > PG_INT64_MAX - count - AL_SEQUENCE_AHEAD)
		ereport(ERROR,
				(errcode(ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED),
				 errmsg("sequence \"%s\" of audit_log is used up",
						RelationGetRelationName(seqrel))));

	/* the first change after a checkpoint must be logged: a full image */
	log = !seq->is_called || seq->log_cnt < count ||
		PageGetLSN(page) <= GetRedoRecPtr();

	START_CRIT_SECTION();

	MarkBufferDirty(buffer);
	if (log && RelationNeedsWAL(seqrel))
	{
		xl_seq_rec	record;
		XLogRecPtr	lsn;

		seq->last_value = first + count - 1 + AL_SEQUENCE_AHEAD;
		seq->is_called = true;
		seq->log_cnt = 0;

		XLogBeginInsert();
		XLogRegisterBuffer(0, buffer, REGBUF_WILL_INIT);
		AL_XL_SEQ_REC_SET(record, seqrel);
		XLogRegisterData((char *) &record, sizeof(record));
		XLogRegisterData((char *) tuple.t_data, tuple.t_len);
		lsn = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
		PageSetLSN(page, lsn);
	}
	seq->log_cnt = log ? AL_SEQUENCE_AHEAD : seq->log_cnt - count;
	seq->last_value = first + count - 1;
	seq->is_called = true;

	END_CRIT_SECTION();

	UnlockReleaseBuffer(buffer);
	relation_close(seqrel, NoLock);
	return first;
}

/* The value taken last, by whomever; 0 where none was. */
int64
al_sequence_last(Oid seqid)
{
	Relation	seqrel = relation_open(seqid, RowExclusiveLock);
	Buffer		buffer = ReadBuffer(seqrel, 0);
	Page		page = BufferGetPage(buffer);
	Form_pg_sequence_data seq;
	int64		last;

	/* a tuple is aligned in its page */
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	seq = (Form_pg_sequence_data)
		((char *) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)) +
		 ((HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber)))->t_hoff);
	last = seq->is_called ? seq->last_value : seq->last_value - 1;
	UnlockReleaseBuffer(buffer);
	relation_close(seqrel, NoLock);
	return last;
}
