/** What a scanner may find in an image. */
import { listenAddress, registryUrl } from '../fields/addresses.ts';
import { endOfDay } from '../fields/days.ts';
import { path } from '../fields/paths.ts';
import { count, flag, list, oneOf, section, text } from '../fields/plain.ts';
import { sizeLimit, sizeOrNone, timeout } from '../fields/quantities.ts';

const fallback = () => oneOf(['allow', 'deny']);

export const scanSchema = section({
  trivy: text('the path or name of the program trivy')
    .optional()
    .describe('The program trivy: its path, or its name on PATH.'),
  trivyServer: registryUrl().optional().describe('A server of Trivy, which the program asks.'),
  adapter: registryUrl()
    .optional()
    .describe("Instead of trivy: a scanner that speaks Harbor's pluggable scanner API, without /api/v1."),
  failOn: oneOf(['low', 'medium', 'high', 'critical']).describe(
    'This severity, and everything above it, is refused.',
  ),
  ignoreUnfixed: flag().prefault(false).describe('Whether a vulnerability without a fix counts for nothing.'),
  secrets: flag().prefault(false).describe('Whether secrets in the image count, too.'),
  misconfigurations: flag().prefault(false).describe('Whether misconfigurations count, too.'),
  except: list(
    section({
      id: text('the name of a finding, such as CVE-2026-1234').describe('Name of the finding.'),
      until: endOfDay().describe('The last day on which it counts for nothing, in UTC.'),
    }),
  )
    .prefault([])
    .describe('Findings that count for nothing.'),
  ifUnavailable: fallback()
    .prefault('deny')
    .describe('What happens while there is no scanner; holds 5 minutes at most.'),
  ifFailed: fallback().prefault('deny').describe('What happens to an image that the scanner fails on.'),
  ifNothingFound: fallback()
    .prefault('allow')
    .describe('What happens to an image in which the scanner recognises nothing.'),
  timeout: timeout().prefault('10m').describe('How long the scanner may take, from when it has the bytes.'),
  rescan: timeout().prefault('24h').describe('How long a result holds.'),
  onNewFinding: oneOf(['deny', 'report'])
    .prefault('deny')
    .describe('What happens to an image that was clean: deny, or let it in, count and log it.'),
  environment: list(text('the name of a variable, such as TRIVY_DB_REPOSITORY', /^[A-Za-z_][A-Za-z0-9_]*$/))
    .prefault([])
    .describe('Variables of the mirror that the scanner gets. It gets no others but PATH.'),
  maxSize: sizeOrNone()
    .prefault('4GiB')
    .describe("What the scanner's database and temporary files may take."),
  concurrency: count().prefault(2).describe('Scans at a time.'),
  memory: sizeLimit('2GiB')
    .prefault('none')
    .describe('How much memory a scan may take; none, or a size. Needs the program prlimit.'),
  listen: listenAddress()
    .prefault('127.0.0.1:0')
    .describe('Where the scanner pulls from. Port 0 is any free one.'),
  url: registryUrl().optional().describe('How an adapter on another machine reaches it.'),
  tls: section({
    certificate: path().describe('PEM, the whole chain.'),
    key: path().describe('PEM.'),
  })
    .optional()
    .describe('Needed unless it listens on loopback.'),
});
