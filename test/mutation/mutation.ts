/** One line that holds a promise, and how to break it: the tests that are named here must then fail. */
export interface Mutation {
  /** The source file, from the root of the repository. */
  file: string;
  /** The code that is replaced. It occurs exactly once in the file and lies on one line, so that formatting keeps it. */
  replace: string;
  /** What stands there instead. The file must still parse; its types need not be right. */
  by: string;
  /** What is broken, as a promise to a user. */
  promise: string;
  /** The smallest and fastest test files that notice. */
  tests: readonly string[];
}
