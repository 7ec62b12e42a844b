/** Makes the scanner that a policy's settings name. */
import { AdapterScanner } from './adapter/adapter-scanner.ts';
import type { Scanner } from './scanner/scanner.ts';
import type { ScanSettings } from './scanner/settings.ts';
import { type TrivyContext, TrivyScanner } from './trivy/trivy-scanner.ts';

/**
 * Opens a scanner. It is for one policy, and is kept across reloads that do not change its settings.
 *
 * @throws {Error} the settings ask for what the scanner cannot do, or its directory cannot be made
 */
export async function openScanner(settings: ScanSettings, context: TrivyContext): Promise<Scanner> {
  const { adapter, timeout, concurrency } = settings;
  if (adapter === undefined) return TrivyScanner.open(settings, context);
  // The API has neither, so they would silently never fail.
  if (settings.secrets || settings.misconfigurations)
    throw new Error(
      'a scanner by adapter reports no secrets and misconfigurations: use trivy, or leave them out',
    );
  if (settings.ifNothingFound === 'deny')
    throw new Error(
      'a scanner by adapter does not say what it recognised: use trivy, or leave out ifNothingFound',
    );
  return new AdapterScanner({ adapter, timeout, concurrency }, context);
}
