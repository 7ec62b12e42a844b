/** Reads files in PEM (RFC 7468), strictly: what is not understood is an error and is not passed over. */
import { FileError } from '../../../../files/errors.ts';

export interface PemBlock {
  /** `CERTIFICATE`, `PUBLIC KEY`. */
  label: string;
  /** The whole block, with its first and last line. */
  text: string;
  /** The number of its first line. */
  line: number;
}

const BOUNDARY = /^-----(BEGIN|END) ([A-Z0-9 ]+)-----$/;

/**
 * Text between blocks is a comment, as in the bundles that `openssl` writes.
 *
 * @param labels what is wanted
 * @param file named in errors
 * @throws {FileError} there is no block, one of another kind, or one that has no end
 */
export function readPem(content: Buffer, labels: readonly string[], file: string): [PemBlock, ...PemBlock[]] {
  const blocks: PemBlock[] = [];
  let open: { label: string; line: number; lines: string[] } | undefined;
  for (const [index, raw] of content.toString('utf8').split('\n').entries()) {
    const text = raw.trim();
    const line = index + 1;
    const [, boundary, label = ''] = BOUNDARY.exec(text) ?? [];
    if (boundary === undefined) {
      open?.lines.push(text);
      continue;
    }
    if ((boundary === 'BEGIN') === (open !== undefined) || (open !== undefined && open.label !== label))
      throw new FileError(file, 'BEGIN and END lines do not belong together: write the file anew', { line });
    if (open === undefined) {
      // Never shows what is in the block, which may be a secret in the wrong place.
      if (!labels.includes(label))
        throw new FileError(file, `holds a ${label}, and ${labels.join(' or ')} is needed`, { line });
      open = { label, line, lines: [text] };
    } else {
      blocks.push({ label, text: `${[...open.lines, text].join('\n')}\n`, line: open.line });
      open = undefined;
    }
  }
  if (open !== undefined) throw new FileError(file, 'the block has no END line', { line: open.line });
  const [first, ...more] = blocks;
  if (first === undefined) throw new FileError(file, `holds no ${labels.join(' or ')} in PEM`);
  return [first, ...more];
}
