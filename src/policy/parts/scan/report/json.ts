/** Reads the JSON of a report against its schema, with one kind of error for all that can be wrong with it. */
import type { z } from 'zod';
import { ReportError } from './scan-report.ts';

/** @throws {ReportError} quotes nothing of the report: its words may come from the image */
export function parseReport<T>(bytes: Buffer, schema: z.ZodType<T>): T {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString('utf8'));
  } catch {
    throw new ReportError('the report is not JSON');
  }
  const { success, data, error } = schema.safeParse(json);
  if (success) return data;
  const [issue] = error.issues;
  throw new ReportError(`the report is not as it should be at ${issue?.path.join('.') || 'its beginning'}`);
}
