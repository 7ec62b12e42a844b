/** What an operator should change in how a bucket is set up. */
import type { Logger } from '../../telemetry/log.ts';
import type { Engine } from '../engines/engine.ts';
import { EngineError } from '../engines/errors.ts';
import type { ObjectStore } from './object-store.ts';

const ANSWER_MS = 5_000;

/** Never rejects. */
export async function warnIfVersioned(objects: ObjectStore, engine: Engine, logger: Logger): Promise<void> {
  try {
    if (await engine.ask('versioning', ANSWER_MS, (signal) => objects.isVersioned(signal)))
      logger.warn(
        {},
        'the bucket keeps old versions, so that what is replaced or deleted still takes space: turn versioning off, or let a lifecycle rule expire noncurrent versions',
      );
  } catch (error) {
    if (!(error instanceof EngineError)) throw error; // it need not say
  }
}
