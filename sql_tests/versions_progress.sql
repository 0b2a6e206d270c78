-- Initial versions of a long table: NOTICEs tell that it goes on, the first after 100,000 rows, partitions counted
-- together; of a shorter one there is none. (Later ones come by the clock.)
CREATE SCHEMA versions_progress;
SET search_path = versions_progress;
CREATE TABLE short (id int PRIMARY KEY);
INSERT INTO short SELECT generate_series(1, 99999);
SELECT audit_log.enable('short', versioned => true);
CREATE TABLE long (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE long_1 PARTITION OF long FOR VALUES FROM (0) TO (50001);
CREATE TABLE long_2 PARTITION OF long DEFAULT;
INSERT INTO long SELECT generate_series(1, 100000);
SELECT audit_log.enable('long', versioned => true);
SELECT (SELECT count(*) FROM long_version), (SELECT count(*) FROM short_version);
SET client_min_messages = warning;
DROP SCHEMA versions_progress CASCADE;
