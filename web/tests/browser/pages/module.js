// The browser module.
import { ResilientEventSource } from '/resilient-sse.js';
import { headers } from '/token.js';

const NAMES = ['message', 'completed', 'failed', 'cancelled', 'orphaned', 'expired'];

export function watch({ url, options = {}, signsIn }, report, reportEvent) {
  if (signsIn) options.headers = headers;
  let source;
  function open() {
    source = new ResilientEventSource(url, options);
    for (const name of NAMES) source.addEventListener(name, reportEvent);
    source.addEventListener('open', () => report({ what: 'open' }));
    source.addEventListener('gap', ({ detail }) => report({ what: 'gap', ...detail }));
    source.addEventListener('restart', () => report({ what: 'restart' }));
    source.addEventListener('statechange', ({ target }) => report({ what: 'state', state: target.state }));
    source.finished.then(
      ({ type }) => report({ what: 'end', name: type }),
      ({ reason, message }) => report({ what: 'gaveup', name: 'gaveup', reason, message }),
    );
  }
  open();
  return {
    stop: () => fetch(url, { method: 'DELETE' }),
    again() {
      options = { ...options, lastEventId: source.lastEventId };
      open();
    },
  };
}
