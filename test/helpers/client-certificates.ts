/** A public key infrastructure for clients, made by openssl while a test runs. */
import { execFile } from 'node:child_process';
import { appendFile, copyFile, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import type { Certificate } from './certificates.ts';
import { tempDir } from './temp-dir.ts';

const run = promisify(execFile);

export interface IssueOptions {
  /** As `openssl -subj` takes it: `/CN=build-1`; a slash inside a name is `\/`. */
  subject: string;
  /** Lines of an extension section; default: the purpose clientAuth. */
  extensions?: string[];
  /** Default: a minute ago. */
  from?: Date;
  /** Default: in a day. */
  until?: Date;
}

const DAY = 24 * 60 * 60 * 1000;
const CLIENT = ['extendedKeyUsage = clientAuth'];
const AUTHORITY = [
  'basicConstraints = critical, CA:TRUE',
  'keyUsage = critical, keyCertSign, cRLSign',
  'subjectKeyIdentifier = hash',
];
const CONFIG = [
  '[ca]',
  'default_ca = this',
  '[this]',
  'database = index.txt',
  'crlnumber = crlnumber',
  'new_certs_dir = .',
  'rand_serial = yes',
  'unique_subject = no',
  'default_md = sha256',
  'policy = any',
  '[any]',
  'commonName = optional',
];

export class TestAuthority implements Certificate {
  readonly cert: string;
  readonly key: string;
  /** Holds the records that `openssl ca` keeps. */
  readonly #folder: string;

  private constructor(folder: string, { cert, key }: Certificate) {
    this.#folder = folder;
    this.cert = cert;
    this.key = key;
  }

  static async root(
    t: TestContext,
    name: string,
    options: Partial<IssueOptions> = {},
  ): Promise<TestAuthority> {
    const folder = await authorityFolder(t);
    return new TestAuthority(
      folder,
      await issue(folder, folder, ['-selfsign'], {
        subject: `/CN=${name}`,
        extensions: AUTHORITY,
        ...options,
      }),
    );
  }

  /** An authority below this one. */
  async intermediate(
    t: TestContext,
    name: string,
    options: Partial<IssueOptions> = {},
  ): Promise<TestAuthority> {
    const folder = await authorityFolder(t);
    return new TestAuthority(
      folder,
      await issue(this.#folder, folder, ['-cert', 'cert.pem'], {
        subject: `/CN=${name}`,
        extensions: AUTHORITY,
        ...options,
      }),
    );
  }

  /** The certificate of a client. */
  async issue(t: TestContext, options: IssueOptions): Promise<Certificate> {
    return await issue(this.#folder, await tempDir(t), ['-cert', 'cert.pem'], options);
  }

  /** A certificate of another authority by this one, in PEM. */
  async certify(t: TestContext, other: TestAuthority): Promise<string> {
    const folder = await tempDir(t);
    await copyFile(join(other.#folder, 'request.pem'), join(folder, 'request.pem'));
    return await sign(this.#folder, folder, ['-cert', 'cert.pem'], { extensions: AUTHORITY });
  }

  async revoke({ cert }: Certificate): Promise<void> {
    await writeFile(join(this.#folder, 'revoked.pem'), cert);
    await openssl(this.#folder, [...SIGN, '-cert', 'cert.pem', '-revoke', 'revoked.pem']);
  }

  /** Revokes `count` certificates that were never issued. */
  async revokeMany(count: number): Promise<void> {
    const line = (index: number) => {
      const serial = (0x100000 + index).toString(16).toUpperCase();
      return `R\t300101000000Z\t250101000000Z\t${serial}\tunknown\t/CN=${index}\n`;
    };
    await appendFile(
      join(this.#folder, 'index.txt'),
      Array.from({ length: count }, (_, i) => line(i)).join(''),
    );
  }

  /**
   * Its revocation list, in PEM.
   *
   * @param extensions lines of an extension section
   */
  async revocationList(hours = 24, extensions: string[] = []): Promise<string> {
    await writeFile(join(this.#folder, 'ca.cnf'), [...CONFIG, '[list]', ...extensions, ''].join('\n'));
    const list = ['-gencrl', '-crlhours', String(hours), '-crlexts', 'list', '-out', 'list.pem'];
    await openssl(this.#folder, [...SIGN, '-cert', 'cert.pem', ...list]);
    return await readFile(join(this.#folder, 'list.pem'), 'utf8');
  }
}

const SIGN = ['ca', '-batch', '-notext', '-preserveDN', '-config', 'ca.cnf', '-keyfile', 'key.pem'];

async function authorityFolder(t: TestContext): Promise<string> {
  const folder = await tempDir(t);
  await writeFile(join(folder, 'index.txt'), '');
  await writeFile(join(folder, 'crlnumber'), '01\n');
  await writeFile(join(folder, 'ca.cnf'), [...CONFIG, ''].join('\n'));
  return folder;
}

/** Makes a key and a certificate in `folder`, signed by the authority in the folder `by`. */
async function issue(
  by: string,
  folder: string,
  signer: string[],
  { subject, ...options }: IssueOptions,
): Promise<Certificate> {
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'key.pem'];
  await openssl(folder, ['req', '-new', ...key, '-utf8', '-subj', subject, '-out', 'request.pem']);
  const cert = await sign(by, folder, signer, options);
  return { cert, key: await readFile(join(folder, 'key.pem'), 'utf8') };
}

async function sign(
  by: string,
  folder: string,
  signer: string[],
  { extensions = CLIENT, from, until }: Omit<IssueOptions, 'subject'>,
): Promise<string> {
  await writeFile(join(folder, 'issue.ext'), ['[issue]', ...extensions, ''].join('\n'));
  await openssl(by, [
    ...SIGN,
    ...signer,
    ...['-in', join(folder, 'request.pem'), '-out', join(folder, 'cert.pem')],
    ...['-extfile', join(folder, 'issue.ext'), '-extensions', 'issue'],
    ...['-startdate', asn1Time(from ?? new Date(Date.now() - 60_000))],
    ...['-enddate', asn1Time(until ?? new Date(Date.now() + DAY))],
  ]);
  return await readFile(join(folder, 'cert.pem'), 'utf8');
}

async function openssl(folder: string, args: string[]): Promise<void> {
  await run('openssl', args, { cwd: folder });
}

function asn1Time(date: Date): string {
  return `${date.toISOString().replace(/\D/g, '').slice(0, 14)}Z`;
}
