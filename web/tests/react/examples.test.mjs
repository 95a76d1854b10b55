/** The examples of the documentation, as they stand there. */
import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { transformWithOxc } from 'vite';
import { h, mount } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';

/** Takes an example out of a file by the component that it exports, and returns that. */
async function example(t, file, name) {
  const text = (await readFile(new URL(`../../${file}`, import.meta.url), 'utf8')).replaceAll(/^ \* ?/gm, '');
  const [, source] = [...text.matchAll(/^```jsx\n(.*?)^```/gms)].find(([, code]) => code.includes(`export function ${name}(`));
  const { code } = await transformWithOxc(source, `${name}.jsx`, { jsx: { runtime: 'automatic', development: false } });
  const place = new URL(`.${name}-${process.pid}-${file.length}.mjs`, import.meta.url);
  await writeFile(place, code);
  t.after(() => rm(place));
  return (await import(place))[name];
}

/** A server in the place of the page's own: it answers each question with two words. */
async function host(t) {
  const word = (text) => JSON.stringify({ text, data: { text } });
  const server = await serve(t, (exchange) => {
    if (exchange.method === 'DELETE') return exchange.answer(202);
    if (exchange.path.endsWith('/stream')) return exchange.answer(204);
    exchange.stream().event(word('Hello '), { id: 'e1-1' }).event(word('world'), { id: 'e1-2' });
  });
  const base = document.head.appendChild(document.createElement('base'));
  base.href = server.url;
  // A page's own `fetch` knows where relative URLs begin; Node has no page.
  const { fetch } = globalThis;
  globalThis.fetch = (url, init) => fetch(new URL(url, document.baseURI), init);
  t.after(() => {
    globalThis.fetch = fetch;
    base.remove();
  });
  return server;
}

for (const [file, path] of [['react.d.ts', '/api/stream/42'], ['README.md', '/answers/42']]) {
  test(`the answer of ${file}`, async (t) => {
    const server = await host(t);
    const page = mount(t, h(await example(t, file, 'Answer'), { id: 42 }));
    await until(() => page.container.textContent.startsWith('Hello world'), 'the answer');
    assert.equal(server.exchanges[0].path, path);
    page.container.querySelector('button').click();
    await until(() => server.with('DELETE').length === 1 && server.open === 0, 'it is stopped');
    await until(() => page.container.textContent === 'Hello world', 'nothing can be stopped any more');
  });
}

for (const [file, path] of [['react.d.ts', '/api/chat/42'], ['README.md', '/chat/42']]) {
  test(`the chat of ${file}`, async (t) => {
    const server = await host(t);
    const { container } = mount(t, h(await example(t, file, 'Chat'), { id: 42 }));
    const ask = async (question) => {
      const button = await until(() => [...container.querySelectorAll('button')].find((button) => button.textContent === 'Send'), 'one can ask');
      container.querySelector('input').value = question;
      button.click();
    };
    const texts = () => [...container.querySelectorAll('p')].map((shown) => shown.textContent);
    await ask('How?');
    await until(() => texts().join() === 'How?,Hello world', 'the first answer');
    assert.deepEqual([server.with('POST')[0].path, server.with('POST')[0].body], [path, '{"question":"How?"}']);
    server.with('POST')[0].end();
    await ask('And?');
    await until(() => texts().join() === 'How?,Hello world,And?,Hello world', 'the second answer');
  });
}
