import type { Mutation } from '../mutation.ts';

const DOOR = ['test/access/operations-door.test.ts'];
const IMPORT = ['test/access/import-rights.test.ts'];
const LOGIN = ['test/contract/login.test.ts'];
const EXPLAIN = ['test/contract/access-explain.test.ts'];

/** Who may do what on the operations side. */
export const operations: readonly Mutation[] = [
  {
    file: 'src/http/operations/web-pages.ts',
    replace: 'if (isIP(name) === 0 && !known.has(name)) {',
    by: 'if (false) {',
    promise: 'DNS rebinding does not reach the operations side',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/web-pages.ts',
    replace: "new Set(['localhost', ...names.map(nameIn)])",
    by: "new Set(['localhost'])",
    promise: 'names in operations.hosts are served',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/operations.ts',
    replace: "ctx.state.permit.require(['observe']);",
    by: '',
    promise: 'metrics need observe: true',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/api.ts',
    replace: "!mayObserve(image) || !ctx.state.permit.has('pull', image)",
    by: "!ctx.state.permit.has('pull', image)",
    promise: 'the list shows only what the asker may observe',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/api.ts',
    replace: "!mayObserve(image) || !ctx.state.permit.has('pull', image)",
    by: '!mayObserve(image)',
    promise: 'the list shows only what the asker may pull',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/api.ts',
    replace: "permit.require(['operate'], [{ upstream, repository: name.repository }]);",
    by: '',
    promise: 'an image is removed only by somebody who may operate it',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/transfer-api.ts',
    replace: "permit.require(['operate', 'fetch'], meant(wanted.images, upstreamOf));",
    by: "permit.require(['operate'], meant(wanted.images, upstreamOf));",
    promise: 'warming needs the right to fetch',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/transfer-api.ts',
    replace: "ctx.state.permit.require(['operate', 'pull'], meant(request.images, upstreamOf));",
    by: "ctx.state.permit.require(['operate'], meant(request.images, upstreamOf));",
    promise: 'an export needs the right to pull',
    tests: DOOR,
  },
  {
    file: 'src/http/operations/transfer-api.ts',
    replace: "const isTrusted = permit.has('operate');",
    by: 'const isTrusted = true;',
    promise: 'a digest alone gives no private layer to somebody who may import some images',
    tests: IMPORT,
  },
  {
    file: 'src/transfer/importer.ts',
    replace: 'authorize(keys);',
    by: '',
    promise: 'an archive with a name that is not allowed is refused whole',
    tests: IMPORT,
  },
  {
    file: 'src/transfer/importer.ts',
    replace: 'await this.#removeUnowned(stored);',
    by: '',
    promise: 'a refused archive leaves nothing behind',
    tests: IMPORT,
  },
  {
    file: 'src/transfer/importer.ts',
    replace: 'if (!this.#isTrusted) await requireDigest(digest, body);',
    by: '',
    promise: 'whoever sends content that the cache has must have it, too',
    tests: IMPORT,
  },
  {
    file: 'src/transfer/imported-images.ts',
    replace: 'if (!(await this.#mayUse(child.digest, taking))) tree.missing',
    by: 'if (false) tree.missing',
    promise: 'an index gives no permission for a manifest that the archive lacks',
    tests: IMPORT,
  },
  {
    file: 'src/transfer/imported-images.ts',
    replace: 'if (!isHere || !(await this.#mayUse(blob.digest, taking))) missing',
    by: 'if (!isHere) missing',
    promise: 'a manifest gives no permission for a layer that the archive lacks',
    tests: IMPORT,
  },
  {
    file: 'src/http/gate/operations-gate.ts',
    replace: '.filter((image) => !this.has(right, image))',
    by: '.filter(() => false)',
    promise: 'patterns of operate are enforced for each image',
    tests: DOOR,
  },
  {
    file: 'src/http/gate/operations-gate.ts',
    replace: 'if (this.#rules.mayDoSomething(this.#asker, right)) return;',
    by: 'return;',
    promise: 'the body of a request is not read for somebody who may do nothing',
    tests: DOOR,
  },
  {
    file: 'src/http/gate/operations-gate.ts',
    replace: 'if (somebody) throw',
    by: 'if (true) throw',
    promise: 'nobody is asked to log in',
    tests: DOOR,
  },
  {
    file: 'src/app/operations-side.ts',
    replace: "if (access === undefined || 'socket' in listen) return admitEverybody;",
    by: 'if (access === undefined) return admitEverybody;',
    promise: 'whoever can open the socket is operator',
    tests: DOOR,
  },
  {
    file: 'src/app/operations-side.ts',
    replace: '(socket) => certificate?.identityOf(socket)',
    by: '() => undefined',
    promise: 'a client certificate is an identity on the operations side',
    tests: DOOR,
  },
  {
    file: 'src/cli/io/operations-client.ts',
    replace: "token ?? (environment['MILLPOND_TOKEN'] || undefined)",
    by: 'token',
    promise: 'MILLPOND_TOKEN is sent',
    tests: LOGIN,
  },
  {
    file: 'src/cli/io/operations-client.ts',
    replace: '{ ...options, ca: await this.#authorities }',
    by: '{ ...options, rejectUnauthorized: false }',
    promise: 'a server is verified with the authorities in --ca',
    tests: LOGIN,
  },
  {
    file: 'src/cli/commands/access.ts',
    replace: 'if (!allowed) throw',
    by: 'if (false) throw',
    promise: 'access explain ends with 1 if it is refused',
    tests: EXPLAIN,
  },
];
