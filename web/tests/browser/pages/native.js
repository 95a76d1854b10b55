// The browser's own EventSource, used as its users do.

const TERMINAL = ['completed', 'failed', 'cancelled', 'orphaned', 'expired'];

export function watch({ url, stays }, report, reportEvent) {
  let source;
  let cursor = '';
  /** Ends what the page watches, unless the server is to say that there is no more. */
  function end(name) {
    report({ what: 'end', name });
    if (!stays) source.close();
  }
  function open(from) {
    source = new EventSource(from);
    source.onopen = () => report({ what: 'open' });
    source.onmessage = (event) => {
      const { type } = take(event);
      if (TERMINAL.includes(type)) end(type);
    };
    for (const name of TERMINAL) {
      source.addEventListener(name, (event) => {
        take(event);
        end(name);
      });
    }
    source.addEventListener('gap', (event) => report({ what: 'gap', ...JSON.parse(event.data) }));
    source.addEventListener('restart', () => report({ what: 'restart' }));
    source.onerror = () => {
      const gaveUp = source.readyState === EventSource.CLOSED;
      report(gaveUp ? { what: 'gaveup', name: 'gaveup' } : { what: 'state', state: 'connecting' });
    };
  }
  function take(event) {
    cursor = event.lastEventId;
    return reportEvent(event);
  }
  open(url);
  return {
    stop: () => fetch(url, { method: 'DELETE' }),
    /** It does not come again once it has given up. A new one does, with its cursor in the query. */
    again: () => open(`${url}${url.includes('?') ? '&' : '?'}last_event_id=${cursor}`),
  };
}
