/*
 * audit_log.c
 *		Module magic; tells each module to set itself up.
 */
#include "postgres.h"

#include "fmgr.h"

#include "audit_log.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

void
_PG_init(void)
{
	al_settings_init();
	al_target_init();
	al_table_init();
	al_capture_init();
}
