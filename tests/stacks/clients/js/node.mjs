// A client from npm, by its package's name, given the server's URL.
import { watchAll } from './watch.mjs';

const [name, base, ...paths] = process.argv.slice(2);
// A client need not keep the process alive while it waits to reconnect.
const alive = setInterval(() => {}, 1000);
if (name === 'event-source-polyfill') {
  const { EventSourcePolyfill } = (await import(name)).default;
  // It comes again after 204.
  await watchAll(EventSourcePolyfill, base, paths, true);
} else {
  const { EventSource } = await import(name);
  await watchAll(EventSource, base, paths);
}
clearInterval(alive);
