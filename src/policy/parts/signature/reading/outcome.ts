/** What was found out about one signature, and how a refusal says it. */

export type Outcome =
  | {
      isValid: true;
      /** Up to when it holds; milliseconds since the epoch. Absent: for ever. */
      until?: number;
    }
  | { isValid: false; problem: Problem };

export const VALID: Outcome = { isValid: true };

/** Each in two forms: "its signature …" and "none of its 2 signatures …". */
const PROBLEMS = {
  missing: ['is listed, but it is missing or larger than 1 MiB', 'is there and at most 1 MiB large'],
  unreadable: ['cannot be read', 'can be read'],
  'other-digest': ['is for another digest', 'is for this digest'],
  'other-key': ['is not by a key of the policy', 'is by a key of the policy'],
  'by-key': ['is by a key, and the policy wants an identity', 'is by an identity'],
  'other-issuer': [
    'is by an identity of another issuer than the one of the policy',
    'is by an identity of the issuer of the policy',
  ],
  'other-subject': [
    'is by another identity than the policy names',
    'is by an identity that the policy names',
  ],
  certificate: [
    'has a certificate that no authority of the policy vouches for, or that was not valid when it was used',
    'has a certificate that an authority of the policy vouches for and that was valid when it was used',
  ],
  time: ['has no time that the trusted root vouches for', 'has a time that the trusted root vouches for'],
  log: ['is not in a transparency log of the trusted root', 'is in a transparency log of the trusted root'],
  broken: ['does not fit what it signs', 'fits what it signs'],
  expired: ['has expired', 'is still in force'],
  cose: [
    'is in a COSE envelope, which is not supported: sign with JWS',
    'is in a JWS envelope, and COSE is not supported: sign with JWS',
  ],
  unsupported: [
    'demands something that is not supported here',
    'does without demands that are not supported here',
  ],
} as const satisfies Record<string, readonly [one: string, none: string]>;

export type Problem = keyof typeof PROBLEMS;

export function invalid(problem: Problem): Outcome {
  return { isValid: false, problem };
}

/** Says why the signatures of an image do not let it in. @param problems one of each signature; at least one */
export function explain(problems: readonly Problem[]): string {
  const kinds = [...new Set(problems)];
  const [first] = kinds;
  if (problems.length === 1 && first !== undefined) return `its signature ${PROBLEMS[first][0]}`;
  if (kinds.length === 1 && first !== undefined)
    return `none of its ${problems.length} signatures ${PROBLEMS[first][1]}`;
  const each = kinds.map((kind) => `one ${PROBLEMS[kind][0]}`);
  return `none of its ${problems.length} signatures counts: ${each.join('; ')}`;
}
