// A Redis server of the tests' own: on loopback, in memory, in a temporary folder.
import { freePort } from './port.mjs';
import { Program, makeFolder, removeFolder } from './process.mjs';

export class Redis {
  static async start() {
    const folder = await makeFolder('redis');
    const port = await freePort();
    const args = ['--bind', '127.0.0.1', '--port', String(port), '--save', '', '--appendonly', 'no', '--dir', folder];
    const program = new Program('redis-server', args, { install: 'apt-get install -y redis-server' });
    await program.says(/Ready to accept connections/, 'Redis is ready');
    return new Redis(folder, program, `redis://127.0.0.1:${port}`);
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
