/** Images that are fetched by schedule. */
import { imageName, platform } from '../fields/images.ts';
import { list, section } from '../fields/plain.ts';
import { timeout } from '../fields/quantities.ts';

export const warmSchema = list(
  section({
    images: list(imageName()).describe('Images to fetch completely.'),
    every: timeout().describe('How often; the first time is the start.'),
    platforms: list(platform())
      .prefault([])
      .describe('Of images for several platforms only these; none: all.'),
  }),
)
  .prefault([])
  .describe('Images that are fetched before anybody asks for them, again and again.');
