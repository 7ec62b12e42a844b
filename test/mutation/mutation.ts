/** One line that holds a promise, and the tests that must notice when it is changed. */
export interface Mutation {
  file: string;
  replace: string;
  by: string;
  promise: string;
  tests: readonly string[];
}
