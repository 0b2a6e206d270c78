/*
 * encode.c
 *		A column's value as the log writes it.
 *
 * How values of a type are written is decided once a column
 * (al_encode_prepare); al_encode_value then follows that for each row.  This
 * file knows how arrays and composites are put together; the values that they
 * consist of, and columns of other types, are encode_single.c's.
 *
 * Arrays and composites are AL_PG as a whole, the output function's text, as
 * soon as one value in them would have to be.
 *
 * An encoder lives as long as the memory context it was prepared in.  Nothing
 * in it becomes stale: what a composite type consists of is compared with the
 * type cache each time.
 */
#include "audit_log.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

/* elements of an array between two clean-ups of what encoding them left */
#define ELEMENTS_PER_RESET	256

typedef enum AlShape
{
	SHAPE_SINGLE,
	SHAPE_ARRAY,
	SHAPE_COMPOSITE
} AlShape;

typedef struct AlField
{
	char	   *name;
	int			namelen;
	int			attno;			/* from 0 */
	AlEncoder  *encoder;
} AlField;

struct AlEncoder
{
	AlShape		shape;
	AlSingle	single;			/* of arrays and composites: their text */
	AlFixedNeed need;			/* of the plain form: the caller's to enter */
	MemoryContext cxt;

	/* SHAPE_ARRAY */
	AlEncoder  *element;
	int16		elemlen;
	bool		elembyval;
	char		elemalign;

	/* SHAPE_COMPOSITE: the attributes not dropped, in jsonb's key order */
	uint64		identifier;		/* type cache's, of what stands below */
	MemoryContext fieldcxt;
	TupleDesc	tupdesc;
	AlFixedNeed field_need;		/* may grow beyond need with ALTER TYPE */
	int			nfields;
	AlField    *fields;
};

/* what goes through an array's elements, of all dimensions */
typedef struct ElementWalk
{
	AlEncoder  *encoder;
	int			ndim;
	int		   *dims;
	Datum	   *values;
	bool	   *nulls;
	int			next;
	MemoryContext scratch;		/* NULL: not worth it */
} ElementWalk;

static bool append_value(AlEncoder *encoder, Datum value, AlJsonFrame *frame,
						 bool element);
static void refresh_fields(AlEncoder *encoder);

/*
 * The column's typmod is part of the interface because the type's text may
 * depend on it one day; today nothing does.
 */
AlEncoder *
al_encode_prepare(Oid typid, int32 typmod pg_attribute_unused(), MemoryContext cxt)
{
	AlEncoder  *encoder = MemoryContextAllocZero(cxt, sizeof(AlEncoder));

	typid = getBaseType(typid);
	encoder->cxt = cxt;
	al_encode_single_prepare(&encoder->single, typid, cxt);

	if (get_typtype(typid) == TYPTYPE_COMPOSITE)
	{
		encoder->shape = SHAPE_COMPOSITE;
		refresh_fields(encoder);
		encoder->need = encoder->field_need;
	}
	else if (encoder->single.output.fn_oid == F_ARRAY_OUT)
	{
		/* not so int2vector and oidvector, whose texts are their own */
		Oid			element = get_element_type(typid);

		encoder->shape = SHAPE_ARRAY;
		encoder->element = al_encode_prepare(element, -1, cxt);
		encoder->need = encoder->element->need;
		get_typlenbyvalalign(element, &encoder->elemlen,
							 &encoder->elembyval, &encoder->elemalign);
	}
	else
	{
		encoder->shape = SHAPE_SINGLE;
		encoder->need = encoder->single.need;
	}
	return encoder;
}

AlFixedNeed
al_encode_need(const AlEncoder *encoder)
{
	return encoder->need;
}

static int
compare_fields(const void *a, const void *b)
{
	const AlField *x = (const AlField *) a;
	const AlField *y = (const AlField *) b;

	return al_jsonbuild_key_cmp(x->name, x->namelen, y->name, y->namelen);
}

/*
 * Makes the list of a composite type's fields the one that the type has now.
 * The identifier is set last: an error on the way leaves an entry that the
 * next call builds again.
 */
static void
refresh_fields(AlEncoder *encoder)
{
	TypeCacheEntry *type = lookup_type_cache(encoder->single.typid, TYPECACHE_TUPDESC);
	MemoryContext old;
	TupleDesc	tupdesc;
	uint64		identifier;

	if (type->tupDesc == NULL)
		elog(ERROR, "type %u is not composite", encoder->single.typid);
	if (type->tupDesc_identifier == encoder->identifier)
		return;

	encoder->identifier = 0;
	identifier = type->tupDesc_identifier;
	if (encoder->fieldcxt != NULL)
		MemoryContextReset(encoder->fieldcxt);
	else
		encoder->fieldcxt = AllocSetContextCreate(encoder->cxt,
												  "audit_log composite type",
												  ALLOCSET_SMALL_SIZES);
	encoder->nfields = 0;
	encoder->field_need = AL_FIXED_NOTHING;

	/* with constraints, for they hold the values of columns added later */
	old = MemoryContextSwitchTo(encoder->fieldcxt);
	tupdesc = CreateTupleDescCopyConstr(type->tupDesc);
	encoder->tupdesc = tupdesc;
	encoder->fields = palloc(sizeof(AlField) * Max(tupdesc->natts, 1));
	for (int i = 0; i < tupdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(tupdesc, i);
		AlField    *field = &encoder->fields[encoder->nfields];

		if (att->attisdropped)
			continue;
		field->name = NameStr(att->attname);
		field->namelen = strlen(field->name);
		field->attno = i;
		field->encoder = al_encode_prepare(att->atttypid, att->atttypmod,
										   encoder->fieldcxt);
		encoder->field_need = Max(encoder->field_need, field->encoder->need);
		encoder->nfields++;
	}
	qsort(encoder->fields, encoder->nfields, sizeof(AlField), compare_fields);
	MemoryContextSwitchTo(old);

	encoder->identifier = identifier;
}

/* ------------------------------------------------------------------------
 * arrays and composites
 *
 * These write into the buffer of the outermost container, and return false
 * where a value has no plain form; what is written until then is void.
 * ------------------------------------------------------------------------
 */

static bool
append_dimension(ElementWalk *walk, int dim, StringInfo buf, AlJsonFrame *parent)
{
	AlJsonFrame frame;

	al_jsonbuild_array(&frame, buf, walk->dims[dim]);
	for (int i = 0; i < walk->dims[dim]; i++)
	{
		if (dim + 1 < walk->ndim)
		{
			if (!append_dimension(walk, dim + 1, buf, &frame))
				return false;
			continue;
		}

		if (walk->nulls[walk->next])
		{
			AlValue		null = {.kind = AL_NULL};

			al_jsonbuild_value(&frame, &null);
		}
		else if (!append_value(walk->encoder, walk->values[walk->next], &frame, true))
			return false;

		if (++walk->next % ELEMENTS_PER_RESET == 0)
		{
			CHECK_FOR_INTERRUPTS();
			if (walk->scratch != NULL)
				MemoryContextReset(walk->scratch);
		}
	}
	al_jsonbuild_close(&frame, parent);
	return true;
}

static bool
append_array(AlEncoder *encoder, Datum value, StringInfo buf, AlJsonFrame *parent)
{
	ArrayType  *array = DatumGetArrayTypeP(value);
	int			ndim = ARR_NDIM(array);
	ElementWalk walk;
	int			nelems;
	bool		plain;
	MemoryContext old = CurrentMemoryContext;

	for (int i = 0; i < ndim; i++)
	{
		if (ARR_LBOUND(array)[i] != 1)
			return false;
	}

	if (ArrayGetNItems(ndim, ARR_DIMS(array)) == 0)
	{
		AlJsonFrame frame;

		al_jsonbuild_array(&frame, buf, 0);
		al_jsonbuild_close(&frame, parent);
		return true;
	}

	/* arrays within arrays, through a domain, would read as dimensions */
	if (encoder->element->shape == SHAPE_ARRAY)
		return false;

	deconstruct_array(array, ARR_ELEMTYPE(array), encoder->elemlen,
					  encoder->elembyval, encoder->elemalign,
					  &walk.values, &walk.nulls, &nelems);
	walk.encoder = encoder->element;
	walk.ndim = ndim;
	walk.dims = ARR_DIMS(array);
	walk.next = 0;
	walk.scratch = NULL;

	/* buf grows in its own context, whatever is current */
	if (nelems > ELEMENTS_PER_RESET)
	{
		walk.scratch = AllocSetContextCreate(old, "audit_log array elements",
											 ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(walk.scratch);
	}
	plain = append_dimension(&walk, 0, buf, parent);
	MemoryContextSwitchTo(old);
	if (walk.scratch != NULL)
		MemoryContextDelete(walk.scratch);

	pfree(walk.values);
	pfree(walk.nulls);
	return plain;
}

static bool
append_fields(AlEncoder *encoder, HeapTupleHeader row, StringInfo buf,
			  AlJsonFrame *parent)
{
	int			natts = encoder->tupdesc->natts;
	Datum	   *values = palloc(sizeof(Datum) * Max(natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(natts, 1));
	HeapTupleData tuple;
	AlJsonFrame frame;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = row;
	heap_deform_tuple(&tuple, encoder->tupdesc, values, nulls);

	al_jsonbuild_object(&frame, buf, encoder->nfields);
	for (int i = 0; i < encoder->nfields; i++)
		al_jsonbuild_key(&frame, encoder->fields[i].name, encoder->fields[i].namelen);
	for (int i = 0; i < encoder->nfields; i++)
	{
		AlField    *field = &encoder->fields[i];

		if (nulls[field->attno])
		{
			AlValue		null = {.kind = AL_NULL};

			al_jsonbuild_value(&frame, &null);
		}
		else if (!append_value(field->encoder, values[field->attno], &frame, false))
			return false;
	}
	al_jsonbuild_close(&frame, parent);
	return true;
}

static bool
append_composite(AlEncoder *encoder, Datum value, StringInfo buf,
				 AlJsonFrame *parent)
{
	HeapTupleHeader row = DatumGetHeapTupleHeader(value);
	AlFixed		saved;
	volatile bool plain = false;

	check_stack_depth();

	/* cannot be, but then the output function knows what it is */
	if (HeapTupleHeaderGetTypeId(row) != encoder->single.typid)
		return false;

	refresh_fields(encoder);
	if (encoder->field_need <= encoder->need)
		return append_fields(encoder, row, buf, parent);

	/*
	 * The type has got a field since the caller asked that needs more fixed
	 * settings than he was told.
	 */
	al_fixed_enter(&saved, encoder->field_need);
	PG_TRY();
	{
		plain = append_fields(encoder, row, buf, parent);
	}
	PG_FINALLY();
	{
		al_fixed_leave(&saved);
	}
	PG_END_TRY();
	return plain;
}

/* element says that the value stands directly in a JSON array */
static bool
append_value(AlEncoder *encoder, Datum value, AlJsonFrame *frame, bool element)
{
	AlValue		single;

	if (encoder->shape == SHAPE_ARRAY)
		return append_array(encoder, value, frame->buf, frame);
	if (encoder->shape == SHAPE_COMPOSITE)
		return append_composite(encoder, value, frame->buf, frame);

	encoder->single.encode(&encoder->single, value, &single, false);
	if (single.kind == AL_PG)
		return false;
	/* a json array as an element would read as a dimension */
	if (element && single.kind == AL_CONTAINER &&
		JsonContainerIsArray(single.container))
		return false;
	al_jsonbuild_value(frame, &single);
	return true;
}

/*
 * The value of a whole column, not NULL.  The caller has entered the settings
 * that al_encode_need names.
 */
void
al_encode_value(AlEncoder *encoder, Datum value, AlValue *out)
{
	StringInfoData buf;
	Jsonb	   *root;
	bool		plain;

	if (encoder->shape != SHAPE_ARRAY && encoder->shape != SHAPE_COMPOSITE)
	{
		encoder->single.encode(&encoder->single, value, out, true);
		return;
	}

	initStringInfo(&buf);
	al_jsonbuild_init(&buf);
	if (encoder->shape == SHAPE_ARRAY)
		plain = append_array(encoder, value, &buf, NULL);
	else
		plain = append_composite(encoder, value, &buf, NULL);

	/* a composite may have $pg as the name of its only attribute */
	if (plain)
	{
		root = al_jsonbuild_finish(&buf);
		plain = !al_encode_single_is_pg(&root->root);
	}
	if (!plain)
	{
		pfree(buf.data);
		al_encode_single_pg(&encoder->single, value, out);
		return;
	}

	out->kind = AL_CONTAINER;
	out->container = &root->root;
	out->len = VARSIZE(root) - VARHDRSZ;
}
