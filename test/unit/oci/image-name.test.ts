import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { formatImageName, parseImageName } from '../../../src/oci/image-name.ts';

const DIGEST = `sha256:${'a'.repeat(64)}`;

suite('a name means', () => {
  for (const [text, full] of [
    ['alpine', 'docker.io/library/alpine'],
    ['alpine:3.20', 'docker.io/library/alpine:3.20'],
    ['org/app', 'docker.io/org/app'],
    ['docker.io/alpine', 'docker.io/library/alpine'],
    ['index.docker.io/alpine:1', 'docker.io/library/alpine:1'],
    ['docker.io/library/alpine', 'docker.io/library/alpine'],
    ['ghcr.io/app', 'ghcr.io/app'],
    ['quay.io/org/app:v1', 'quay.io/org/app:v1'],
    ['Quay.IO/org/app', 'quay.io/org/app'],
    ['localhost/app:latest', 'localhost/app:latest'],
    ['localhost:5000/app', 'localhost:5000/app'],
    ['localhost:5000', 'docker.io/library/localhost:5000'],
    ['registry:5000/a/b/c:1', 'registry:5000/a/b/c:1'],
    ['127.0.0.1:5000/app', '127.0.0.1:5000/app'],
    ['[::1]:5000/app:1', '[::1]:5000/app:1'],
    ['local/app', 'docker.io/local/app'],
    [`alpine@${DIGEST}`, `docker.io/library/alpine@${DIGEST}`],
    [`quay.io/org/app:v1@${DIGEST}`, `quay.io/org/app:v1@${DIGEST}`],
  ] as const) {
    test(`${text.replace(DIGEST, 'sha256:…')} → ${full.replace(DIGEST, 'sha256:…')}`, () => {
      const name = parseImageName(text);
      assert.ok(name !== undefined);
      assert.equal(formatImageName(name), full);
    });
  }
});

test('text that is not an image name is refused', () => {
  for (const text of [
    '',
    '/',
    ':',
    '@',
    ':tag',
    '/app',
    'app/',
    'app:',
    'app@',
    'quay.io/',
    'quay.io//app',
    'Alpine',
    'org/App',
    'org/../app',
    'quay.io/../app',
    'app:ta/g',
    'app:-tag',
    'app:a:b',
    'a b',
    'app\n',
    'app\0',
    'https://quay.io/app',
    'user@quay.io/app',
    'quay..io/app',
    '-quay.io/app',
    'quay.io:/app',
    'quay.io:port/app',
    'quay.io:123456/app',
    '[::1/app',
    'app@sha256:short',
    'app@md5:d41d8cd98f00b204e9800998ecf8427e',
    `app@${DIGEST}@${DIGEST}`,
    `app@${DIGEST}:tag`,
    'a'.repeat(256),
    `${'a.'.repeat(130)}io/app`,
  ]) {
    assert.equal(parseImageName(text), undefined, JSON.stringify(text));
  }
});
