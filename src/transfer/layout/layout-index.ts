/** Reads the JSON files of an image layout: they list the images of an archive. */
import { z } from 'zod';
import { parseDigest } from '../../oci/digest.ts';
import { parseImageName } from '../../oci/image-name.ts';
import { parseTag, type Tag } from '../../oci/reference.ts';
import { LayoutError, printable } from './errors.ts';
import { CONTAINERD_NAME, LAYOUT_VERSION, type LayoutImage, REF_NAME } from './layout-writer.ts';

/** An image as an archive lists it. If it has neither a name nor a tag, only its digest is known. */
export interface ListedImage extends LayoutImage {
  /** Set if ref.name is only a tag, such as `latest`: the repository is not known then. */
  tag?: Tag;
}

/** Levels of brackets in a JSON file: real files have five, and JSON.parse fails on very deep ones. */
const MAX_DEPTH = 32;

const LAYOUT = z.object({ imageLayoutVersion: z.string() });

const INDEX = z.object({
  schemaVersion: z.literal(2),
  manifests: z.array(
    z.object({
      mediaType: z.string().min(1),
      digest: z.string().transform((text, context) => {
        const digest = parseDigest(text);
        if (digest !== undefined) return digest;
        context.issues.push({ code: 'custom', input: text, message: 'not a digest' });
        return z.NEVER;
      }),
      size: z.int().nonnegative(),
      annotations: z
        .object({ [CONTAINERD_NAME]: z.string().optional(), [REF_NAME]: z.string().optional() })
        .nullish(),
    }),
  ),
});

const DOCKER_MANIFEST_JSON = z.array(z.object({ RepoTags: z.array(z.string()).nullish() }));

/** @throws {LayoutError} `bad-index`, `unsupported-version` */
export function checkLayoutVersion(bytes: Buffer): void {
  const { imageLayoutVersion } = parse(LAYOUT, 'oci-layout', bytes);
  if (imageLayoutVersion === LAYOUT_VERSION) return;
  throw new LayoutError(
    'unsupported-version',
    `the archive is an image layout of version ${printable(imageLayoutVersion)}: write it in version ${LAYOUT_VERSION}`,
  );
}

/**
 * Reads the images of `index.json`. Containerd and Docker write the full name into an annotation of their own. Skopeo
 * and podman write it into ref.name, where other tools write only a tag.
 *
 * @throws {LayoutError} `bad-index`
 */
export function listedImages(index: Buffer): ListedImage[] {
  const { manifests } = parse(INDEX, 'index.json', index);
  return manifests.map(({ annotations, ...descriptor }) => {
    const refName = annotations?.[REF_NAME] ?? '';
    const tag = parseTag(refName);
    const name =
      parseImageName(annotations?.[CONTAINERD_NAME] ?? '') ??
      (tag === undefined ? parseImageName(refName) : undefined);
    if (name?.digest !== undefined && name.digest !== descriptor.digest) {
      throw badIndex(
        'index.json',
        `it lists ${descriptor.digest} under a name with the digest ${name.digest}`,
      );
    }
    return {
      descriptor,
      ...(name === undefined ? {} : { name }),
      ...(tag === undefined ? {} : { tag }),
    };
  });
}

/**
 * Names an image without a name by the `RepoTags` of Docker's `manifest.json`. They identify an image by its config,
 * which `index.json` does not mention. So this works only if there is just one image.
 *
 * @throws {LayoutError} `bad-index`
 */
export function withRepoTags(images: ListedImage[], dockerManifest: Buffer): ListedImage[] {
  // Ignores what does not look like Docker's file: others may use this name too.
  const items = DOCKER_MANIFEST_JSON.safeParse(parseJson('manifest.json', dockerManifest)).data ?? [];
  const [image, ...otherImages] = images;
  const [item, ...otherItems] = items;
  if (image === undefined || image.name !== undefined || otherImages.length + otherItems.length > 0)
    return images;
  const names = (item?.RepoTags ?? []).flatMap((text) => parseImageName(text) ?? []);
  return names.length === 0 ? images : names.map((name) => ({ ...image, name }));
}

function parse<T>(schema: z.ZodType<T>, file: string, bytes: Buffer): T {
  const { data, error } = schema.safeParse(parseJson(file, bytes));
  if (error === undefined) return data;
  const [first] = error.issues;
  throw badIndex(file, `${first?.path.join('.') ?? ''}: ${first?.message ?? ''}`);
}

function parseJson(file: string, bytes: Buffer): unknown {
  const text = bytes.toString('utf8');
  if (depth(text) > MAX_DEPTH) throw badIndex(file, `it is nested deeper than ${MAX_DEPTH} levels`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw badIndex(file, 'it is not JSON', error);
  }
}

function badIndex(file: string, reason: string, cause?: unknown): LayoutError {
  const message = `${file} in the archive cannot be used: ${reason}; write the archive again`;
  return new LayoutError('bad-index', message, { cause });
}

/** Counts how deep brackets are nested, without parsing: a parser may run out of stack. */
function depth(json: string): number {
  let level = 0;
  let deepest = 0;
  let inString = false;
  for (let at = 0; at < json.length; at += 1) {
    const char = json[at];
    if (inString) {
      if (char === '\\') at += 1;
      else if (char === '"') inString = false;
    } else if (char === '"') inString = true;
    else if (char === '{' || char === '[') deepest = Math.max(deepest, (level += 1));
    else if (char === '}' || char === ']') level -= 1;
  }
  return deepest;
}
