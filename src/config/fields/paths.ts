/** Paths, and where secrets are kept. */
import * as z from 'zod';

/** Where a secret is kept: an environment variable or a file. */
export type SecretRef = { env: string } | { file: string };

/** The path of a file or folder. A line break in it means that someone pasted the content instead. */
export function path() {
  const notContent = { error: 'must be a path, not the content of a file' };
  return z
    .string({ error: 'must be a path' })
    .min(1, { error: 'must be a path' })
    .regex(/^[^\0\r\n]*$/, notContent);
}

export function secretRef() {
  const hint = 'must be { env: NAME } or { file: PATH }: a secret is never written into the configuration';
  const keys = z.strictObject(
    {
      env: z
        .string({ error: 'must be the name of an environment variable' })
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'must be the name of an environment variable' })
        .optional()
        .describe('Environment variable that holds the secret; read at start.'),
      file: path().optional().describe('File that holds the secret; read again when it changes.'),
    },
    { error: hint },
  );
  return z.codec(keys, z.custom<SecretRef>(), {
    decode: ({ env, file }, context): SecretRef => {
      if (env !== undefined && file === undefined) return { env };
      if (file !== undefined && env === undefined) return { file };
      context.issues.push({ code: 'custom', input: {}, message: hint });
      return z.NEVER;
    },
    encode: (ref) => ref,
  });
}
