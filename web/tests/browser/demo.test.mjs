// The example server's demo page: what it shows through every button, and whether everybody can use it.
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { Browser } from './harness/browser.mjs';
import { PATIENCE } from './harness/log.mjs';
import { Redis } from './harness/redis.mjs';
import { Server } from './harness/server.mjs';

const TEXTS = new URL('../../../examples/texts/', import.meta.url);
/** What a break of a connection looks like in Chromium's console. */
const EXPECTED_ERRORS = /ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_INTERNET_DISCONNECTED|ERR_CONNECTION_REFUSED|ERR_NETWORK_CHANGED/;

let browser;
before(async () => {
  browser = await Browser.start();
});
after(() => browser?.stop());

/** A demo page that a test drives. */
class Demo {
  /** What the console said that no break explains, and every origin that was asked. */
  errors = [];
  origins = new Set();

  /** Opens the page of a node in a browser profile of its own. */
  static async open(context, server) {
    const profile = await browser.newContext();
    context.after(() => profile.close());
    return Demo.inProfile(profile, `http://127.0.0.1:${server.port}/`);
  }

  static async inProfile(profile, url) {
    const page = await profile.newPage();
    const demo = new Demo(page);
    page.setDefaultTimeout(PATIENCE);
    page.on('console', (message) => {
      if (message.type() === 'error' && !EXPECTED_ERRORS.test(message.text())) demo.errors.push(message.text());
    });
    page.on('pageerror', (error) => demo.errors.push(error.message));
    page.on('request', (request) => demo.origins.add(new URL(request.url()).origin));
    await page.goto(url);
    return demo;
  }

  constructor(page) {
    this.page = page;
  }

  button(name) {
    return this.page.getByRole('button', { name });
  }

  async start({ n, rate }) {
    await this.page.getByLabel('Events').selectOption(String(n));
    await this.page.getByLabel('A second').selectOption(String(rate));
    await this.button('Start').click();
  }

  /** The number of the last token that has arrived. */
  last() {
    return this.page.locator('#verdict').evaluate(({ dataset }) => Number(dataset.numbers.split('-').at(-1) || -1));
  }

  /** Starts a stream that lasts for longer than any test, until `stop`. */
  startLong() {
    return this.start({ n: 2000, rate: 40 });
  }

  /** Stops the stream, whose text is whole up to there. */
  async stop(end = 'cancelled') {
    await this.button('Stop').click();
    await this.ended(end);
    await this.isWhole((await this.last()) + 1);
  }

  /** Waits until the token with this number is there. */
  async token(number) {
    await this.page.waitForFunction((number) => {
      return Number(document.getElementById('verdict').dataset.numbers.split('-').at(-1) || -1) >= number;
    }, number);
  }

  /** Waits until something of this kind has happened so many times. */
  async happened(kind, times = 1) {
    await this.page.locator(`#log [data-kind=${kind}]`).nth(times - 1).waitFor();
  }

  async ended(state) {
    await this.happened('end');
    strictEqual(await this.page.locator('body').getAttribute('data-state'), state);
  }

  figure(id) {
    return this.page.locator(`#${id}`).textContent().then((text) => Number(text.replaceAll(',', '')));
  }

  /** The text so far is that of the file, word for word, and the page says that no number lacks or came twice. */
  async isWhole(tokens) {
    const verdict = await this.page.locator('#verdict').textContent();
    strictEqual(verdict.trim().replaceAll(',', ''), `${tokens} events · 0 missing · 0 twice`);
    strictEqual(await this.page.locator('#verdict').getAttribute('data-numbers'), `0-${tokens - 1}`);
    strictEqual((await this.figure('live')) + (await this.figure('replayed')), tokens);
    const paragraphs = await this.page.locator('#text p').allTextContents();
    const file = await readFile(new URL('opticks.txt', TEXTS), 'utf8');
    const words = file.replaceAll('_', '').split(/\s+/).filter(Boolean).slice(0, tokens);
    deepStrictEqual(paragraphs.join(' ').split(/\s+/).filter(Boolean), words);
  }

  /** Nothing went wrong that was not broken on purpose, and nobody else was asked. */
  isClean(...servers) {
    deepStrictEqual(this.errors, []);
    const allowed = servers.map(({ port }) => `http://127.0.0.1:${port}`);
    deepStrictEqual([...this.origins].filter((origin) => !allowed.includes(origin)), []);
  }
}

async function node(context, ...options) {
  const server = await Server.start(options);
  context.after(() => server.kill());
  return server;
}

describe('demo', { concurrency: 3 }, () => {
  test('what is cut and reloaded arrives whole', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    await demo.startLong();
    await demo.token(20);
    await demo.button('Cut the connection').click();
    await demo.happened('cut');
    await demo.happened('open', 2);
    const replayed = await demo.figure('replayed');
    await demo.button('Reload the page').click();
    await demo.happened('reload');
    await demo.happened('open', 3);
    await demo.token((await demo.last()) + 20);
    await demo.stop();
    ok((await demo.figure('replayed')) >= replayed, 'a reload keeps what was counted');
    strictEqual(await demo.figure('gaps'), 0);
    strictEqual(await demo.figure('requests'), 3);
    demo.isClean(server);
  });

  test('the text is followed to its end, but for a reader who has scrolled back', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    const text = demo.page.locator('#text');
    const distance = () => text.evaluate(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight);
    await demo.startLong();
    await demo.token(200);
    await demo.page.waitForFunction(() => {
      const { scrollHeight, scrollTop, clientHeight } = document.getElementById('text');
      return scrollTop > 0 && scrollHeight - scrollTop - clientHeight < 40;
    });
    await text.evaluate((text) => text.scrollTo(0, 10));
    await demo.token((await demo.last()) + 40);
    strictEqual(await text.evaluate(({ scrollTop }) => scrollTop), 10);
    await text.evaluate((text) => text.scrollTo(0, text.scrollHeight));
    await demo.stop();
    ok((await distance()) < 40, 'who comes back to the end follows again');
  });

  test('a page that is offline comes back at once', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    await demo.startLong();
    await demo.token(10);
    await demo.button('Go offline').click();
    await demo.happened('offline');
    const before = await demo.last();
    await demo.button('Come back online').click();
    await demo.token(before + 1);
    // The browser itself, this time.
    await demo.page.context().setOffline(true);
    await demo.happened('offline', 2);
    await demo.page.context().setOffline(false);
    await demo.happened('online', 2);
    await demo.token((await demo.last()) + 20);
    await demo.stop();
    demo.isClean(server);
  });

  test('a second tab replays the stream, and one of them stops both', async (context) => {
    const server = await node(context);
    const first = await Demo.open(context, server);
    await first.startLong();
    await first.token(30);
    const link = first.page.getByRole('link', { name: 'Open a second tab' });
    const second = await Demo.inProfile(first.page.context(), await link.evaluate(({ href }) => href));
    await second.token(30);
    ok((await second.figure('replayed')) > 30, 'it replays from the start');
    await second.button('Cut the connection').click();
    match(await second.page.getByText('The server cuts').textContent(), /cuts 2 connections/);
    await Promise.all([first, second].map((demo) => demo.happened('cut')));
    await second.happened('open', 2);
    await second.button('Stop').click();
    for (const demo of [first, second]) {
      await demo.ended('cancelled');
      await demo.isWhole((await demo.last()) + 1);
      demo.isClean(server);
    }
    strictEqual(await first.last(), await second.last());
  });

  test('a lost cursor is a gap, and the text is whole all the same', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    await demo.startLong();
    await demo.token(20);
    await demo.button('Lose the cursor').click();
    await demo.happened('gap');
    await demo.token(40);
    await demo.stop();
    strictEqual(await demo.figure('gaps'), 1);
    demo.isClean(server);
  });

  test('events that the log has dropped are told as lost, and a page that was away learns of the end', async (context) => {
    const server = await node(context, '--max-events', '20');
    const demo = await Demo.open(context, server);
    await demo.start({ n: 300, rate: 40 });
    await demo.token(20);
    await demo.button('Go offline').click();
    await demo.happened('offline');
    await server.ended(new URL(demo.page.url()).searchParams.get('stream'));
    await demo.button('Come back online').click();
    await demo.ended('completed');
    strictEqual(await demo.figure('gaps'), 1);
    match(await demo.page.locator('#verdict').textContent(), /· 0 missing · 0 twice · [1-9]\d* told as lost$/);
    match(await demo.page.locator('#text .gap').textContent(), /[1-9]\d* events lost/);
    strictEqual(await demo.last(), 299);
    demo.isClean(server);
  });

  test('the page understands the server in each voice', async (context) => {
    const voices = { json: 'cancelled', openai: 'cancelled', silent: 'ended' };
    const follow = async ([voice, end]) => {
      const server = await node(context, '--voice', voice);
      const demo = await Demo.open(context, server);
      await demo.startLong();
      await demo.token(10);
      await demo.button('Cut the connection').click();
      await demo.happened('open', 2);
      await demo.stop(end);
      demo.isClean(server);
    };
    await Promise.all(Object.entries(voices).map(follow));
  });

  test('when its node goes the page goes on with the other one', async (context) => {
    const redis = await Redis.start();
    context.after(() => redis.stop());
    const nodes = await Promise.all(
      [0, 1].map(() => node(context, '--store', redis.url, '--stale', '2', '--sweep', '0.5')),
    );
    for (const [end, outcome] of [
      ['drain', 'completed'],
      ['kill', 'orphaned'],
    ]) {
      const [goes, stays] = nodes;
      const demo = await Demo.open(context, goes);
      await demo.button('Kill the node').click();
      await demo.page.getByLabel('Tell this page where the other node is').fill(`http://127.0.0.1:${stays.port}`);
      await demo.button('Use it').click();
      await demo.start({ n: 300, rate: 40 });
      await demo.token(30);
      await goes[end]();
      await demo.happened('node');
      await demo.ended(outcome);
      const last = await demo.last();
      await demo.isWhole(last + 1);
      if (outcome === 'completed') strictEqual(last, 299);
      strictEqual(await demo.page.locator('#node').textContent(), `127.0.0.1:${stays.port}`);
      demo.isClean(goes, stays);
      if (end === 'drain') strictEqual(await goes.exitCode(), 0);
      await goes.kill();
      await goes.startAgain();
    }
  });

  test('everybody can find and use everything', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    const { page } = demo;
    strictEqual(await page.getByRole('heading', { level: 1 }).count(), 1);
    for (const name of ['banner', 'main', 'contentinfo']) strictEqual(await page.getByRole(name).count(), 1, name);
    for (const name of ['Generate', 'Break it', 'This connection', 'What arrived, and when', 'The answer', 'What happened', /^This node/]) {
      ok((await page.getByRole('region', { name }).count()) >= 1, `a region "${name}"`);
    }
    for (const name of ['Text', 'Events', 'A second']) strictEqual(await page.getByRole('combobox', { name, exact: true }).count(), 1, name);
    strictEqual(await page.getByRole('log', { name: 'What happened' }).count(), 1);
    match(await page.getByRole('img', { name: /arrived/ }).first().getAttribute('aria-label'), /Nothing has arrived/);
    // What can be pressed has a name, and by the keyboard everything is reached that is enabled.
    for (const control of await page.locator('button, a, select, input').all()) {
      const name = await control.evaluate((node) => (node.labels?.[0] ?? node).textContent.trim());
      ok(name, `a name for ${await control.evaluate((node) => node.outerHTML)}`);
    }
    await demo.button('Start').focus();
    await page.keyboard.press('Enter');
    await demo.token(1);
    const reached = [];
    for (const wanted of ['stop', 'cut', 'offline', 'reload', 'lose', 'tab', 'kill']) {
      await page.keyboard.press('Tab');
      reached.push(await page.evaluate(() => document.activeElement.id));
      strictEqual(reached.at(-1), wanted);
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      strictEqual(outline, 'solid', `the focus on ${wanted} can be seen`);
    }
    await page.keyboard.press('Enter');
    ok(await page.getByRole('dialog', { name: 'Kill the node' }).isVisible());
    await page.keyboard.press('Escape');
    strictEqual(await page.evaluate(() => document.activeElement.id), 'kill', 'the focus comes back');
    match(await page.getByRole('img', { name: /arrived live/ }).first().getAttribute('aria-label'), /^Events over time/);
    demo.isClean(server);
  });

  test('it fits a phone, and its colours can be told from their grounds', async (context) => {
    const server = await node(context);
    const demo = await Demo.open(context, server);
    const { page } = demo;
    for (const width of [360, 390, 768, 1100, 1440]) {
      await page.setViewportSize({ width, height: 800 });
      const room = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      ok(room <= 0, `${room} pixels stick out at a width of ${width}`);
    }
    const pairs = [
      ...['ink', 'muted', 'live', 'replayed', 'broken', 'good'].flatMap((text) => [[text, 'card'], [text, 'paper']]),
      ['ink', 'replayed-wash'], ['broken', 'broken-wash'], ['good', 'good-wash'], ['live', 'live-wash'], ['on-action', 'action'],
    ];
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme });
      for (const [text, ground] of pairs) {
        const [one, other] = await page.evaluate((names) => {
          const style = getComputedStyle(document.documentElement);
          return names.map((name) => style.getPropertyValue(`--${name}`).trim());
        }, [text, ground]);
        const ratio = contrast(one, other);
        ok(ratio >= 4.5, `${text} on ${ground}, ${colorScheme}: ${one} on ${other} is ${ratio.toFixed(2)}`);
      }
    }
  });
});

/** The contrast of two colours `#rrggbb` (WCAG 2.2, relative luminance). */
function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(color) {
  const [r, g, b] = color.match(/[0-9a-f]{2}/gi).map((pair) => {
    const part = parseInt(pair, 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
