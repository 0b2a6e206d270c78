--
-- jsondiffpatch deltas between JSON values: jsonb_delta, jsonb_patch,
-- jsonb_unpatch, change_columns
--
SET search_path = audit_log, pg_catalog;

-- changed, added, removed; objects on both sides are compared inside
SELECT jsonb_delta('{"qty": 3, "same": 1}', '{"qty": 4, "same": 1}');
SELECT jsonb_delta('{"attrs": {"color": "red", "old": 7, "same": {}}}',
				   '{"attrs": {"color": "blue", "size": "L", "same": {}}}');

-- arrays are replaced whole, and so is what is an object on one side only
SELECT jsonb_delta('{"a": [1, 2, 3]}', '{"a": [1, 2]}');
SELECT jsonb_delta('{"a": [{"x": 1}]}', '{"a": [{"x": 2}]}');
SELECT jsonb_delta('{"a": {"x": 1}}', '{"a": [1]}'), jsonb_delta('{"a": {}}', '{"a": null}');

-- the image counts, not =
SELECT '1.0'::jsonb = '1.00'::jsonb AS equal, jsonb_delta('{"a": 1.0}', '{"a": 1.00}');
SELECT jsonb_delta('{"a": {"b": [1.0]}}', '{"a": {"b": [1.00]}}');

-- null is a value, absent is none
SELECT jsonb_delta('{"a": null}', '{}'), jsonb_delta('{}', '{"a": null}'), jsonb_delta('{"a": null}', '{"a": 0}');

-- no difference is SQL NULL
SELECT jsonb_delta('{"a": {"b": 1}}', '{"a": {"b": 1}}') IS NULL AS a,
	   jsonb_delta('{}', '{}') IS NULL AS b, jsonb_delta('[]', '[]') IS NULL AS c,
	   jsonb_delta('1', '1') IS NULL AS d, jsonb_delta('null', 'null') IS NULL AS e,
	   jsonb_delta(NULL, NULL) IS NULL AS f;

-- what is no object, and SQL NULL, which is no document at all
SELECT jsonb_delta('1', '"1"'), jsonb_delta('[1]', '{"a": 1}'), jsonb_delta('{}', 'null');
SELECT jsonb_delta(NULL, '{"a": 1}'), jsonb_delta('null', NULL);
SELECT jsonb_patch(NULL, '[{"a": 1}]'), jsonb_patch('5', '[5, 0, 0]') IS NULL AS gone,
	   jsonb_unpatch('5', '[5]') IS NULL AS never, jsonb_unpatch(NULL, '[5, 0, 0]');
SELECT jsonb_patch('1', '[1, "x"]'), jsonb_unpatch('"x"', '[1, "x"]');

-- no delta leaves the document as it is
SELECT jsonb_patch('{"a": 1}', NULL), jsonb_unpatch('[1]', NULL), jsonb_patch(NULL, NULL) IS NULL AS nothing,
	   jsonb_patch('{"a": 1}', '{}');

-- forward and back
SELECT jsonb_patch('{"a": 1, "b": {"x": 1}, "c": 3}', '{"a": [1, 2], "b": {"x": [1, 0, 0], "y": [[]]}, "c": [3, 0, 0], "d": [4]}');
SELECT jsonb_unpatch('{"a": 2, "b": {"y": []}, "d": 4}', '{"a": [1, 2], "b": {"x": [1, 0, 0], "y": [[]]}, "c": [3, 0, 0], "d": [4]}');
-- zeros may be written otherwise
SELECT jsonb_patch('{"a": 1, "b": 2}', '{"a": [1, 0.0, 0e5]}');
-- as in jsondiffpatch the value there is not compared with the delta's old one
SELECT jsonb_patch('{"a": "other"}', '{"a": [1, 2], "b": [3, 0, 0]}');

-- keys that mean something elsewhere are plain keys
SELECT jsonb_delta('{"_t": 1, "__proto__": 1, "": 1, "$pg": 1}', '{"_t": 2, "__proto__": {"x": 1}, "": null, "$pg": "x"}') AS delta \gset
SELECT :'delta';
SELECT jsonb_patch('{"_t": 1, "__proto__": 1, "": 1, "$pg": 1}', :'delta');
SELECT jsonb_unpatch('{"_t": 2, "__proto__": {"x": 1}, "": null, "$pg": "x"}', :'delta');
SELECT jsonb_patch('{"_t": {"a": 1}}', jsonb_delta('{"_t": {"a": 1}}', '{"_t": {"a": "a"}}'));

-- what is no delta, or none that is supported
SELECT jsonb_patch('{"a": 1}', '{"a": 2}');
SELECT jsonb_patch('{"a": {"b": 1}}', '{"a": {"b": []}}');
SELECT jsonb_patch('{"a": 1}', '{"a": [1, 2, 3]}');
SELECT jsonb_patch('{"a": 1}', '{"a": [1, 1, 0]}');
SELECT jsonb_patch('{"a": 1}', '{"a": [1, 2, 3, 4]}');
SELECT jsonb_patch('1', '2');
SELECT jsonb_unpatch('1', 'null');
SELECT jsonb_patch('{"a": [1, 2]}', '{"a": {"_t": "a", "0": [3]}}');
SELECT jsonb_patch('[1, 2]', '{"_t": "a", "0": [3]}');
SELECT jsonb_patch('{"a": "long text"}', '{"a": ["@@ -1,4 +1,4 @@", 0, 2]}');
SELECT jsonb_patch('{"a": [1, 2]}', '{"a": {"x": ["", 1, 3]}}');
SELECT jsonb_patch('{"a": "long text"}', '{"a": ["", 1, 3]}');
-- a delta for another document
SELECT jsonb_patch('{"a": 1}', '{"a": {"b": [1, 2]}}');
SELECT jsonb_patch('{"c": 1}', '{"a": {"b": [1, 2]}}');
SELECT jsonb_patch('[1]', '{"b": [1, 2]}');
SELECT jsonb_patch(NULL, '{"b": [1, 2]}');
-- the place of the fault, long and deep ones shortened
SELECT jsonb_patch(d, d) FROM (SELECT (repeat('{"k":', 20) || jsonb_build_object(repeat('long', 100), 1) || repeat('}', 20))::jsonb) AS t (d);

-- long keys
SELECT d = jsonb_build_object(k, jsonb_build_array(1, 2)) AS delta,
	   jsonb_patch(jsonb_build_object(k, 1, 'a', 0), d) = jsonb_build_object(k, 2, 'a', 0) AS patched
FROM (SELECT k, jsonb_delta(jsonb_build_object(k, 1, 'a', 0), jsonb_build_object(k, 2, 'a', 0)) AS d
	  FROM (SELECT repeat('k', 100000)) AS s (k)) AS t;

-- deep nesting: compared inside down to 1000 levels, below that replaced whole, whatever the stack
CREATE TEMP TABLE deep AS
SELECT (repeat('{"a":', 3000) || '1' || repeat('}', 3000))::jsonb AS old,
	   (repeat('{"a":', 3000) || '"2"' || repeat('}', 3000))::jsonb AS new;
SELECT length(jsonb_delta(old, new)::text) AS length,
	   jsonb_patch(old, jsonb_delta(old, new)) = new AS patched,
	   jsonb_unpatch(new, jsonb_delta(old, new)) = old AS unpatched,
	   (SELECT array_length(path, 1) FROM change_columns(jsonb_delta(old, new), 'UPDATE')) AS path
FROM deep;
SELECT jsonb_patch(old, jsonb_delta(old, new)) = new AS patched
FROM (SELECT (repeat('{"a":', 9000) || '1' || repeat('}', 9000))::jsonb AS old,
			 (repeat('{"a":', 9000) || '2' || repeat('}', 9000))::jsonb AS new) AS deeper;
-- less stack than these need
CREATE TEMP TABLE deep_delta AS SELECT old, jsonb_delta(old, new) AS delta FROM deep;
SET max_stack_depth = '100kB';
\set VERBOSITY sqlstate
SELECT jsonb_delta(old, new) IS NULL FROM deep;
SELECT jsonb_patch(old, delta) IS NULL FROM deep_delta;
SELECT count(*) FROM deep_delta, change_columns(delta, 'UPDATE');
\set VERBOSITY default
RESET max_stack_depth;

-- one row a column
SELECT * FROM change_columns('{"a": 1, "b": {"x": [1]}, "p": {"$pg": "NaN"}}', 'INSERT');
SELECT * FROM change_columns('{"a": 1, "b": null}', 'SNAPSHOT');
SELECT * FROM change_columns('{"a": 1, "b": "x"}', 'DELETE');
-- one row a changed value; null is SQL NULL for a column, JSON null inside
SELECT * FROM change_columns('{"a": [1, 2], "b": [null, 5], "c": [5, null], "p": [{"$pg": "NaN"}, 1],
	"j": {"x": ["new"], "y": [1, 0, 0], "n": [null, 1], "m": [1, null], "o": {"": {"deep": [{"a": 1}, [2]]}}}}', 'UPDATE');
-- a table without key carries its unchanged columns
SELECT * FROM change_columns('{"a": [1, 1], "b": [null, null], "c": [1.0, 1.00]}', 'UPDATE');
-- nothing to show
SELECT * FROM change_columns(NULL, 'TRUNCATE');
SELECT * FROM change_columns('{"partition": "a.b"}', 'TRUNCATE');
SELECT * FROM change_columns(NULL, 'INSERT');
SELECT * FROM change_columns('{}', NULL);
SELECT * FROM change_columns('{}', 'update');
SELECT * FROM change_columns('[]', 'INSERT');
SELECT * FROM change_columns('{"a": 1}', 'UPDATE');

--
-- Random documents: what patch and unpatch give must be the very image, as
-- the server itself writes it.
--
CREATE FUNCTION pg_temp.random_json(depth int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	kind int := floor(random() * CASE WHEN depth > 0 THEN 14 ELSE 9 END);
	n int := floor(random() ^ 4 * 80);
	keys text[] := '{"",a,b,c,d,_t,__proto__,constructor,$pg,0,1,length,long key with spaces,ä,😀,"quo\"te"}';
	numbers text[] := '{0,1,-1,1.0,1.00,1e100,-1e-100,12345678901234567890.123456789,0.1,10000,9999,1e1000,3.14}';
	parts text[] := '{}';
BEGIN
	IF kind = 0 THEN RETURN 'null';
	ELSIF kind = 1 THEN RETURN 'true';
	ELSIF kind = 2 THEN RETURN 'false';
	ELSIF kind <= 5 THEN RETURN numbers[1 + floor(random() * array_length(numbers, 1))];
	ELSIF kind <= 8 THEN RETURN to_json(repeat(keys[1 + floor(random() * array_length(keys, 1))], n))::text;
	END IF;
	FOR i IN 1 .. n LOOP
		parts := parts || (CASE WHEN kind > 9
			THEN to_json(CASE WHEN random() < 0.7 THEN keys[1 + floor(random() * array_length(keys, 1))]
						 ELSE 'k' || floor(random() * 60) END)::text || ':' ELSE '' END
			|| pg_temp.random_json(depth - 1));
	END LOOP;
	IF kind > 9 THEN RETURN '{' || array_to_string(parts, ',') || '}'; END IF;
	RETURN '[' || array_to_string(parts, ',') || ']';
END $$;

-- another document with much in common: some values replaced, some keys gone
CREATE FUNCTION pg_temp.vary(document jsonb, depth int) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	result jsonb := document;
	k text;
BEGIN
	IF jsonb_typeof(document) <> 'object' OR random() < 0.05 THEN
		RETURN pg_temp.random_json(2)::jsonb;
	END IF;
	FOR k IN SELECT jsonb_object_keys(document) LOOP
		IF random() < 0.1 THEN
			result := result - k;
		ELSIF random() < 0.3 THEN
			result := jsonb_set(result, ARRAY[k], pg_temp.vary(document -> k, depth - 1));
		END IF;
	END LOOP;
	IF random() < 0.3 THEN
		result := result || jsonb_build_object('added' || floor(random() * 100), pg_temp.random_json(1)::jsonb);
	END IF;
	RETURN result;
END $$;

CREATE FUNCTION pg_temp.same(a jsonb, b jsonb) RETURNS boolean LANGUAGE sql AS
	'SELECT record_image_eq(ROW(a), ROW(b))';

SELECT setseed(0.42);
CREATE TEMP TABLE pair AS
SELECT a.a, pg_temp.vary(a.a, 3) AS b FROM (SELECT pg_temp.random_json(3)::jsonb AS a FROM generate_series(1, 1200) OFFSET 0) AS a;
INSERT INTO pair SELECT a.a, b.a FROM (SELECT a, row_number() OVER () AS n FROM pair) AS a JOIN
	(SELECT a, row_number() OVER () AS n FROM pair) AS b ON b.n = a.n + 1;
ALTER TABLE pair ADD delta jsonb;
UPDATE pair SET delta = jsonb_delta(a, b);

-- enough of each kind, so that the test means something
SELECT count(*) > 2000 AS pairs,
	   count(*) FILTER (WHERE delta IS NULL) > 20 AS same,
	   count(*) FILTER (WHERE jsonb_typeof(delta) = 'object') > 300 AS nested,
	   count(*) FILTER (WHERE (SELECT count(*) FROM jsonb_object_keys(CASE WHEN jsonb_typeof(delta) = 'object' THEN delta ELSE '{}' END)) > 16) > 20 AS long
FROM pair;
SELECT count(*) AS wrong FROM pair WHERE
	(delta IS NULL) IS DISTINCT FROM pg_temp.same(a, b)
	OR NOT pg_temp.same(jsonb_patch(a, delta), b)
	OR NOT pg_temp.same(jsonb_unpatch(b, delta), a)
	-- the image of every result is the server's own
	OR NOT pg_temp.same(delta, delta::text::jsonb)
	OR NOT pg_temp.same(jsonb_patch(a, delta), b::text::jsonb);
-- from nothing, and to nothing
SELECT count(*) AS wrong FROM pair WHERE
	NOT pg_temp.same(jsonb_delta(NULL, a), jsonb_build_array(a))
	OR NOT pg_temp.same(jsonb_delta(a, NULL), jsonb_build_array(a, 0, 0))
	OR NOT pg_temp.same(jsonb_patch(NULL, jsonb_delta(NULL, a)), a)
	OR jsonb_patch(a, jsonb_delta(a, NULL)) IS NOT NULL;
-- the rows of change_columns are the leaves of the delta
SELECT count(*) AS wrong FROM pair
WHERE jsonb_typeof(delta) = 'object' AND EXISTS (
	SELECT FROM change_columns(delta, 'UPDATE') AS c
	WHERE c.path <> '{}'
	  AND (c.old_value IS DISTINCT FROM a #> (c.column_name || c.path)
		   OR c.new_value IS DISTINCT FROM b #> (c.column_name || c.path)));
