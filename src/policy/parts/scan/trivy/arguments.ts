/** The command lines of Trivy 0.65 and later. */
import type { ScanSettings } from '../scanner/settings.ts';

type ArgumentSettings = Pick<ScanSettings, 'trivyServer' | 'secrets' | 'misconfigurations'>;

export interface ScanArguments {
  settings: ArgumentSettings;
  cache: string;
  /** Milliseconds, after which the child ends by itself: nobody else ends it if the mirror has died. */
  timeout: number;
  sealed: boolean;
  /** `host:port/repository@sha256:…` */
  reference: string;
}

/**
 * A scan fetches nothing but the image: databases.ts fetches its databases. Without `--skip-check-update` it would fetch checks of configurations;
 * so it takes those that it was built with. `--offline-scan` also keeps it from asking Maven Central about a jar.
 *
 * Severities and fixes are judged by us, so that the whole report comes here. Results are kept in memory, as runs at the
 * same time would lock each other out of a cache on the disk.
 */
export function scanArguments({ settings, cache, timeout, sealed, reference }: ScanArguments): string[] {
  const { trivyServer, secrets, misconfigurations } = settings;
  const more = [...(secrets ? ['secret'] : []), ...(misconfigurations ? ['misconfig'] : [])];
  return [
    ...['image', '--format', 'json', '--no-progress', '--image-src', 'remote', '--cache-dir', cache],
    ...['--scanners', ['vuln', ...more].join(',')],
    // What is written into the image's config, too: a password in ENV, for example.
    ...(more.length === 0 ? [] : ['--image-config-scanners', more.join(',')]),
    ...['--timeout', `${timeout}ms`, '--skip-db-update', '--skip-java-db-update', '--skip-check-update'],
    ...['--skip-version-check', '--disable-telemetry'],
    ...(sealed ? ['--offline-scan'] : []),
    ...(trivyServer === undefined ? ['--cache-backend', 'memory'] : ['--server', trivyServer]),
    ...['--', reference],
  ];
}

/** What fetches Trivy's databases, if they are older than Trivy thinks right. */
export function updateArguments(which: 'vulnerabilities' | 'java', cache: string): string[] {
  const only = which === 'java' ? '--download-java-db-only' : '--download-db-only';
  return [
    'image',
    only,
    '--no-progress',
    '--cache-dir',
    cache,
    '--skip-version-check',
    '--disable-telemetry',
  ];
}

/** Prints the version and which databases there are. */
export function versionArguments(cache: string): string[] {
  return ['version', '--format', 'json', '--cache-dir', cache];
}
