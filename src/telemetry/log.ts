/** The logger's shape and its redaction; everything that logs receives a {@link Logger} by constructor. */
import { type DestinationStream, type Logger, pino } from 'pino';

export type { Logger };

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';

/** Writes JSON lines to `destination`. Clients' and upstreams' credentials never reach a line, wherever they hide. */
export function createLogger(options: { level: LogLevel; destination: DestinationStream }): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: [
          'authorization',
          'cookie',
          'password',
          'token',
          '*.authorization',
          '*.cookie',
          '*.password',
          '*.token',
        ],
        censor: '[redacted]',
      },
    },
    options.destination,
  );
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
