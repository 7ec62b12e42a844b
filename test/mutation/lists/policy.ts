import type { Mutation } from '../mutation.ts';

const DENY = 'src/policy/parts/deny/deny-part.ts';
const DOOR = 'src/policy/door.ts';
const SET = 'src/policy/policy-set.ts';
const tests = ['test/policy/deny.test.ts'];

export const policy: readonly Mutation[] = [
  {
    file: 'src/policy/verdict.ts',
    replace: 'if (!finding.allowed) return { allowed: false, policy, refusal: finding };',
    by: '',
    promise: 'what one policy refuses is not let in',
    tests,
  },
  {
    file: 'src/policy/verdict.ts',
    replace: 'until = Math.min(until, finding.until ?? until);',
    by: '',
    promise: 'what an exception lets in is decided again when it ends',
    tests,
  },
  {
    file: DENY,
    replace: 'if (below !== undefined) return denied(below);',
    by: '',
    promise: 'what lists a denied digest is denied',
    tests,
  },
  {
    file: DENY,
    replace: 'const found = await this.#findBelow(child, isWanted, undefined, seen);',
    by: 'const found = undefined;',
    promise: 'what lists a denied digest at any depth is denied',
    tests,
  },
  {
    file: DENY,
    replace: 'return above === undefined ? ALLOWED : denied(above);',
    by: 'return above === undefined ? ALLOWED : ALLOWED;',
    promise: 'what only a denied index lists is denied',
    tests,
  },
  {
    file: DENY,
    replace: 'if (digest === subject.digest) return true;',
    by: 'continue;',
    promise: 'what a tag means is not denied because of an index',
    tests,
  },
  {
    file: DENY,
    replace: 'if (this.#isDeniedRepository(name)) {',
    by: 'if (false) {',
    promise: 'a denied repository is refused',
    tests,
  },
  {
    file: DOOR,
    replace:
      'if (!verdict.allowed) throw new PolicyError(verdict.policy, verdict.refusal);\n    this.#noteBlobs',
    by: 'this.#noteBlobs',
    promise: 'a manifest that is refused is not served',
    tests,
  },
  {
    file: DOOR,
    replace:
      'bytes === undefined ? await open({ ...request, reference: digest, head: false }) : { bytes, mediaType };',
    by: '{ bytes, mediaType };',
    promise: 'a HEAD is decided by what the manifest lists, and not without it',
    tests,
  },
  {
    file: DOOR,
    replace: 'if (permission?.expanded === true) return this.requireManifest(key, digest);',
    by: 'if (permission?.expanded === true) return;',
    promise: 'a manifest that is asked for as a blob is decided as a manifest',
    tests,
  },
  {
    file: DOOR,
    replace: 'const refused = permission === undefined ? NO_LISTING : await this.#refusedByAll(key, digest);',
    by: 'const refused = permission === undefined ? NO_LISTING : undefined;',
    promise: "upstream's word alone lets no layer in",
    tests,
  },
  {
    file: DOOR,
    replace: 'if ((await index.permission(key, lister))?.expanded !== true) continue;',
    by: '',
    promise: "another repository's manifest lets no layer in",
    tests,
  },
  {
    file: SET,
    replace: 'this.#verdicts.clear();',
    by: '',
    promise: 'a refusal makes what was let in before be decided again',
    tests,
  },
  {
    file: SET,
    replace: "enforcing: matching.filter(({ mode }) => mode === 'enforce'),",
    by: 'enforcing: matching,',
    promise: 'audit lets everything pass',
    tests,
  },
  {
    file: SET,
    replace: 'this.#verdicts.set(key, { ...verdict, until: clock.now() + REFUSAL_HOLDS_MS });',
    by: 'this.#verdicts.set(key, { ...verdict, until: Number.POSITIVE_INFINITY });',
    promise: 'a refusal holds for 30 seconds',
    tests,
  },
  {
    file: 'src/policy/exceptions.ts',
    replace: '.filter(({ digest }) => digest === undefined || digest === subject.digest)',
    by: '',
    promise: 'an exception for a digest is about no other',
    tests,
  },
  {
    file: 'src/policy/live-policies.ts',
    replace: 'if (isChanged) this.#current = this.#makeSet();',
    by: '',
    promise: 'a changed list of denied digests is taken over',
    tests,
  },
  {
    file: 'src/app/app.ts',
    replace: 'policies.use();',
    by: '',
    promise: 'a reload takes over policies',
    tests,
  },
];
