/** A reporter for `node --test`: one line of JSON for each test that fails, as soon as it fails. */
import type { TestEvent } from 'node:test/reporters';

export interface Failure {
  name: string;
  /** A test file that ended with an error of its own, or before its tests were over. */
  crashed: boolean;
}

// oxlint-disable-next-line import/no-default-export -- node:test takes a reporter from the default export
export default async function* firstFailure(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of events) {
    if (event.type !== 'test:fail') continue;
    const { name, file, nesting } = event.data;
    const failure: Failure = { name, crashed: nesting === 0 && file !== undefined && file.endsWith(name) };
    yield `${JSON.stringify(failure)}\n`;
  }
}
