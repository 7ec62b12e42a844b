/** Finds layers that clients fetch from elsewhere: nobody here ever sees their bytes. */
import * as z from 'zod';
import type { Refusal, Subject } from './part.ts';

const MANIFEST = z.object({
  layers: z.array(z.object({ urls: z.array(z.unknown()).optional() })).default([]),
});

export function foreignLayerIn({ bytes }: Subject): Refusal | undefined {
  const { data } = MANIFEST.safeParse(JSON.parse(bytes.toString('utf8')));
  const isForeign = data === undefined || data.layers.some(({ urls = [] }) => urls.length > 0);
  if (!isForeign) return undefined;
  return {
    allowed: false,
    reason: 'clients fetch a layer of it from elsewhere, where no policy counts',
    advice: 'use another image, or set foreignLayers: allow in the policy',
    detail: { denied: 'foreign-layers' },
  };
}
