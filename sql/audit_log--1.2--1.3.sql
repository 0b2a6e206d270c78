/* audit_log 1.3: activity feed, outbox, reports, and the frameworks people already use */

\echo Use "ALTER EXTENSION audit_log UPDATE" to load this file. \quit

/*
 * Sessions look the version up again when this table's catalog row changes: an
 * older library refuses changes from here on (HINT: connect again).
 */
REVOKE ALL ON audit_log.tracked_table FROM PUBLIC;
