// Headless Chromium from Debian, as a process of the tests' own.
import { chromium } from 'playwright-core';
import { Program, makeFolder, removeFolder } from './process.mjs';

const ARGS = [
  '--headless',
  // Tests may run as root, in a container.
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--remote-debugging-port=0',
];

export class Browser {
  #program;
  #folder;
  #playwright;

  static async start() {
    const browser = new Browser();
    browser.#folder = await makeFolder('chromium');
    const args = [...ARGS, `--user-data-dir=${browser.#folder}`, 'about:blank'];
    browser.#program = new Program('chromium', args, { install: 'apt-get install -y chromium' });
    try {
      const [, url] = await browser.#program.says(/^DevTools listening on (\S+)/, 'Chromium listens');
      // Without Playwright's defaults, a tab behind another one is hidden, as it is for a user.
      browser.#playwright = await chromium.connectOverCDP(url, { noDefaults: true });
    } catch (error) {
      await browser.stop();
      throw error;
    }
    return browser;
  }

  /** A profile of its own, in which every page counts as visible. */
  newContext() {
    return this.#playwright.newContext();
  }

  /** The browser's own profile, in which only the tab in front is visible. */
  get window() {
    return this.#playwright.contexts()[0];
  }

  async stop() {
    await this.#playwright?.close();
    await this.#program.kill();
    await removeFolder(this.#folder);
  }
}
