/** Images that are fetched on a schedule. */
import { imageName, platform } from '../fields/images.ts';
import { list, section } from '../fields/plain.ts';
import { timeout } from '../fields/quantities.ts';

export const warmSchema = list(
  section({
    images: list(imageName()).describe('Images to fetch completely.'),
    every: timeout().describe('How often to fetch them; the first time is at the start.'),
    platforms: list(platform())
      .prefault([])
      .describe('Platforms to fetch of images that have several; empty: all.'),
  }),
)
  .prefault([])
  .describe('Images that are fetched at the start and then regularly, before a client asks for them.');
