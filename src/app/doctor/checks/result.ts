/** What a check of `millpond doctor` finds. */

export type Outcome = 'ok' | 'warning' | 'failed' | 'skipped';

export interface Finding {
  outcome: Outcome;
  /** What is so, in words that need no other line. */
  message: string;
  /** What to do about it. Absent: nothing. */
  advice?: string;
}

export interface CheckResult extends Finding {
  check: string;
  /** The upstream that was checked. Absent: this machine was. */
  upstream?: string;
}

/** A check that failed. What would build on it is not checked. */
export class CheckFailure extends Error {
  override readonly name = 'CheckFailure';
  readonly advice: string;

  constructor(message: string, advice: string, cause?: unknown) {
    super(message, { cause });
    this.advice = advice;
  }
}
