// Processes that these tests start. Each ends with its handle, and none outlives this process.
import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Log, within } from './log.mjs';

const running = new Set();
const folders = new Set();
const REMOVE = { recursive: true, force: true, maxRetries: 5 };

// Also where a test file is interrupted.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, REMOVE);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

/** Makes a folder for what a program writes. */
export async function makeFolder(name) {
  const folder = await mkdtemp(join(tmpdir(), `resilient-sse-${name}-`));
  folders.add(folder);
  return folder;
}

export async function removeFolder(folder) {
  await rm(folder, REMOVE);
  folders.delete(folder);
}

export class Program {
  /** What it writes to stdout and stderr, line by line. */
  lines = new Log();
  #child;
  #exited;

  /** Starts `command`; `install` is the command that installs it. */
  constructor(command, args, { install, ...options } = {}) {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    this.#child = child;
    running.add(child);
    this.#exited = new Promise((resolve, reject) => {
      child.once('error', (error) => reject(new Error(`\`${command}\` does not start (${error.message}): ${install}`)));
      // `close` comes when all that it wrote has been read, too.
      child.once('close', (code, signal) => resolve({ code, signal }));
    }).finally(() => running.delete(child));
    // The failure to start is reported to whoever waits for a line.
    this.#exited.catch(() => {});
    for (const stream of [child.stdout, child.stderr]) this.#read(stream);
  }

  #read(stream) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) this.lines.add(line);
    });
  }

  /** The first match of the pattern in its output. Rejects if it ends before, and ends it if that takes too long. */
  async says(pattern, what) {
    const said = this.lines.until((lines) => {
      const line = lines.find((line) => pattern.test(line));
      return line && pattern.exec(line);
    }, what);
    const ended = this.#exited.then(({ code, signal }) => {
      throw new Error(`ended (${code ?? signal}) before ${what}:\n${this.lines}`);
    });
    ended.catch(() => {});
    said.catch(() => {});
    try {
      return await Promise.race([said, ended]);
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  /** Sends a signal, without waiting for what comes of it. */
  signal(signal) {
    this.#child.kill(signal);
  }

  /** Its exit code, or the signal that ended it. */
  exited(patience) {
    return within(this.#exited, 'the end of a process', patience);
  }

  /** Kills it, and waits until it is gone. */
  async kill() {
    this.#child.kill('SIGKILL');
    await this.exited().catch(() => {});
  }
}
