/**
 * What the registries people pull from are like where they differ: challenges as they send them (with the realm
 * replaced), the shape of their token, where their blobs are, how they say that something is missing.
 */
import { errorReply, type Reply, ScriptedUpstream, type SeenRequest } from './scripted-upstream.ts';
import type { TokenServerOptions } from './token-server.ts';

export interface Vendor {
  name: string;
  /** As in the configuration. */
  host: string;
  /** `WWW-Authenticate` of a 401; absent where nobody is asked who he is. */
  challenge?: (realm: string, scope: string) => string | undefined;
  /** What the token server's answer looks like, and whether it does OAuth2. */
  token?: Pick<TokenServerOptions, 'field' | 'answer' | 'postStatus'>;
  /** It gives tokens to anybody, for public images. */
  anonymous: boolean;
  /** Name and password themselves go to the registry. */
  basic?: true;
  /** The name that goes with a token or key there. */
  username: string;
  /** Blobs are on another host, which refuses Authorization; or on the same one, by a relative Location. */
  blobs: 'cdn' | 'relative' | 'inline';
  /** Where HEAD of a blob does not work. */
  headBlob?: number;
  /** What an image that is not there is answered with after a token was got. */
  missing: { status: number; code: string };
  /** The token server itself refuses what is not there. */
  tokenRefuses?: true;
  /** The scope of its challenge is this word, whatever the repository. */
  scope?: string;
}

const bearer = (service: string) => (realm: string, scope: string) =>
  `Bearer realm="${realm}",service="${service}",scope="${scope}"`;

/** facts: protocol C.1 to C.7, D.1. */
export const VENDORS: readonly Vendor[] = [
  {
    name: 'Docker Hub',
    host: 'docker.io',
    challenge: bearer('registry.docker.io'),
    token: {
      answer: { access_token: 'the same', expires_in: 300, issued_at: '2022-11-01T06:11:20.105931Z' },
    },
    anonymous: true,
    username: 'team',
    blobs: 'cdn',
    missing: { status: 401, code: 'UNAUTHORIZED' },
  },
  {
    name: 'GHCR',
    host: 'ghcr.io',
    challenge: bearer('ghcr.io'),
    token: { answer: {} },
    anonymous: true,
    username: 'anybody',
    blobs: 'cdn',
    missing: { status: 403, code: 'DENIED' },
    tokenRefuses: true,
  },
  {
    name: 'Quay',
    host: 'quay.io',
    challenge: bearer('quay.io'),
    token: { answer: {} },
    anonymous: true,
    username: 'org+robot',
    blobs: 'cdn',
    missing: { status: 401, code: 'UNAUTHORIZED' },
  },
  {
    name: 'gcr.io, whose 401 has no challenge',
    host: 'gcr.io',
    challenge: (realm, scope) => (scope === '' ? `Bearer realm="${realm}",service=gcr.io` : undefined),
    anonymous: true,
    username: '_json_key',
    blobs: 'relative',
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
  },
  {
    name: 'Artifact Registry, without service',
    host: 'europe-docker.pkg.dev',
    challenge: (realm) => `Bearer realm="${realm}"`,
    anonymous: true,
    username: 'oauth2accesstoken',
    blobs: 'relative',
    missing: { status: 403, code: 'DENIED' },
  },
  {
    name: 'Azure, with access_token only',
    host: 'contoso.azurecr.io',
    challenge: bearer('contoso.azurecr.io'),
    token: { field: 'access_token', answer: {}, postStatus: 400 },
    anonymous: false,
    username: 'service-principal',
    blobs: 'cdn',
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
  },
  {
    name: 'MCR, which asks nobody who he is',
    host: 'mcr.microsoft.com',
    anonymous: true,
    username: '',
    blobs: 'cdn',
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
  },
  {
    name: 'Amazon ECR, with Basic only',
    host: '1234.dkr.ecr.eu-west-2.amazonaws.com',
    challenge: () =>
      'Basic realm="https://1234.dkr.ecr.eu-west-2.amazonaws.com/",service="ecr.amazonaws.com"',
    anonymous: false,
    basic: true,
    username: 'AWS',
    blobs: 'cdn',
    missing: { status: 404, code: 'NAME_UNKNOWN' },
  },
  {
    name: 'ECR Public, with the scope aws and no HEAD of blobs',
    host: 'public.ecr.aws',
    challenge: (realm) => `Bearer realm="${realm}/",service="public.ecr.aws",scope="aws"`,
    anonymous: true,
    username: 'AWS',
    blobs: 'cdn',
    headBlob: 401,
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
    scope: 'aws',
  },
  {
    name: 'GitLab',
    host: 'registry.gitlab.com',
    challenge: bearer('container_registry'),
    anonymous: true,
    username: 'deploy-token',
    blobs: 'cdn',
    missing: { status: 404, code: 'NAME_UNKNOWN' },
  },
  {
    name: 'JFrog, which answers a POST for a token with 401',
    host: 'corp.jfrog.io',
    challenge: bearer('corp.jfrog.io'),
    token: { postStatus: 401 },
    anonymous: false,
    username: 'ci',
    blobs: 'inline',
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
  },
  {
    name: 'Harbor',
    host: 'harbor.corp.example',
    challenge: bearer('harbor-registry'),
    anonymous: true,
    username: 'robot$ci',
    blobs: 'inline',
    missing: { status: 404, code: 'NOT_FOUND' },
  },
  {
    name: 'NVIDIA, without service',
    host: 'nvcr.io',
    challenge: (realm, scope) => `Bearer realm="${realm}",scope="${scope}"`,
    anonymous: true,
    username: '$oauthtoken',
    blobs: 'cdn',
    missing: { status: 404, code: 'MANIFEST_UNKNOWN' },
  },
];

/** Starts a registry that behaves so; with `credentials` its images are private. */
export async function startVendor(
  t: Parameters<typeof ScriptedUpstream.start>[0],
  vendor: Vendor,
  credentials?: { username: string; password: string },
): Promise<ScriptedUpstream> {
  const wantsToken = vendor.challenge !== undefined && vendor.basic === undefined;
  const upstream = await ScriptedUpstream.start(t, {
    cdn: vendor.blobs === 'cdn',
    ...(wantsToken
      ? {
          auth: {
            ...vendor.token,
            ...(credentials === undefined ? {} : { credentials }),
            ...(vendor.scope === undefined ? {} : { scope: vendor.scope }),
          },
        }
      : {}),
  });
  upstream.script({}, (reply, seen) => behave(vendor, upstream, reply, seen, credentials));
  return upstream;
}

function behave(
  vendor: Vendor,
  upstream: ScriptedUpstream,
  reply: Reply,
  seen: SeenRequest,
  credentials: { username: string; password: string } | undefined,
): void {
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(seen.path)?.[1];
  if (vendor.basic && seen.kind !== 'cdn') {
    const expected = credentials && `${credentials.username}:${credentials.password}`;
    const sent = seen.headers.authorization?.replace(/^Basic /, '') ?? '';
    if (expected === undefined || Buffer.from(sent, 'base64').toString() !== expected) {
      Object.assign(reply, errorReply(401, 'UNAUTHORIZED'));
    }
  }
  if (vendor.headBlob !== undefined && seen.kind === 'blob' && seen.method === 'HEAD') {
    Object.assign(reply, errorReply(vendor.headBlob, 'UNAUTHORIZED'));
  }
  if (reply.status === 401) {
    const scope = repository === undefined ? '' : `repository:${repository}:pull`;
    reply.headers['www-authenticate'] = vendor.challenge?.(upstream.tokens?.realm ?? '', scope);
  }
  if (reply.status === 404 && seen.kind === 'manifest') {
    Object.assign(reply, errorReply(vendor.missing.status, vendor.missing.code));
    if (vendor.missing.status === 401) {
      reply.headers['www-authenticate'] =
        `${vendor.challenge?.(upstream.tokens?.realm ?? '', `repository:${repository}:pull`)},error="insufficient_scope"`;
    }
  }
  if (vendor.blobs === 'relative' && seen.kind === 'blob' && seen.method === 'GET' && reply.status === 200) {
    if (seen.query.has('downloads')) return;
    reply.status = 302;
    reply.headers = { location: `${seen.path}?downloads=1`, 'content-length': '0' };
    reply.body = undefined;
  }
}
