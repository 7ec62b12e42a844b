import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { nextPage } from '../../src/upstream/client/link.ts';

const query = fc.dictionary(fc.stringMatching(/^[a-z]{1,5}$/), fc.string({ unit: 'binary', maxLength: 8 }), {
  maxKeys: 3,
});
const prefix = fc.constantFrom('', '/', '/v2/a/tags/list', 'https://registry.example/v2/a/tags/list', 'list');
const relation = fc.constantFrom(
  'rel="next"',
  'rel=next',
  'REL="Next"',
  'rel="prev next"',
  'title="a, b; c"; rel="next"',
  'title="\\"a\\""; rel="next"',
  'a-flag; rel = next',
);
const other = fc.constantFrom(
  '</first>; rel="first"',
  '<>; rel=prev',
  '</x>',
  '</n>; title="rel=next"',
  '</n>; title="; rel=next;"',
  '</n>; title="\\"; rel=next; x=\\""',
  '</n>; rel=prev; rel=next', // RFC 8288, section 3.3: the first one counts
  '', // RFC 9110, section 5.6.1.2: an empty element of a list counts for nothing
  'no link',
);

test('the query of the next page is read, wherever it stands and however it is written', () => {
  fc.assert(
    fc.property(
      query,
      prefix,
      relation,
      fc.array(other, { maxLength: 2 }),
      fc.boolean(),
      (page, path, rel, others, lines) => {
        const link = `<${path}?${new URLSearchParams(page).toString()}>; ${rel}`;
        const all = [...others, link];
        const { next } = nextPage(lines ? all : all.join(', '));
        assert.ok(next !== undefined);
        const { ns: _dropped, ...expected } = page;
        assert.deepEqual(Object.fromEntries(new URLSearchParams(next)), expected);
      },
    ),
  );
});

test('other relations are no next page, and noise is none and no exception', () => {
  fc.assert(
    fc.property(fc.array(other), (others) => {
      assert.deepEqual(nextPage(others), {});
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (noise) => {
      nextPage(noise);
      nextPage(`<${noise}>; rel="next"`);
    }),
    { numRuns: 500 },
  );
  assert.deepEqual(nextPage(undefined), {});
});

test('no Link, however long, keeps the mirror busy', () => {
  for (const piece of ['<', '<a>;', '<a>; x=', '; rel', ' ', '<a>; x="']) nextPage(piece.repeat(16_000));
});

test('of the next page only its query is kept, without ns: nothing leads a client past the mirror', () => {
  const link = '<https://registry.example/v2/a/tags/list?n=5&ns=elsewhere.example&last=b>; rel="next"';
  assert.deepEqual(nextPage(link), { next: 'n=5&last=b' });
});
