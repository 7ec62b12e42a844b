/**
 * The logger; everything that logs receives it by constructor.
 *
 * No field of a line comes from a header or a credential: what must not be logged is not handed over.
 */
import { type DestinationStream, type Logger, pino } from 'pino';

export type { Logger };

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** Writes JSON lines to `destination`. */
export function createLogger(options: { level: LogLevel; destination: DestinationStream }): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    options.destination,
  );
}

/**
 * Standard output in pieces: a write for every line would cost a busy mirror a fifth of its time. Lines appear within
 * a tenth of a second; {@link BufferedOutput.flushSync} before the process ends.
 */
export function bufferedOutput(): BufferedOutput {
  return pino.destination({ dest: 1, sync: false, minLength: 8 * 1024, periodicFlush: 100 });
}

export interface BufferedOutput {
  write(text: string): unknown;
  flushSync(): void;
}

/** Turns JSON lines into text for people: time, level, message, then the rest as `key=value`. */
export function prettyDestination(output: { write(text: string): unknown }): DestinationStream {
  return {
    write: (json: string) => {
      const { time, level, msg, ...rest } = JSON.parse(json) as Record<string, unknown>;
      const fields = Object.entries(rest).map(
        ([key, value]) => `${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
      );
      output.write(`${[time, String(level).padEnd(5), msg, ...fields].join(' ')}\n`);
    },
  };
}
