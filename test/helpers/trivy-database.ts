/** Makes databases for the real Trivy. */
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { engine } from './engines.ts';

export interface Advisory {
  Distribution: string;
  Package: string;
  ID: string;
  Fixed: string;
  Severity: string;
}

/** About the package of test/helpers/alpine-images.ts. */
export const ADVISORY: Advisory = {
  Distribution: 'alpine 3.20',
  Package: 'openssl',
  ID: 'CVE-2024-9999',
  Fixed: '3.3.1-r0',
  Severity: 'CRITICAL',
};

/** Makes the database in a cache of Trivy's anew. */
export async function makeDatabase(cache: string, ...advisories: Advisory[]): Promise<void> {
  await mkdir(cache, { recursive: true });
  await new Promise<void>((resolve, reject) => {
    const made = execFile(engine('trivy', 'make-trivy-db'), [cache], (error) =>
      error === null ? resolve() : reject(error),
    );
    made.stdin?.end(JSON.stringify(advisories));
  });
}
