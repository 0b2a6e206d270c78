// Checks deltas with the real jsondiffpatch.
//
//     node check.mjs < lines
//
// Each line is a JSON object:
//
//     {"old": …, "new": …, "delta": …}            patch(old, delta) must be new,
//                                                  unpatch(new, delta) must be old
//     {…, "compare": true}                         and jsondiffpatch's own diff(old, new)
//                                                  must be the same delta
//     {…, "name": "…"}                             shown where the line is wrong
//
// A missing "old" or "new" is no value at all (undefined), a missing or null "delta"
// no difference. The last line of output is a JSON object of counts; the exit code is 0
// when every line was right.
//
// Two things are settled here rather than left out:
//
// - jsondiffpatch itself cannot handle every key: it leaves __proto__ alone, takes an
//   object delta with a key _t for the difference of two arrays, and its diff (not its
//   patch) takes what Object.prototype has for the document's own. Where a line has
//   such keys, they are given other names throughout, in documents and delta alike,
//   and the line is checked under those; "renamed" counts these lines (of patch and
//   unpatch), and "wrong_unrenamed" those for which it was indeed necessary.
// - audit_log replaces arrays whole, which jsondiffpatch's patch takes like any other
//   value; for "compare" its diff is told to do so too. Numbers that differ in their
//   image only (1.0, 1.00) are one number here: a pair of them in our delta is left
//   out of the comparison.

import { isDeepStrictEqual } from 'node:util';
import { readFileSync } from 'node:fs';
import { create } from 'jsondiffpatch';

// jsondiffpatch prints to the console what it cannot handle; the errors it then throws
// are enough.
const say = (text) => process.stdout.write(text + '\n');
console.log = () => {};

const library = create();
const wholeArrays = (context) => {
	if (Array.isArray(context.left) && Array.isArray(context.right)) {
		context.setResult(isDeepStrictEqual(context.left, context.right) ? undefined : [context.left, context.right]).exit();
	}
};
wholeArrays.filterName = 'wholeArrays';
library.processor.pipes.diff.before('trivial', wholeArrays);

// Nothing that a document has; the checker refuses a line that has it.
const SUFFIX = '\u{10fffd}renamed';
const PATCH_KEYS = new Set(['_t', '__proto__']);
const DIFF_KEYS = new Set([...PATCH_KEYS, ...Object.getOwnPropertyNames(Object.prototype)]);

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

const define = (object, key, value) =>
	Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });

function hasKey(value, keys) {
	if (Array.isArray(value)) return value.some((element) => hasKey(element, keys));
	if (!isObject(value)) return false;
	return Object.keys(value).some((key) => keys.has(key) || hasKey(value[key], keys));
}

function rename(value, keys) {
	if (Array.isArray(value)) return value.map((element) => rename(element, keys));
	if (!isObject(value)) return value;
	const result = {};
	for (const key of Object.keys(value)) {
		define(result, keys.has(key) ? key + SUFFIX : key, rename(value[key], keys));
	}
	return result;
}

// A delta without the pairs that are one value to JavaScript.
function withoutSame(delta) {
	if (Array.isArray(delta)) {
		return delta.length === 2 && isDeepStrictEqual(delta[0], delta[1]) ? undefined : delta;
	}
	if (!isObject(delta)) return delta;
	const result = {};
	for (const key of Object.keys(delta)) {
		const inner = withoutSame(delta[key]);
		if (inner !== undefined) define(result, key, inner);
	}
	return Object.keys(result).length > 0 ? result : undefined;
}

// What is wrong with a line, as a list. patch and unpatch change what they are given, and
// the results share parts of the delta, so each call gets a copy of its own: the text,
// read again.
function faults(text, patchKeys, diffKeys) {
	const found = [];
	const attempt = (what, keys, work, wanted) => {
		const read = () => {
			const line = JSON.parse(text);
			if (line.delta === null) delete line.delta;
			return keys ? rename(line, keys) : line;
		};
		const right = wanted(read());
		let got;
		try {
			got = work(read());
		} catch (error) {
			found.push(`${what}: ${error.message}`);
			return;
		}
		if (!isDeepStrictEqual(got, right)) {
			found.push(`${what} gives ${JSON.stringify(got)} instead of ${JSON.stringify(right)}`);
		}
	};
	attempt('patch(old, delta)', patchKeys, (line) => library.patch(line.old, line.delta), (line) => line.new);
	attempt('unpatch(new, delta)', patchKeys, (line) => library.unpatch(line.new, line.delta), (line) => line.old);
	if (JSON.parse(text).compare === true) {
		attempt('diff(old, new)', diffKeys, (line) => library.diff(line.old, line.new), (line) => withoutSame(line.delta));
	}
	return found;
}

const counts = { lines: 0, compared: 0, nested: 0, renamed: 0, wrong_unrenamed: 0, wrong: 0 };

// Not by readline, for which U+2028 ends a line too.
readFileSync(0, 'utf8').split('\n').forEach((text, index) => {
	if (text === '') return;
	counts.lines++;
	let found;
	try {
		const line = JSON.parse(text);
		if (!isObject(line)) throw new Error('a line must be a JSON object');
		if (text.includes('\u{10fffd}') || text.toLowerCase().includes('\\udbff\\udffd')) {
			throw new Error('a line must not hold U+10FFFD');
		}
		if (line.compare === true) counts.compared++;
		if (isObject(line.delta)) counts.nested++;
		const patchKeys = hasKey(line, PATCH_KEYS) ? PATCH_KEYS : null;
		const diffKeys = hasKey(line, DIFF_KEYS) ? DIFF_KEYS : null;
		if (patchKeys) {
			counts.renamed++;
			if (faults(text, null, diffKeys).length > 0) counts.wrong_unrenamed++;
		}
		found = faults(text, patchKeys, diffKeys);
	} catch (error) {
		found = [error.message];
	}
	if (found.length > 0) {
		counts.wrong++;
		say(`line ${index + 1}: ${found.join('; ')}`.slice(0, 2000));
		say(`    ${text}`.slice(0, 2000));
	}
});

say(JSON.stringify(counts));
process.exitCode = counts.wrong > 0 || counts.lines === 0 ? 1 : 0;
