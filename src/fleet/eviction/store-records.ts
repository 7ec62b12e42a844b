/**
 * The records in the object store, as eviction needs them: what each manifest lists, and which records are about it.
 *
 * Each version of a record is read once by a node. Only records that the fleet has signed say anything.
 */
import type { Digest } from '../../oci/digest.ts';
import type { Metrics } from '../../telemetry/metrics.ts';
import { parseRecordName, RECORDS_PREFIX } from '../objects/names.ts';
import type { FleetSecret } from '../records/fleet-secret.ts';
import { manifestRecord, RECORD_MAX_BYTES, readRecord, tagRecord } from '../records/signed-record.ts';
import type { BackgroundStore } from './background-store.ts';
import { keyOf } from './lists.ts';

export interface StoreRecordsContext {
  store: BackgroundStore;
  secret: FleetSecret;
  metrics: Metrics;
}

interface RecordName {
  name: string;
  etag: string;
}

export interface FoundRecords {
  /** By manifest. */
  lists: Map<Digest, Float64Array>;
  /** Those that say that a repository may serve a manifest. */
  manifests: Map<Digest, RecordName[]>;
  /** Those of the tags that mean a manifest. */
  tags: Map<Digest, RecordName[]>;
}

/** What a record says. `about` undefined: nobody of this fleet has written it. */
interface Read {
  etag: string;
  about: Digest | undefined;
  lists?: Float64Array;
}

const AT_A_TIME = 16;

export class StoreRecords {
  readonly #context: StoreRecordsContext;
  #read = new Map<string, Read>();

  constructor(context: StoreRecordsContext) {
    this.#context = context;
  }

  /** @throws {EngineError} one of them cannot be read now */
  async find(signal: AbortSignal): Promise<FoundRecords> {
    const found: FoundRecords = { lists: new Map(), manifests: new Map(), tags: new Map() };
    const listed = new Map<string, Read>();
    for await (const page of this.#context.store.list(RECORDS_PREFIX, signal)) {
      const left = page.values();
      const lane = async () => {
        for (const { name, etag } of left) {
          const named = parseRecordName(name);
          if (named === undefined) continue;
          const known = this.#read.get(name);
          const read = known?.etag === etag ? known : await this.#readOne(name, etag, signal);
          this.#read.set(name, read); // also for the next look, if this one fails
          listed.set(name, read);
          const about = named.kind === 'manifest' ? named.digest : read.about;
          if (about === undefined) continue;
          add(named.kind === 'manifest' ? found.manifests : found.tags, about, { name, etag });
          if (read.lists !== undefined) found.lists.set(about, read.lists);
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, lane));
    }
    this.#read = listed;
    return found;
  }

  async #readOne(name: string, etag: string, signal: AbortSignal): Promise<Read> {
    const { store, secret, metrics } = this.#context;
    const bytes = await store.read(name, RECORD_MAX_BYTES, signal);
    const nothing = { etag, about: undefined };
    if (bytes === undefined) return nothing;
    const text = bytes.toString('utf8');
    const named = parseRecordName(name);
    if (named?.kind === 'manifest') {
      const manifest = await readRecord(secret, name, text, manifestRecord);
      if (manifest !== undefined)
        return {
          etag,
          about: named.digest,
          lists: Float64Array.from(manifest.lists, ([digest]) => keyOf(digest)),
        };
    } else {
      const tag = await readRecord(secret, name, text, tagRecord);
      if (tag !== undefined) return { etag, about: tag.digest };
    }
    metrics.fleetRecordsRefused.inc({ engine: 'objects' });
    return nothing;
  }
}

function add(map: Map<Digest, RecordName[]>, digest: Digest, record: RecordName): void {
  const known = map.get(digest);
  if (known === undefined) map.set(digest, [record]);
  else known.push(record);
}
