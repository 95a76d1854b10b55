// A Redis server of the tests' own: on loopback, in memory, in a temporary folder.
import { createServer } from 'node:net';
import { once } from 'node:events';
import { Program, makeFolder, removeFolder } from './process.mjs';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

export class Redis {
  static async start() {
    const folder = await makeFolder('redis');
    const port = await freePort();
    const args = ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--appendonly', 'no', '--dir', folder];
    const program = new Program('redis-server', args, { install: 'apt-get install -y redis-server' });
    const redis = new Redis(folder, program, `redis://127.0.0.1:${port}`);
    await program.says(/Ready to accept connections/, 'Redis to be ready').catch(async (error) => {
      await redis.stop();
      throw error;
    });
    return redis;
  }

  constructor(folder, program, url) {
    this.folder = folder;
    this.program = program;
    this.url = url;
  }

  async stop() {
    await this.program.kill();
    await removeFolder(this.folder);
  }
}
