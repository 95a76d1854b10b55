// The snippets of the README's section "Clients", as they stand there: each follows a stream whose connection is cut.
import { deepStrictEqual, match, strictEqual } from 'node:assert';
import { after, before, describe, test } from 'node:test';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Browser } from './harness/browser.mjs';
import { bundle } from './harness/bundle.mjs';
import { PATIENCE } from './harness/log.mjs';
import { addPage } from './harness/pages.mjs';
import { makeFolder, Program, removeFolder } from './harness/process.mjs';
import { World } from './harness/world.mjs';
import { AFTER_TEN } from './faults/stream.mjs';

const README = await readFile(new URL('../../../README.md', import.meta.url), 'utf8');

function snippet(name) {
  const found = new RegExp(`<!-- snippet: ${name} -->\n\`\`\`\\w+\n([^]*?)\n\`\`\`\n`).exec(README);
  if (!found) throw new Error(`README.md has no snippet ${name}`);
  return found[1];
}

const shared = {};
before(async () => {
  shared.browser = await Browser.start();
  shared.folder = await makeFolder('snippets');
});
after(async () => {
  await shared.browser?.stop();
  await removeFolder(shared.folder);
});

/** Twenty words of the stream that the snippets follow, and their text. */
async function told(context, headers = {}) {
  const world = await World.open(context, shared);
  const node = await world.node();
  const body = await (await node.fetch('/api/stream/demo?n=20&rate=0', { headers })).text();
  const tokens = [...body.matchAll(/^data: (.*"type":"token".*)$/gm)].map(([, json]) => JSON.parse(json));
  strictEqual(tokens.length, 20);
  world.front.stops.push(AFTER_TEN);
  return { world, words: tokens.map(({ data }) => data.text) };
}

/** Opens a page, cuts its connection once it shows ten words, and waits for all of them. */
async function follows({ world, words }, path, element, end = '') {
  const page = await world.page(path);
  const shows = (expected) =>
    page.waitForFunction(
      ([selector, text]) => document.querySelector(selector)?.textContent === text,
      [element, expected],
      { timeout: PATIENCE },
    );
  await shows(words.slice(0, 10).join(''));
  world.front.drop();
  await shows(words.join('') + end);
}

describe('snippets', { concurrency: true }, () => {
  test('EventSource', async (context) => {
    addPage('/native', snippet('native'));
    await follows(await told(context), '/native', '#answer');
  });

  test('the module', async (context) => {
    addPage('/module', snippet('module'));
    await follows(await told(context, { 'x-user-id': 'ada' }), '/module', '#answer', ' [completed]');
  });

  test('the hook', async (context) => {
    await writeFile(join(shared.folder, 'answer.jsx'), snippet('hook'));
    const main = join(shared.folder, 'main.jsx');
    await writeFile(main, `
      import { createRoot } from 'react-dom/client';
      import { Answer } from './answer.jsx';
      createRoot(document.querySelector('main')).render(<Answer id="demo" />);
    `);
    addPage('/hook', `<main></main><script type="module">${await bundle(main, '.')}</script>`);
    await follows(await told(context), '/hook', 'article p');
  });

  test('curl', async (context) => {
    const { world, words } = await told(context);
    const script = snippet('curl').replaceAll('http://127.0.0.1:3000', world.front.origin);
    const options = { cwd: shared.folder, install: 'apt-get install -y curl' };
    const shell = new Program('bash', ['-c', script], options);
    context.after(() => shell.kill());
    await shell.says(/"s":9,/, 'ten words');
    world.front.drop();
    await shell.says(/^event: completed$/, 'the end');
    strictEqual((await shell.exited()).code, 0);
    const lines = shell.lines.entries;
    match(lines.join('\n'), /curl: \(18\)/);
    const numbers = lines.flatMap((line) => /^data: \{"s":(\d+),.*\}$/.exec(line)?.[1] ?? []);
    deepStrictEqual(numbers.map(Number), words.map((_, index) => index));
  });
});
