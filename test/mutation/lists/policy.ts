import type { Mutation } from '../mutation.ts';

const DENY = 'src/policy/parts/deny/deny-part.ts';
const DOOR = 'src/policy/door.ts';
const SET = 'src/policy/policy-set.ts';
const SIGHTINGS = 'src/policy/parts/age/sightings.ts';
const tests = ['test/policy/deny.test.ts'];
const AGE_TESTS = ['test/policy/minimum-age.test.ts'];

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
      'return opened.bytes === undefined ? open({ ...request, reference: opened.digest, head: false }) : opened;',
    by: 'return { ...opened, bytes: opened.bytes ?? Buffer.from(\'{"schemaVersion":2,"config":{}}\') };',
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
    replace: 'this.#verdicts.set(key, { ...verdict, until });',
    by: 'this.#verdicts.set(key, { ...verdict, until: Number.POSITIVE_INFINITY });',
    promise: 'a refusal holds for 30 seconds',
    tests,
  },
  {
    file: SET,
    replace: 'const oldEnough = meanings.find((digest) => from(digest) <= now);',
    by: 'const oldEnough = meanings[0];',
    promise: 'a tag that moved today goes on meaning what it meant',
    tests: AGE_TESTS,
  },
  {
    file: 'src/policy/parts/age/age-part.ts',
    replace: 'if (notBefore <= clock.now()) return ALLOWED;',
    by: 'return ALLOWED;',
    promise: 'a new image waits',
    tests: AGE_TESTS,
  },
  {
    file: SIGHTINGS,
    replace:
      'seen.firstSeen.set(digest as Digest, Math.min(at, seen.firstSeen.get(digest as Digest) ?? at));',
    by: 'seen.firstSeen.set(digest as Digest, at);',
    promise: 'what counts is the first sighting',
    tests: AGE_TESTS,
  },
  {
    file: SIGHTINGS,
    replace: 'this.#latest = Math.max(this.#latest, this.#context.clock.now());',
    by: 'this.#latest = this.#context.clock.now();',
    promise: 'a clock that goes back makes nothing older',
    tests: AGE_TESTS,
  },
  {
    file: SIGHTINGS,
    replace: "if (text !== '' && !text.endsWith('\\n')) sightings.#append('\\n');",
    by: '',
    promise: 'a torn line does not spoil the next one',
    tests: AGE_TESTS,
  },
  {
    file: 'src/policy/parts/age/first-look.ts',
    replace: 'if (expanded === true && isMeant(`${key.upstream}/${key.repository}`))',
    by: 'if (false)',
    promise: 'the first day of a policy stops nothing that is cached',
    tests: AGE_TESTS,
  },
  {
    file: DOOR,
    replace: 'await sightings.note(key, [newest.digest, ...manifests.map(({ digest }) => digest)], tag);',
    by: 'await sightings.note(key, [newest.digest], tag);',
    promise: 'a platform manifest is as old as the index that lists it',
    tests: AGE_TESTS,
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
