/** A change to one line that breaks a promise: the tests that it names must fail. */
export interface Mutation {
  file: string;
  replace: string;
  by: string;
  promise: string;
  tests: readonly string[];
}
