/** What may come in. Without policies everything may that access control allows. */
import { endOfDay } from '../fields/days.ts';
import { path } from '../fields/paths.ts';
import { list, oneOf, oneOrMore, section, text } from '../fields/plain.ts';
import { duration } from '../fields/quantities.ts';
import { scanSchema } from './scan.ts';

const pattern = () => text('a registry and a repository, such as docker.io/library/*');

const policySchema = section({
  name: text('a name of letters, digits, - and _, such as known-bad', /^[A-Za-z0-9_-]{1,64}$/).describe(
    'Name of this policy in replies, log and metrics.',
  ),
  match: list(pattern())
    .prefault(['*'])
    .describe('Repositories that it is about, such as docker.io/library/*.'),
  who: oneOrMore(text('anonymous, *, user:NAME, token:NAME, oidc:NAME or certificate:DNS:NAME'))
    .optional()
    .describe('Whose requests it is about, one or a list, as in access.rules; default: everybody.'),
  mode: oneOf(['enforce', 'audit'])
    .prefault('enforce')
    .describe('enforce: refuses. audit: decides, counts and logs, and lets everything pass.'),
  deny: section({
    digests: list(path())
      .prefault([])
      .describe('Files of denied digests, one a line: of indexes, manifests, configs or layers.'),
    repositories: list(pattern()).prefault([]).describe('Denied repositories, such as docker.io/evil/*.'),
  })
    .optional()
    .describe('What is refused, whatever is cached. Whatever lists a denied digest is denied, too.'),
  minimumAge: duration()
    .optional()
    .describe(
      'How long ago a manifest must have been first seen here; a tag means the newest that is so old.',
    ),
  signature: section({
    cosign: section({
      keys: list(path()).describe('PEM files of public keys; a signature by one of them is enough.'),
      transparencyLog: section({ trustedRoot: path().describe('A Sigstore trusted_root.json.') })
        .optional()
        .describe('The log that must have the signature. Left out: no log is asked for.'),
    })
      .optional()
      .describe('Signed by cosign with a key.'),
    keyless: section({
      issuer: text('the URL of the issuer, such as https://token.actions.githubusercontent.com').describe(
        'The OIDC issuer that has proved the identity, character for character.',
      ),
      subject: text('an identity, such as https://github.com/acme/*').describe(
        'The identity, whole; * stands for any text.',
      ),
      trustedRoot: path().describe('A Sigstore trusted_root.json. No network is needed.'),
    })
      .optional()
      .describe('Signed by cosign with an identity.'),
    notation: section({
      trustStore: list(path()).describe('PEM files of certificate authorities.'),
      identities: list(text('an identity, such as x509.subject: C=US, ST=WA, O=acme')).describe(
        'Who may sign, whole, such as x509.subject: C=US, ST=WA, O=acme.',
      ),
    })
      .optional()
      .describe('Signed by Notation.'),
  })
    .optional()
    .describe('Which signature it must have; one of those that are named is enough. {} in audit: any.'),
  scan: scanSchema.optional().describe('What a scanner may find in it.'),
  foreignLayers: oneOf(['deny', 'allow'])
    .prefault('deny')
    .describe(
      'Whether an image may have layers that clients fetch from elsewhere, as base images of Windows have.',
    ),
  except: list(
    section({
      image: text('a repository, a digest, or both, such as docker.io/library/* or sha256:…').describe(
        'A pattern of repositories, a digest, or both with @ between them.',
      ),
      reason: text('why it is let in').describe('Why; for those who read this later.'),
      until: endOfDay().describe('The last day on which it holds, in UTC.'),
    }),
  )
    .prefault([])
    .describe('Images that it is not about.'),
});

export const policiesSchema = list(policySchema)
  .prefault([])
  .describe('What may come in. An image must be let in by every policy that matches it.');
