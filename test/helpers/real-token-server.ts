/** A token server that Debian's docker-registry trusts: signs JWTs for the scopes that were asked for. */
import { createSign, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { cleanUp } from './cleanup.ts';
import { run } from './real-processes.ts';
import { tempDir } from './temp-dir.ts';

const SERVICE = 'registry.test';
const ISSUER = 'millpond test';
const LIFETIME_SECONDS = 300;

export interface RealTokenServer {
  /** The `auth` section of docker-registry's configuration. */
  auth: Record<string, unknown>;
  /** User names that asked, in order; '' for nobody. */
  users: string[];
}

/** @param credentials the only ones that get a token */
export async function startRealTokenServer(
  t: TestContext,
  credentials: { username: string; password: string },
): Promise<RealTokenServer> {
  const directory = await tempDir(t);
  const [key, certificate] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  const subject = ['-subj', '/CN=millpond-test', '-days', '2'];
  await run('openssl', [
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-keyout',
    key,
    '-out',
    certificate,
    ...subject,
  ]);
  const privateKey = await readFile(key, 'utf8');
  const x5c = [(await readFile(certificate, 'utf8')).replace(/-----[^-]+-----|\s/g, '')];
  const users: string[] = [];

  const server = createServer((request, response) => {
    const { searchParams } = new URL(request.url ?? '/', 'http://tokens');
    const [username = '', password] = basicCredentials(request.headers.authorization);
    users.push(username);
    if (username !== credentials.username || password !== credentials.password) {
      response.writeHead(401).end('{"errors":[{"code":"UNAUTHORIZED"}]}');
      return;
    }
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: ISSUER,
      sub: username,
      aud: SERVICE,
      exp: now + LIFETIME_SECONDS,
      nbf: now - 5,
      iat: now,
      jti: randomUUID(),
      access: searchParams.getAll('scope').map(parseScope),
    };
    const token = sign({ typ: 'JWT', alg: 'RS256', x5c }, claims, privateKey);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ token, expires_in: LIFETIME_SECONDS }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  cleanUp(t, () => {
    server.closeAllConnections();
    server.close();
  });
  const realm = `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
  return { users, auth: { token: { realm, service: SERVICE, issuer: ISSUER, rootcertbundle: certificate } } };
}

function basicCredentials(authorization: string | undefined): string[] {
  const encoded = authorization?.replace(/^Basic /, '') ?? '';
  return Buffer.from(encoded, 'base64').toString().split(':');
}

function parseScope(scope: string): { type: string; name: string; actions: string[] } {
  const [type = '', name = '', actions = ''] = scope.split(':');
  return { type, name, actions: actions.split(',') };
}

function sign(header: object, claims: object, privateKey: string): string {
  const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${encode(header)}.${encode(claims)}`;
  return `${text}.${createSign('RSA-SHA256').update(text).sign(privateKey, 'base64url')}`;
}
