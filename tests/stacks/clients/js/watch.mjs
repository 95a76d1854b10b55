// Watches one event stream as an EventSource does, until that gives up: after the end, when it is told that there is no more.
// Where a client does not understand that, it is closed at the end.
function watch(EventSource, url, closes) {
  return new Promise((resolve) => {
    const saw = { opens: 0, errors: 0, events: [] };
    const source = new EventSource(url);
    const note = (event) => saw.events.push({ name: event.type, data: event.data, id: event.lastEventId });
    const noteEnd = (event) => {
      note(event);
      if (!closes) return;
      source.close();
      resolve(saw);
    };
    for (const name of ['message', 'gap', 'restart']) source.addEventListener(name, note);
    for (const name of ['completed', 'failed', 'cancelled', 'orphaned', 'expired']) source.addEventListener(name, noteEnd);
    source.onopen = () => (saw.opens += 1);
    source.onerror = () => {
      saw.errors += 1;
      if (source.readyState === EventSource.CLOSED) resolve(saw);
    };
  });
}

// Watches each of these, and reports what it saw.
export async function watchAll(EventSource, base, paths, closes = false) {
  const saw = await Promise.all(paths.map((path) => watch(EventSource, base + path, closes)));
  await fetch(base + '/report', { method: 'POST', body: JSON.stringify(saw) });
}
