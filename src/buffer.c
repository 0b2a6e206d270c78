/*
 * buffer.c
 *		Rows that wait to be written: those of the log (writer.c), versions
 *		(version_write.c).
 *
 * A row must be written under the (sub)transaction that made the change, or a
 * rollback would leave it, or take it away alone.  So each item carries its
 * subtransaction, and those of the current one alone are taken out to be
 * written: what an outer level has buffered stays until that level is current
 * again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/memutils.h"

#include "audit_log.h"

/* A new, empty one; what was there is somebody else's, or gone with its memory. */
void
al_buffer_begin(AlBuffer *buffer)
{
	buffer->items = NULL;
	buffer->cxt = NULL;
	buffer->used = buffer->room = 0;
	buffer->bytes = 0;
}

/* Where the tuples of items are made; the items are there too. */
MemoryContext
al_buffer_memory(AlBuffer *buffer)
{
	if (buffer->cxt == NULL)
		buffer->cxt = AllocSetContextCreate(TopTransactionContext, "audit_log buffer",
											ALLOCSET_DEFAULT_SIZES);
	return buffer->cxt;
}

bool
al_buffer_is_full(const AlBuffer *buffer)
{
	return buffer->used >= AL_BUFFER_ITEMS || buffer->bytes > AL_BUFFER_BYTES;
}

/* Where the current (sub)transaction's next item goes; all but its head is the caller's to fill. */
void *
al_buffer_add(AlBuffer *buffer, HeapTuple tuple)
{
	AlBuffered *head;

	if (buffer->used == buffer->room)
	{
		int			room = buffer->room ? buffer->room * 2 : 16;

		buffer->items = buffer->items ?
			repalloc(buffer->items, buffer->item_size * room) :
			MemoryContextAlloc(al_buffer_memory(buffer), buffer->item_size * room);
		buffer->room = room;
	}
	head = al_buffer_item(buffer, buffer->used);
	head->tuple = tuple;
	head->subid = GetCurrentSubTransactionId();
	buffer->bytes += tuple->t_len;
	buffer->used++;
	return head;
}

/* Another tuple, of the buffer's memory, for an item. */
void
al_buffer_replace(AlBuffer *buffer, AlBuffered *head, HeapTuple tuple)
{
	buffer->bytes += tuple->t_len;
	buffer->bytes -= head->tuple->t_len;
	heap_freetuple(head->tuple);
	head->tuple = tuple;
}

/*
 * Drops the items that is_gone says are gone; the others keep their order.
 * Returns how many went.
 */
int
al_buffer_drop(AlBuffer *buffer, AlBufferTest is_gone, SubTransactionId subid)
{
	int			kept = 0;
	int			before = buffer->used;

	for (int i = 0; i < buffer->used; i++)
	{
		AlBuffered *head = al_buffer_item(buffer, i);

		if (is_gone(head, subid))
		{
			buffer->bytes -= head->tuple->t_len;
			heap_freetuple(head->tuple);
		}
		else if (kept++ != i)
			memcpy(al_buffer_item(buffer, kept - 1), head, buffer->item_size);
	}
	buffer->used = kept;
	return before - kept;
}

/* Is the item one of this (sub)transaction? */
bool
al_buffer_is_of(const AlBuffered *head, SubTransactionId subid)
{
	return head->subid == subid;
}

/*
 * Takes the items of the current (sub)transaction out of the buffer; returns how
 * many.  They are in a memory of their own, *cxt, which goes with the
 * (sub)transaction if it fails.  Where others stay, the caller drops those taken.
 */
int
al_buffer_take(AlBuffer *buffer, void **items, MemoryContext *cxt)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	MemoryContext old;
	char	   *taken;
	int			n = 0;

	for (int i = 0; i < buffer->used; i++)
		n += al_buffer_is_of(al_buffer_item(buffer, i), subid);
	if (n == 0)
		return 0;

	if (n == buffer->used)
	{
		/* the usual case: the buffer as a whole */
		*items = buffer->items;
		*cxt = buffer->cxt;
		MemoryContextSetParent(buffer->cxt, CurTransactionContext);
		al_buffer_begin(buffer);
		return n;
	}

	*cxt = AllocSetContextCreate(CurTransactionContext, "audit_log buffer of a level",
								 ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(*cxt);
	*items = taken = palloc(buffer->item_size * n);
	for (int i = 0; i < buffer->used; i++)
	{
		AlBuffered *head = al_buffer_item(buffer, i);

		if (!al_buffer_is_of(head, subid))
			continue;
		memcpy(taken, head, buffer->item_size);
		((AlBuffered *) taken)->tuple = heap_copytuple(head->tuple);
		taken += buffer->item_size;
	}
	MemoryContextSwitchTo(old);
	return n;
}
