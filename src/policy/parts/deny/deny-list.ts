/** Reads files of denied digests: one a line. `#` begins a comment. */
import { FileError } from '../../../files/errors.ts';
import { type Digest, parseDigest } from '../../../oci/digest.ts';

/** @param file named in errors @throws {FileError} with the first bad line */
export function readDenyList(content: Buffer, file: string): Digest[] {
  return content
    .toString('utf8')
    .split('\n')
    .flatMap((line, index) => {
      const text = line.replace(/#.*$/, '').trim();
      if (text === '') return [];
      const digest = parseDigest(text);
      // Does not show the line: a wrong path may lead to a file with secrets.
      if (digest === undefined) {
        const problem = 'not a digest: write one a line, sha256: and 64 lower-case hexadecimal digits';
        throw new FileError(file, problem, { line: index + 1 });
      }
      return [digest];
    });
}
