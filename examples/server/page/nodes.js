/**
 * The way to the server: which node this page asks, and whether it may ask at all.
 *
 * Behind a load balancer there is one address, and nothing to choose. Without one, further nodes can be named: when one
 * does not answer, the next attempt goes to the next. The browser module retries, and knows nothing of this.
 */
export class Nodes extends EventTarget {
  #origins;
  #current = 0;
  /** Breaks every request that runs. */
  #line = new AbortController();

  /** @param {string[]} others the addresses of further nodes; what is none is left out */
  constructor(others) {
    super();
    this.#origins = [location.origin, ...others.flatMap(origin)];
  }

  /** The address of the node that is asked now. */
  get current() {
    return this.#origins[this.#current];
  }

  get others() {
    return this.#origins.slice(1);
  }

  set others(origins) {
    this.#origins = [location.origin, ...origins.flatMap(origin)];
    this.#use(0);
  }

  get offline() {
    return this.#line.signal.aborted;
  }

  /** Plays offline: breaks every request, refuses new ones, and tells the page as the browser would. */
  set offline(offline) {
    if (offline === this.offline) return;
    if (offline) this.#line.abort(new TypeError('this page plays offline'));
    else this.#line = new AbortController();
    window.dispatchEvent(new Event(offline ? 'offline' : 'online'));
  }

  /**
   * `fetch` on the current node. Rejects with a `TypeError` where there is no connection, as `fetch` does.
   *
   * @param {string | URL | Request} target only its path and query count
   * @param {RequestInit} [init]
   */
  async fetch(target, init = {}) {
    const { pathname, search } = new URL(target instanceof Request ? target.url : target, location.href);
    const asked = this.#current;
    const signal = AbortSignal.any([this.#line.signal, ...(init.signal ? [init.signal] : [])]);
    try {
      const response = await fetch(new URL(pathname + search, this.current), { ...init, signal });
      if (response.status === 503) this.#avoid(asked);
      return response;
    } catch (error) {
      if (!signal.aborted) this.#avoid(asked);
      throw error;
    }
  }

  /** Turns to the next node, unless another request has turned away from this one already. */
  #avoid(asked) {
    if (asked === this.#current && this.#origins.length > 1) this.#use((asked + 1) % this.#origins.length);
  }

  #use(index) {
    this.#current = index;
    this.dispatchEvent(new Event('change'));
  }
}

/** The origin of an address, in a list that is empty where it has none. */
function origin(address) {
  const url = URL.canParse(address) ? new URL(address) : null;
  return url?.protocol === 'http:' || url?.protocol === 'https:' ? [url.origin] : [];
}
