// All that one case needs: nodes, a front before them, and tabs in a profile of its own.
import { Browser } from './browser.mjs';
import { Front } from './front.mjs';
import { pages } from './pages.mjs';
import { Server } from './server.mjs';
import { Tab } from './tab.mjs';

let cases = 0;

export class World {
  front;
  #shared;
  #context;
  #ends = [];
  #prefix = `case${(cases += 1)}:`;

  /**
   * @param {import('node:test').TestContext} test ends all of it, also where it fails
   * @param {{ redis, browser }} shared
   */
  static async open(test, shared) {
    const world = new World();
    world.#shared = shared;
    test.after(() => world.#close());
    world.front = world.#ending(await Front.start(pages), (front) => front.stop());
    world.#context = world.#ending(await shared.browser.newContext(), (context) => context.close());
    await Tab.prepare(world.#context);
    return world;
  }

  #ending(thing, end) {
    this.#ends.push(() => end(thing));
    return thing;
  }

  async #close() {
    // The last thing first, and every one even if another one fails.
    const failed = [];
    for (const end of this.#ends.reverse()) await end().catch((error) => failed.push(error));
    if (failed.length > 0) throw failed[0];
  }

  /** A node on its own. New requests go to the first one. */
  async node(...options) {
    const node = this.#ending(await Server.start(options), (server) => server.kill());
    this.front.to ??= node;
    return node;
  }

  /** A node on the store that it shares with the case's other ones. */
  nodeOnRedis(...options) {
    const store = ['--store', this.#shared.redis.url, '--key-prefix', this.#prefix];
    // On a busy machine Redis may be late. A stream that goes out unrecorded for that could not be resumed.
    return this.node(...store, '--on-unavailable', 'retry', ...options);
  }

  /** Opens a tab on any page. */
  async page(path) {
    const page = await this.#context.newPage();
    await page.goto(this.front.origin + path);
    return page;
  }

  /** Opens a tab that watches a stream. */
  tab(source, url, settings = {}) {
    return Tab.open(this.#context, this.front.origin, { source, url, ...settings });
  }

  /** A tab that another one can be put in front of, in a browser of its own: elsewhere, all tabs count as visible. */
  async tabOfAWindow(source, url, settings = {}) {
    const { window } = this.#ending(await Browser.start(), (browser) => browser.stop());
    await Tab.prepare(window);
    const [other] = window.pages();
    const tab = await Tab.open(window, this.front.origin, { source, url, ...settings });
    const devtools = await window.newCDPSession(tab.page);
    const becomes = (state) => tab.said('visibility', (line) => line.state === state);
    return {
      tab,
      /** Puts another tab in front, and freezes the page, as a phone does with what it does not show. */
      async hide() {
        await other.bringToFront();
        await becomes('hidden');
        await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
        await becomes('frozen');
      },
      async show() {
        await devtools.send('Page.setWebLifecycleState', { state: 'active' });
        await tab.page.bringToFront();
        await becomes('visible');
      },
    };
  }

  cookie(name, value) {
    return this.#context.addCookies([{ name, value, url: this.front.origin }]);
  }

  setOffline(offline) {
    return this.#context.setOffline(offline);
  }
}
