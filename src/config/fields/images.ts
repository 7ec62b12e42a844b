/** Images, repositories and platforms. */
import * as z from 'zod';
import { parseImageName } from '../../oci/image-name.ts';
import { isPlatform } from '../../oci/platform.ts';
import { written } from './codec.ts';

/** A pattern of image names, as `upstream/repository:tag`; `*` stands for anything. */
export function imagePattern() {
  const what = 'a pattern of image names with their host, such as docker.io/library/alpine:*';
  const parse = (text: string) => (/^[a-z0-9.*:-]+\/[^\s]*$/.test(text) ? text : undefined);
  return written(what, parse, String, z.string());
}

/** An image by its name: `docker.io/library/alpine:3.20`. */
export function imageName() {
  const parse = (text: string) => (parseImageName(text) === undefined ? undefined : text);
  return written('an image name such as docker.io/library/alpine:3.20', parse, String, z.string());
}

export function platform() {
  const parse = (text: string) => (isPlatform(text) ? text : undefined);
  return written('a platform such as linux/amd64', parse, String, z.string());
}

/** A pattern of repositories; `*` stands for anything. */
export function repositoryPattern() {
  const what = 'a pattern of repositories such as org/*';
  return written(what, (text) => (/^[a-z0-9._/*-]+$/.test(text) ? text : undefined), String, z.string());
}
