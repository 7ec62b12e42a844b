/** A request of nobody in particular, for tests that begin behind the HTTP side. */
import { ANONYMOUS, type RequestContext } from '../../src/request-context.ts';

export const CONTEXT: RequestContext = { id: 'test', identity: ANONYMOUS };
