/** Paths, and the places where secrets are kept. */
import * as z from 'zod';
import { wrongSecret } from './codec.ts';

/** Where a secret is kept: in an environment variable or in a file. */
export type SecretRef = { env: string } | { file: string };

/** Whether it is a path that a shell was to replace. Millpond would make a folder called `~`. */
export function isOfShell(path: string): boolean {
  return path.startsWith('~');
}

/**
 * The path of a file or folder. A path with a line break is refused: somebody has pasted the content of a file. No error
 * shows the text, because that content may be a secret.
 */
export function path() {
  const error = wrongSecret('the path of a file or folder');
  return z
    .string({ error })
    .min(1, { error })
    .regex(/^[^\0\r\n]*$/, {
      error: 'must be the path of a file, but is several lines: do not paste its content',
    })
    .refine((path) => !isOfShell(path), {
      error: 'begins with ~, and only a shell replaces that: write the whole path',
    });
}

/** A {@link SecretRef}. No error shows what stands in its place: it may be the secret itself. */
export function secretRef() {
  const error = wrongSecret('{ env: NAME } or { file: PATH }: say where the secret is, never write it here');
  const variable = wrongSecret(
    'the name of an environment variable: letters, digits and _, such as REGISTRY_PASSWORD',
  );
  const keys = z.strictObject(
    {
      env: z
        .string({ error: variable })
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: variable })
        .optional()
        .describe('Environment variable that holds the secret; read at the start.'),
      file: path().optional().describe('File that holds the secret; read again when it changes.'),
    },
    { error },
  );
  return z.codec(keys, z.custom<SecretRef>(), {
    decode: ({ env, file }, context): SecretRef => {
      if (env !== undefined && file === undefined) return { env };
      if (file !== undefined && env === undefined) return { file };
      context.issues.push({ code: 'custom', input: {}, message: error({ input: {} }) });
      return z.NEVER;
    },
    encode: (ref) => ref,
  });
}
