/** What should be changed in how a Valkey is set up. Pure. */

/** Valkey began as a copy of 7.2. */
const OLDEST_REDIS = 7;

/** @param info the answer to INFO. What it does not say is not complained of: a provider may leave it out */
export function valkeyAdvice(info: string): string[] {
  const value = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const [version, policy] = [value('redis_version'), value('maxmemory_policy')];
  return [
    ...(version !== undefined && Number.parseInt(version, 10) < OLDEST_REDIS
      ? [`it is Redis ${version}, which is too old: use Valkey, or Redis from version ${OLDEST_REDIS} on`]
      : []),
    ...(policy !== undefined && policy !== 'noeviction'
      ? [
          `its maxmemory-policy is ${policy}: it may drop leases and members while they are in use; set it to noeviction`,
        ]
      : []),
  ];
}
