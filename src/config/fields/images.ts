/** Images, repositories and platforms. */
import * as z from 'zod';
import { parseImageName } from '../../oci/image-name.ts';
import { isPlatform } from '../../oci/platform.ts';
import { written } from './codec.ts';

/** A pattern of image names, `host/repository:tag`; `*` matches any text. */
export function imagePattern() {
  const what = 'a pattern of image names with their host, such as docker.io/library/alpine:*';
  const parse = (text: string) => (/^[a-z0-9.*:-]+\/[^\s]*$/.test(text) ? text : undefined);
  return written(what, parse, String, z.string());
}

/** The name of an image, such as `docker.io/library/alpine:3.20`. */
export function imageName() {
  const parse = (text: string) => (parseImageName(text) === undefined ? undefined : text);
  return written('an image name such as docker.io/library/alpine:3.20', parse, String, z.string());
}

export function platform() {
  const parse = (text: string) => (isPlatform(text) ? text : undefined);
  return written('a platform (os/architecture) such as linux/amd64', parse, String, z.string());
}

/** A pattern of repository names without their host; `*` matches any text. */
export function repositoryPattern() {
  const what = 'a pattern of repository names in lower case, such as org/*';
  return written(what, (text) => (/^[a-z0-9._/*-]+$/.test(text) ? text : undefined), String, z.string());
}
