import { nodeFileSystem } from '../../src/cache/store/file-system.ts';
import { FsStore } from '../../src/cache/store/fs-store.ts';
import { MemoryStore } from '../helpers/memory-store.ts';
import { contentStoreSuite } from './content-store.suite.ts';

contentStoreSuite('FsStore', (directory) => new FsStore(directory, nodeFileSystem));
contentStoreSuite('MemoryStore', () => new MemoryStore());
