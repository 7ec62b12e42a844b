/** The log. */
import type { LogLevel } from '../../telemetry/log.ts';
import { oneOf, section } from '../fields/plain.ts';

const LOG_LEVELS = [
  'trace',
  'debug',
  'info',
  'warn',
  'error',
  'fatal',
  'silent',
] as const satisfies readonly LogLevel[];

export const logSchema = section({
  level: oneOf(LOG_LEVELS).prefault('info').describe('Least severe level that is written.'),
  format: oneOf(['auto', 'json', 'pretty'])
    .prefault('auto')
    .describe(
      'json: one JSON object per line; pretty: text for people; auto: pretty on a terminal, else json.',
    ),
  access: oneOf(['all', 'errors', 'none'])
    .prefault('all')
    .describe('Which requests on the registry side are logged: all, those that failed, or none.'),
})
  .prefault({})
  .describe('The log.');
