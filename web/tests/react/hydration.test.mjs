/** A page that a server has rendered. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { h, probe } from './harness/page.mjs';
import { serve } from './harness/server.mjs';
import { until } from './harness/until.mjs';
import { hydrateRoot } from 'react-dom/client';
import { renderToString } from 'react-dom/server';

test('a page takes over what the server rendered, without a mismatch, and then connects', async (t) => {
  const complaints = t.mock.method(console, 'error', () => {});
  const server = await serve(t, (exchange) => exchange.stream().count(1, 3));
  const view = probe();
  const element = h(view.Probe, { url: `${server.url}/a`, options: { reduce: (text, { data }) => text + data, initial: '' } });
  const container = document.body.appendChild(document.createElement('main'));
  container.innerHTML = renderToString(element);
  assert.equal(container.textContent, 'connecting ""');
  assert.equal(server.exchanges.length, 0);
  const root = hydrateRoot(container, element, { onRecoverableError: (error) => assert.fail(error) });
  await until(() => container.textContent === 'connected "123"', 'three events');
  root.unmount();
  await until(() => server.open === 0, 'no connection is open');
  assert.equal(server.exchanges.length, 1);
  assert.deepEqual(complaints.mock.calls.map((call) => call.arguments), []);
});
