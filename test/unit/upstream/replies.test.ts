import assert from 'node:assert/strict';
import { suite, type TestContext, test } from 'node:test';
import { assertIdentity, readBody, replyError } from '../../../src/upstream/replies.ts';
import { type Reply, Transport } from '../../../src/upstream/transport.ts';
import { type Script, ScriptedUpstream } from '../../helpers/scripted-upstream.ts';
import { transportTo } from '../../helpers/transport-to.ts';
