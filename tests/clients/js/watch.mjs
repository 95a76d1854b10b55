// Watches one event stream as an EventSource does, until that gives up: after the end, when it is told that there is no more.
export function watch(EventSource, url) {
  return new Promise((resolve) => {
    const saw = { opens: 0, errors: 0, events: [] };
    const source = new EventSource(url);
    const note = (event) => saw.events.push({ name: event.type, data: event.data, id: event.lastEventId });
    for (const name of ['message', 'gap', 'restart', 'completed', 'failed', 'cancelled', 'orphaned', 'expired']) {
      source.addEventListener(name, note);
    }
    source.onopen = () => (saw.opens += 1);
    source.onerror = () => {
      saw.errors += 1;
      if (source.readyState === EventSource.CLOSED) resolve(saw);
    };
  });
}

// Watches each of these, and reports what it saw.
export async function watchAll(EventSource, base, paths) {
  const saw = await Promise.all(paths.map((path) => watch(EventSource, base + path)));
  await fetch(base + '/report', { method: 'POST', body: JSON.stringify(saw) });
}
