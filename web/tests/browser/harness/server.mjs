// The example server, as a process.
import { ok } from 'node:assert';
import { existsSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { PATIENCE } from './log.mjs';
import { freePort } from './port.mjs';
import { Program } from './process.mjs';

const BUILD = 'cargo build --features full --example server';

function binary() {
  const root = fileURLToPath(new URL('../../../../', import.meta.url));
  const path = process.env.RESILIENT_SSE_SERVER ?? `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/debug/examples/server`;
  if (!existsSync(path)) throw new Error(`the example server is missing at ${path}: ${BUILD}`);
  return path;
}

export class Server {
  #program;
  #options;
  port;

  /** @param {string[]} options of the example server, without `--listen` */
  static async start(options) {
    const server = new Server();
    server.#options = options;
    server.port = await freePort();
    await server.startAgain();
    return server;
  }

  /** Starts it on the port that it had before. */
  async startAgain() {
    this.#program = new Program(binary(), ['--listen', `127.0.0.1:${this.port}`, ...this.#options], { install: BUILD });
    await this.#program.says(/^listening on /, 'the example server listens');
  }

  /** Ends it as a power cut does. */
  kill() {
    return this.#program.kill();
  }

  /** Asks it to go down in order. */
  drain() {
    this.#program.signal('SIGTERM');
  }

  /** Its exit code once it is gone. */
  async exitCode() {
    return (await this.#program.exited()).code;
  }

  /** Sends a request to it, past the front. */
  fetch(path, init) {
    return fetch(`http://127.0.0.1:${this.port}${path}`, { ...init, signal: AbortSignal.timeout(PATIENCE) });
  }

  /** Waits until a stream has ended, whoever reads it. */
  async ended(id) {
    const deadline = Date.now() + PATIENCE;
    let recovery;
    do {
      ok(Date.now() < deadline, `the stream does not end: ${JSON.stringify(recovery)}`);
      await sleep(20);
      recovery = await (await this.fetch(`/api/stream/${id}/recover?limit=1`)).json();
    } while (recovery.status === 'active');
    return recovery;
  }

  async health() {
    return (await this.fetch('/healthz')).json();
  }
}
