/** Connects to the other nodes of a fleet. */
import { createSecureContext, getCACertificates } from 'node:tls';
import { buildConnector } from 'undici';
import { WatchedFiles, type WatchedFilesContext } from '../files/watched-files.ts';

const CONNECT_TIMEOUT_MS = 500;

/**
 * @param ca PEM file of authorities to trust in addition to the usual ones. Read again when it changes: connections that are
 *   open go on as they are
 * @throws {FileError} it cannot be read @throws {Error} it holds no certificates
 */
export async function connectNodes(
  ca: string | undefined,
  context: WatchedFilesContext,
): Promise<buildConnector.connector> {
  if (ca === undefined) return buildConnector({ timeout: CONNECT_TIMEOUT_MS });
  const parse = ([content = Buffer.alloc(0)]: readonly Buffer[]) => connectorThatTrusts(ca, content);
  const connectors = await WatchedFiles.open({ paths: [ca], parse }, context);
  return (options, callback) => {
    void connectors.current().then((connect) => connect(options, callback));
  };
}

function connectorThatTrusts(file: string, pem: Buffer): buildConnector.connector {
  const text = pem.toString('utf8');
  const trusted = { ca: [...getCACertificates('default'), text] };
  try {
    if (!text.includes('-----BEGIN')) throw new Error('it is not in PEM format');
    createSecureContext(trusted);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`${file} holds no certificates of authorities: ${why}`, { cause: error });
  }
  return buildConnector({ ...trusted, timeout: CONNECT_TIMEOUT_MS });
}
