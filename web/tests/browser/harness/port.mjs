// Ports for servers that are started again where they were.
import { once } from 'node:events';
import { createServer } from 'node:net';

/** Below the ports that the system gives to connections and to listeners without a wish: nobody takes this one while its server is down. */
const [LOWEST, HIGHEST] = [20_000, 32_000];

const given = new Set();

/** A port of 127.0.0.1 that nobody listens on. */
export async function freePort() {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (given.has(port)) continue;
    given.add(port);
    const server = createServer();
    const listens = once(server, 'listening').catch((error) => error);
    server.listen(port, '127.0.0.1');
    if ((await listens) instanceof Error) continue;
    server.close();
    await once(server, 'close');
    return port;
  }
}
