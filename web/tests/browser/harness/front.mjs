// What stands between browser and servers: a load balancer in small that cuts, refuses and goes away as a test says.
// It also serves the pages, so that they and the streams have one origin.
import { once } from 'node:events';
import { createServer, request as send } from 'node:http';
import { Log } from './log.mjs';

/** Where a body falls silent: `extra` bytes after the end of the first occurrence of `text`. */
export function after(text, extra = 0) {
  return (body) => {
    const at = body.indexOf(text);
    return at < 0 ? -1 : at + Buffer.byteLength(text) + extra;
  };
}

/** Where a body falls silent: in the middle of the first character of `text`. */
export function inside(text) {
  return (body) => {
    const at = body.indexOf(text);
    return at < 0 ? -1 : at + 1;
  };
}

/** Headers that concern one connection only. */
const HOP = new Set(['connection', 'keep-alive', 'transfer-encoding', 'content-length']);

export class Front {
  /** Requests for streams: `{ method, path, cursor, key, at, status }`, each once its answer begins. */
  requests = new Log();
  /** The server that new requests go to. */
  to = null;
  /** Decides on the answer to a request for a stream: `{ status, headers, body, unnoted }`, or nothing to let it pass. */
  answer = () => undefined;
  /** Where the streams that come next fall silent, one rule each. Then `drop` cuts the connection, or `goOn` lets the rest pass. */
  stops = [];
  #server;
  #sockets = new Set();
  #goOns = new Set();
  #pages;
  #away = false;

  static async start(pages) {
    const front = new Front();
    front.#pages = pages;
    front.#server = createServer((request, response) => front.#serve(request, response));
    front.#server.on('connection', (socket) => front.#admit(socket));
    front.#server.listen(0, '127.0.0.1');
    await once(front.#server, 'listening');
    return front;
  }

  get origin() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  #admit(socket) {
    // A reset by the browser is no fault of the test.
    socket.on('error', () => {});
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    if (this.#away) socket.destroy();
  }

  /** Drops all connections. */
  drop() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Lets the streams that have fallen silent go on. */
  goOn() {
    for (const goOn of this.#goOns) goOn();
  }

  /** The network is away: connections drop, and new ones are refused. */
  goAway() {
    this.#away = true;
    this.drop();
  }

  comeBack() {
    this.#away = false;
  }

  async stop() {
    this.goAway();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #serve(request, response) {
    const path = request.url;
    response.on('error', () => {});
    const page = await this.#pages(path);
    if (page) {
      response.writeHead(200, { 'content-type': page.type, 'cache-control': 'no-store' }).end(page.body);
      return;
    }
    const asked = {
      method: request.method,
      path,
      cursor: request.headers['last-event-id'] ?? '',
      key: request.headers['idempotency-key'],
      at: Date.now(),
    };
    const answer = this.answer(request);
    if (!answer) {
      this.#pass(request, response, asked);
      return;
    }
    response.writeHead(answer.status, answer.headers).end(answer.body);
    if (!answer.unnoted) this.requests.add({ ...asked, status: answer.status });
  }

  #pass(request, response, asked) {
    const { method, headers } = request;
    const onward = send({ host: '127.0.0.1', port: this.to.port, path: asked.path, method, headers, agent: false });
    // A server that cannot be reached is to the browser what it is without a front: a connection that fails.
    onward.on('error', () => response.socket?.destroySoon());
    response.on('close', () => onward.destroy());
    onward.on('response', (answer) => {
      const kept = Object.entries(answer.headers).filter(([name]) => !HOP.has(name));
      response.writeHead(answer.statusCode, Object.fromEntries(kept));
      response.flushHeaders();
      this.requests.add({ ...asked, status: answer.statusCode });
      const streams = answer.headers['content-type']?.startsWith('text/event-stream');
      this.#relay(answer, response, streams ? this.stops.shift() : undefined);
    });
    request.pipe(onward);
  }

  /** Passes a body on, up to where it falls silent. A body that breaks off breaks off for the browser too. */
  #relay(answer, response, stop) {
    let body = Buffer.alloc(0);
    let passed = 0;
    let finish;
    const pass = () => {
      const at = stop?.(body) ?? -1;
      const isSilent = at >= 0 && at <= body.length;
      const end = isSilent ? at : body.length;
      if (end > passed) response.write(body.subarray(passed, end));
      passed = end;
      if (!isSilent) finish?.();
    };
    answer.on('data', (chunk) => {
      body = Buffer.concat([body, chunk]);
      pass();
    });
    const end = (how) => {
      finish = how;
      pass();
    };
    answer.on('end', () => end(() => response.end()));
    answer.on('error', () => end(() => response.socket?.destroySoon()));
    this.#goOns.add(() => {
      stop = undefined;
      pass();
    });
  }
}
