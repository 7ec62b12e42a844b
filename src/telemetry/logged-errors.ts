/** Decides what the log says of an error: its stack only where the defect may be ours. Pure. */
import { stdSerializers } from 'pino';

/** What JavaScript itself throws at a mistake in the program. Not SyntaxError: that is what JSON of others causes. */
const MISTAKES = [TypeError, RangeError, ReferenceError];

/**
 * The fields of an error in the log: its type, its message with those of its causes, and its own fields. A disk that is
 * full or an upstream that is down needs no stack: its message says it all. Put in place of what pino makes of `err`.
 */
export function loggedError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { stack, aggregateErrors: _parts, ...fields } = stdSerializers.err(error);
  return mayBeDefect(error) ? { ...fields, stack } : fields;
}

function mayBeDefect(error: Error): boolean {
  if (chainOf(error).some((one) => MISTAKES.some((mistake) => one instanceof mistake))) return true;
  const isTyped = Object.getPrototypeOf(error) !== Error.prototype;
  const isOfSystem = 'code' in error && typeof error.code === 'string';
  return !isTyped && !isOfSystem;
}

/** The error, its cause, the cause of that and so on. */
function chainOf(error: Error): Error[] {
  const chain: Error[] = [];
  for (let one: unknown = error; one instanceof Error && !chain.includes(one); one = one.cause)
    chain.push(one);
  return chain;
}
