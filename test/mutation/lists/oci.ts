import type { Mutation } from '../mutation.ts';

const IMAGE_NAMES = ['test/unit/oci/image-name.test.ts'];
const MANIFESTS = ['test/unit/oci/manifest.test.ts'];
const PLATFORMS = ['test/unit/oci/platform.test.ts'];
const GRAMMARS = ['test/unit/oci/digest.test.ts', 'test/unit/oci/reference.test.ts'];

export const oci: readonly Mutation[] = [
  {
    file: 'src/oci/digest.ts',
    replace: 'hex.length === HEX_LENGTH[algorithm] ? (text as Digest) : undefined',
    by: '(text as Digest)',
    promise: 'a digest of the wrong length is refused',
    tests: GRAMMARS,
  },
  {
    file: 'src/oci/digest.ts',
    replace: '([a-f0-9]+)$/',
    by: '([a-fA-F0-9]+)$/',
    promise: 'a digest in upper case does not become a second cache entry',
    tests: GRAMMARS,
  },
  {
    file: 'src/oci/reference.ts',
    replace: 'text.length <= REPOSITORY_MAX_LENGTH && ',
    by: '',
    promise: 'a repository name has at most 255 characters',
    tests: GRAMMARS,
  },
  {
    file: 'src/oci/reference.ts',
    replace: '{0,127}$/',
    by: '*$/',
    promise: 'a tag has at most 128 characters',
    tests: GRAMMARS,
  },
  {
    file: 'src/oci/image-name.ts',
    replace: 'first === OLD_DOCKER_HUB ? DOCKER_HUB : first',
    by: 'first',
    promise: 'index.docker.io is docker.io',
    tests: IMAGE_NAMES,
  },
  {
    file: 'src/oci/image-name.ts',
    replace: "host === DOCKER_HUB && !path.includes('/')",
    by: "!path.includes('/')",
    promise: 'library/ is put before a name of Docker Hub only',
    tests: IMAGE_NAMES,
  },
  {
    file: 'src/oci/image-name.ts',
    replace: 'if (colon >= 0 && tag === undefined) return undefined;',
    by: '',
    promise: 'an image name with a wrong tag is refused',
    tests: IMAGE_NAMES,
  },
  {
    file: 'src/oci/image-name.ts',
    replace: 'rest.length > 0 || ',
    by: '',
    promise: 'an image name has one digest',
    tests: IMAGE_NAMES,
  },
  {
    file: 'src/oci/image-name.ts',
    replace: 'host.length > HOST_MAX_LENGTH || ',
    by: '',
    promise: 'a host name that DNS cannot hold is refused',
    tests: IMAGE_NAMES,
  },
  {
    file: 'src/oci/manifest.ts',
    replace: 'MANIFEST_TYPES.includes(type)).toSorted()',
    by: 'MANIFEST_TYPES.includes(type))',
    promise: 'the order of Accept does not make two cache entries',
    tests: MANIFESTS,
  },
  {
    file: 'src/oci/manifest.ts',
    replace: "type === '*/*' || ",
    by: '',
    promise: 'a client with Accept: */* takes every manifest type',
    tests: MANIFESTS,
  },
  {
    file: 'src/oci/manifest.ts',
    replace: '> MAX_DESCRIPTORS) return undefined',
    by: '> Infinity) return undefined',
    promise: 'a manifest that lists 70 000 blobs is not recorded',
    tests: [...MANIFESTS, 'test/fault/hostile-upstream.test.ts'],
  },
  {
    file: 'src/oci/manifest.ts',
    replace: 'digest === undefined || !Number.isSafeInteger(size)',
    by: '!Number.isSafeInteger(size)',
    promise: 'a descriptor with a digest that cannot be verified is left out',
    tests: MANIFESTS,
  },
  {
    file: 'src/oci/manifest.ts',
    replace: '|| (size as number) < 0) return []',
    by: ') return []',
    promise: 'a descriptor with a negative size is left out',
    tests: MANIFESTS,
  },
  {
    file: 'src/oci/manifest.ts',
    replace: " || os === 'unknown') return undefined",
    by: ') return undefined',
    promise: 'an attestation beside an image is not a platform',
    tests: MANIFESTS,
  },
  {
    file: 'src/oci/platform.ts',
    replace: "platform.replace(/\\/arm64\\/v8$/, '/arm64')",
    by: 'platform',
    promise: 'linux/arm64 and linux/arm64/v8 are the same platform',
    tests: PLATFORMS,
  },
  {
    file: 'src/oci/platform.ts',
    replace: 'nested.includes(one) || ',
    by: '',
    promise: 'an index in an index is kept for every platform',
    tests: PLATFORMS,
  },
  {
    file: 'src/single-flight.ts',
    replace: 'if (running !== undefined) return',
    by: 'if (false) return',
    promise: 'equal work at the same time is done once',
    tests: ['test/property/single-flight.test.ts'],
  },
  {
    file: 'src/single-flight.ts',
    replace: '.finally(() => this.#runningByKey.delete(key))',
    by: '',
    promise: 'the outcome of work, error or not, does not outlive it',
    tests: ['test/property/single-flight.test.ts'],
  },
];
