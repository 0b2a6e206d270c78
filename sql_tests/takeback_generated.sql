--
-- Taking back in tables whose key is a generated column: rows that took each
-- other's key are written under it, and what refers to them stays theirs
-- edge cases 103, 104, 105
--
CREATE SCHEMA takeback_generated;
SET search_path = takeback_generated;
SET client_min_messages = warning;
CREATE TABLE gen (a int, k int GENERATED ALWAYS AS (a + 100) STORED PRIMARY KEY, v text);
CREATE TABLE kid (id int PRIMARY KEY, k int REFERENCES gen ON DELETE CASCADE ON UPDATE CASCADE);
SELECT audit_log.enable('gen'), audit_log.enable('kid');
INSERT INTO gen VALUES (1, DEFAULT, 'a'), (2, DEFAULT, 'b'), (3, DEFAULT, 'c');
INSERT INTO kid VALUES (1, 101), (2, 102);
SELECT audit_log.mark('takeback_generated');
BEGIN;
UPDATE gen SET a = -1 WHERE a = 1; UPDATE gen SET a = 1 WHERE a = 2; UPDATE gen SET a = 2 WHERE a = -1;
COMMIT;
SELECT max(transaction_id) AS tid FROM audit_log.audit_logs WHERE table_schema = 'takeback_generated' \gset
\set take 'SELECT table_name, record_id, action_type, before, after, conflict FROM audit_log.'

BEGIN;
:take undo_transaction(:tid);
TABLE gen ORDER BY a; TABLE kid ORDER BY id;
ROLLBACK;
BEGIN;
:take rollback_to('{gen,kid}', 'takeback_generated');
TABLE gen ORDER BY a; TABLE kid ORDER BY id;
-- and it is complete
:take rollback_to('{gen,kid}', 'takeback_generated');
ROLLBACK;
BEGIN;
:take restore_row('gen', '101', 'takeback_generated', force => true);
ROLLBACK;

-- moved on in a circle over another key, with one deleted and inserted anew in between
BEGIN;
UPDATE gen SET a = 9 WHERE a = 1; DELETE FROM gen WHERE a = 2; INSERT INTO gen VALUES (2, DEFAULT, 'z');
UPDATE gen SET a = 11 WHERE a = 3; UPDATE gen SET a = 3 WHERE a = 9;
COMMIT;
BEGIN;
:take rollback_to('{gen,kid}', 'takeback_generated');
TABLE gen ORDER BY a; TABLE kid ORDER BY id;
:take rollback_to('{gen,kid}', 'takeback_generated');
ROLLBACK;

-- a key that others have changed since is kept, where what is undone has not changed it
SELECT audit_log.rollback_to('{gen,kid}', 'takeback_generated') \g /dev/null
UPDATE gen SET v = 'mine' WHERE a IN (1, 2);
SELECT max(transaction_id) AS tid FROM audit_log.audit_logs WHERE table_schema = 'takeback_generated' \gset
UPDATE gen SET a = 21 WHERE a = 1;
UPDATE gen SET a = 1 WHERE a = 2;
:take undo_transaction(:tid);
TABLE gen ORDER BY a; TABLE kid ORDER BY id;

SELECT audit_log.drop_mark('takeback_generated');
DROP SCHEMA takeback_generated CASCADE;
