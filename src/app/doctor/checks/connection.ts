/** Opens a connection to an upstream, through its proxy if it has one. */
import { connect, type Socket } from 'node:net';
import { toUpstreamError, type UpstreamError } from '../../../upstream/errors.ts';
import { ProxiedConnections } from '../../../upstream/network/proxy.ts';
import type { Proxy } from '../../../upstream/network/proxy-rule.ts';
import { tlsOptions } from '../../../upstream/network/transport.ts';
import { type Endpoint, hostOf, portOf, proxyKey } from './context.ts';
import { CheckFailure, type Finding } from './result.ts';

export interface OpenConnection extends AsyncDisposable {
  finding: Finding;
  /** To the upstream, or to the proxy of an `http:` one. Nothing has been sent on it. */
  socket: Socket;
}

/** @param timeoutMs for the answer of a proxy @throws {CheckFailure} */
export async function openConnection(
  endpoint: Endpoint,
  { signal, timeoutMs }: { signal: AbortSignal; timeoutMs: number },
): Promise<OpenConnection> {
  const { name, url, proxy } = endpoint;
  try {
    if (proxy !== undefined && url.protocol === 'https:') return await openTunnel(endpoint, proxy, timeoutMs);
    const to = proxy?.url ?? url;
    const socket = await openSocket(hostOf(to), portOf(to), signal);
    const address = `${socket.remoteAddress ?? to.hostname}:${portOf(to)}`;
    const message = proxy === undefined ? `connected to ${address}` : `connected to the proxy ${to.host}`;
    return {
      finding: { outcome: 'ok', message },
      socket,
      [Symbol.asyncDispose]: async () => void socket.destroy(),
    };
  } catch (error) {
    const where = proxy === undefined ? `${hostOf(url)}:${portOf(url)}` : `the proxy ${proxy.url.host}`;
    const failure = toUpstreamError(error, name, where);
    const message = failure.message.slice(`${name}: `.length);
    throw new CheckFailure(message, advice(endpoint, failure), error);
  }
}

async function openTunnel(endpoint: Endpoint, proxy: Proxy, timeoutMs: number): Promise<OpenConnection> {
  const { name, url, settings } = endpoint;
  const tls = tlsOptions(settings);
  const connections = new ProxiedConnections(proxy, {
    upstream: name,
    connectTimeoutMs: timeoutMs,
    limits: {},
    tls,
    proxyTls: tls,
  });
  try {
    const socket = await connections.tunnel({ hostname: hostOf(url), port: String(portOf(url)) });
    socket.on('error', () => undefined);
    return {
      finding: { outcome: 'ok', message: `connected through the proxy ${proxy.url.host}` },
      socket,
      [Symbol.asyncDispose]: async () => {
        socket.destroy();
        await connections.close();
      },
    };
  } catch (error) {
    await connections.close();
    throw error;
  }
}

function openSocket(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.on('error', () => undefined); // it may break at any time, and its next user notices
      resolve(socket);
    });
  });
}

function advice(endpoint: Endpoint, { code, cause }: UpstreamError): string {
  if (endpoint.proxy !== undefined)
    return `check ${proxyKey(endpoint)}, and whether the proxy lets this machine through`;
  const refused = cause instanceof Error && 'code' in cause && cause.code === 'ECONNREFUSED';
  if (refused) return `check whether the registry runs, and the port in upstreams.${endpoint.name}.url`;
  return code === 'timeout' || code === 'unavailable'
    ? `check the firewall; if this network needs a proxy, set HTTPS_PROXY or upstreams.${endpoint.name}.proxy`
    : `check upstreams.${endpoint.name}.url`;
}
