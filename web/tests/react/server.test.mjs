/** Rendering on a server: in Node, without a DOM. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createElement as h, StrictMode } from 'react';
import { renderToPipeableStream, renderToString } from 'react-dom/server';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { useResilientSSE } from '../../react.js';
import { serve } from './harness/server.mjs';

function Answer({ url, options }) {
  const { status, data, events, error, lastEventId, gap } = useResilientSSE(url, options);
  return h('p', null, JSON.stringify({ status, data, events, error, lastEventId, gap }));
}

const blank = { data: null, events: [], error: null, lastEventId: null, gap: null };
const shown = (html) => JSON.parse(html.replace(/<[^>]*>/g, '').replaceAll('&quot;', '"'));

test('a server renders what a page begins with, and connects nothing', async (t) => {
  for (const name of ['window', 'document']) assert.equal(typeof globalThis[name], 'undefined');
  const server = await serve(t, (exchange) => exchange.answer(204));
  const url = `${server.url}/chat/42/stream`;
  const render = (props) => shown(renderToString(h(StrictMode, null, h(Answer, props))));
  assert.deepEqual(render({ url }), { status: 'connecting', ...blank });
  assert.deepEqual(render({ url: null }), { status: 'idle', ...blank });
  assert.deepEqual(render({ url, options: { conversation: true } }), { status: 'connecting', ...blank });
  assert.deepEqual(render({ url: '/relative', options: { reduce: (text) => text, initial: 'begun' } }), { status: 'connecting', ...blank, data: 'begun' });

  const stream = renderToPipeableStream(h(Answer, { url })).pipe(new PassThrough());
  assert.deepEqual(shown(await text(stream)), { status: 'connecting', ...blank });
  // A request of this very process would have arrived by now, since this later one has.
  await fetch(server.url);
  assert.equal(server.exchanges.length, 1);
});
