/** What may come in. Without policies everything may that access control allows. */
import { endOfDay } from '../fields/days.ts';
import { path } from '../fields/paths.ts';
import { list, oneOf, section, text } from '../fields/plain.ts';
import { duration } from '../fields/quantities.ts';

const pattern = () => text('a registry and a repository, such as docker.io/library/*');

const policySchema = section({
  name: text('a name of letters, digits, - and _, such as known-bad', /^[A-Za-z0-9_-]{1,64}$/).describe(
    'Name of this policy in replies, log and metrics.',
  ),
  match: list(pattern())
    .prefault(['*'])
    .describe('Repositories that it is about, such as docker.io/library/*.'),
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
