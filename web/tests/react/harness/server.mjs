/** A small server of event streams, which counts what is open. */
import { createServer } from 'node:http';

/**
 * Starts a server that is closed with the test. `handle` gets an {@link Exchange} for each request.
 * @param {import('node:test').TestContext} t
 * @param {(exchange: Exchange) => void} handle
 */
export async function serve(t, handle) {
  const exchanges = [];
  const server = createServer(async (request, response) => {
    const exchange = new Exchange(request, response);
    exchanges.push(exchange);
    exchange.body = await read(request);
    handle(exchange);
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  t.after(() => {
    server.closeAllConnections();
    return new Promise((closed) => server.close(closed));
  });
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    /** All requests so far. */
    exchanges,
    /** Those with this method. */
    with: (method) => exchanges.filter((exchange) => exchange.method === method),
    /** How many responses are being read now. */
    get open() {
      return exchanges.filter((exchange) => exchange.isOpen).length;
    },
  };
}

/** A request and its response. */
class Exchange {
  isOpen = true;
  body = '';
  #response;

  constructor(request, response) {
    this.method = request.method;
    this.path = request.url;
    this.headers = request.headers;
    this.#response = response;
    response.on('close', () => (this.isOpen = false));
  }

  /** The number of the event that the client has seen last. */
  get seen() {
    return Number(/^e\d+-(\d+)$/.exec(this.headers['last-event-id'] ?? '')?.[1] ?? 0);
  }

  /** Begins an event stream. */
  stream(headers = {}) {
    this.#response.writeHead(200, { 'content-type': 'text/event-stream', ...headers });
    this.#response.flushHeaders();
    return this;
  }

  /** Sends events `from` to `to`, whose data are their numbers. */
  count(from, to) {
    let text = '';
    for (let n = from; n <= to; n++) text += block(n, `e1-${n}`);
    this.#response.write(text);
    return this;
  }

  /** Sends one event. */
  event(data, { id, name } = {}) {
    this.#response.write(block(data, id, name));
    return this;
  }

  /** Sends the terminal event, and ends. */
  end(name = 'completed', data = '{}') {
    this.#response.end(block(data, 'e2-0', name));
  }

  /** Answers without a stream. */
  answer(status, headers = {}) {
    this.#response.writeHead(status, headers).end();
  }

  /** Drops the connection. */
  cut() {
    this.#response.destroy();
  }
}

function block(data, id, name) {
  return `${name ? `event: ${name}\n` : ''}data: ${data}\n${id ? `id: ${id}\n` : ''}\n`;
}

async function read(request) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) body += chunk;
  return body;
}
