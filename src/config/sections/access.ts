/** Who may do what. Without this section everybody may pull everything. */
import * as z from 'zod';
import { network } from '../fields/addresses.ts';
import { wrongType } from '../fields/codec.ts';
import { path } from '../fields/paths.ts';
import { flag, list, oneOf, oneOrMore, section, text } from '../fields/plain.ts';
import { duration, durationBetween } from '../fields/quantities.ts';

const ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const;

const issuerSchema = section({
  name: text('a name of letters, digits, - and _, such as github', /^[A-Za-z0-9_-]+$/).describe(
    'Name of this issuer in rules, as in oidc:github.',
  ),
  issuer: text('the URL of an issuer, exactly as in the claim iss').describe(
    'Its URL, character for character as in the claim iss of its tokens.',
  ),
  audience: text('the audience of its tokens, such as millpond').describe(
    'What the claim aud of its tokens must be, or contain.',
  ),
  algorithms: list(oneOf(ALGORITHMS))
    .prefault(['RS256', 'ES256'])
    .describe('Algorithms that its tokens may be signed with.'),
  jwksUrl: text('an https:// URL')
    .optional()
    .describe('URL of its keys; default: what its discovery document says.'),
  jwks: path().optional().describe('File with its keys; then the issuer is never asked.'),
  ca: path()
    .optional()
    .describe(
      'PEM bundle of certificate authorities to trust in addition to the usual ones, for this issuer.',
    ),
  token: section({ file: path().describe('File with the token; read each time.') })
    .optional()
    .describe('Bearer token to send to the issuer, as Kubernetes wants it.'),
  insecure: flag().prefault(false).describe('Whether the issuer may be asked by http:// on another machine.'),
  everyone: flag()
    .prefault(false)
    .describe('Whether rules may let in everybody who has a token of this issuer.'),
  staleKeys: duration().prefault('24h').describe('How long its last keys hold while it cannot be reached.'),
  session: durationBetween('2m', '12h')
    .prefault('1h')
    .describe('How long a login with one of its tokens lasts, from 2m to 12h.'),
});

const claimValue = z.union([z.string(), z.number(), z.boolean()], {
  error: wrongType('a text, a number, true or false'),
});

const patterns = () => oneOrMore(text('a registry and a repository, such as docker.io/library/*'));

const scope = () =>
  z.union([z.literal(true), patterns()], {
    error: wrongType('true, or patterns such as docker.io/library/*'),
  });

const ruleSchema = section({
  who: oneOrMore(text('anonymous, *, user:NAME, token:NAME, oidc:NAME or certificate:DNS:NAME')).describe(
    'Whom the rule allows something; one or a list: anonymous, * (everybody with an identity), user:NAME, token:NAME, oidc:NAME, certificate:CN=… (DNS:… URI:… EMAIL:…).',
  ),
  network: oneOrMore(network()).optional().describe('Networks that the client must be in.'),
  claims: z
    .record(z.string(), oneOrMore(claimValue), { error: wrongType('a map of claims and their values') })
    .optional()
    .describe('Claims that the token must have; of a list of values one is enough; * matches any text.'),
  pull: patterns().optional().describe('Repositories that may be pulled, such as docker.io/library/*.'),
  fetch: flag().optional().describe('false: only what is cached already may be pulled. Default: true.'),
  operate: scope()
    .optional()
    .describe(
      'true: everything of the operations side that changes something; or the images that it may change.',
    ),
  observe: scope()
    .optional()
    .describe(
      'true: everything of the operations side that shows something; or the images that it may show.',
    ),
});

export const accessSchema = section({
  users: section({
    htpasswd: path().describe('File of users, written by htpasswd -B; read again when it changes.'),
  })
    .optional()
    .describe('Users with passwords.'),
  tokens: path()
    .optional()
    .describe('File of robot tokens, written by millpond token; read again when it changes.'),
  oidc: list(issuerSchema)
    .prefault([])
    .describe('Issuers whose JWTs let in CI jobs and workloads of clusters.'),
  rules: list(ruleSchema).prefault([]).describe('What is allowed. What no rule allows is refused.'),
  noChallenge: list(network())
    .prefault([])
    .describe(
      "Networks of Docker daemons and kubelets that use this mirror for another registry: never asked to log in, because they would send that registry's password.",
    ),
  signingKey: section({ file: path().describe('PEM or JWK file of a P-256 or Ed25519 private key.') })
    .optional()
    .describe(
      'Key that signs the tokens of this mirror, for several mirrors behind one name; default: one in the cache directory.',
    ),
  insecure: flag()
    .prefault(false)
    .describe(
      'Whether passwords and tokens are taken without TLS, too. Anyone on the way can read them then.',
    ),
})
  .optional()
  .describe('Who may do what; left out: everybody may pull everything.');
