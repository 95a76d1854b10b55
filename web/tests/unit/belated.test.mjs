// A page that was frozen learns of its lost connection only after it is seen again.
import assert from 'node:assert/strict';
import { test } from 'node:test';

globalThis.document = Object.assign(new EventTarget(), { visibilityState: 'visible', baseURI: 'http://stream.test/' });
const { ResilientEventSource } = await import('../../resilient-sse.js');

test('a connection that fails just after the page is seen again is replaced at once', { timeout: 10_000 }, async () => {
  let cut;
  let asked;
  const askedAgain = new Promise((resolve) => (asked = resolve));
  const fetch = async () => {
    if (cut) asked();
    const body = new ReadableStream({
      start(controller) {
        cut ??= () => controller.error(new TypeError('network error'));
      },
    });
    return new Response(body, { headers: { 'content-type': 'text/event-stream' } });
  };
  // Whoever waits out such a delay is late.
  const source = new ResilientEventSource('/answers/42', { fetch, minDelay: 600_000 });
  await new Promise((resolve) => source.addEventListener('open', resolve));
  document.dispatchEvent(new Event('visibilitychange'));
  cut();
  await askedAgain;
  source.close();
});
