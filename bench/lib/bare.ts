/** A program: what a plain server on Node does. Answers everything with the one reply that its argument describes, by node:http alone. */
import { createServer } from 'node:http';

export interface BareReply {
  port: number;
  headers: Record<string, string>;
  base64: string;
}

const { port, headers, base64 } = JSON.parse(process.argv[2] ?? '') as BareReply;
const body = Buffer.from(base64, 'base64');
createServer((_, response) => {
  response.writeHead(200, headers);
  response.end(body);
}).listen(port, '127.0.0.1');
process.once('SIGTERM', () => process.exit(0));
