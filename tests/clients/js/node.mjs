// npm's `eventsource`, given the server's URL.
import { EventSource } from 'eventsource';
import { watchAll } from './watch.mjs';

const [base, ...paths] = process.argv.slice(2);
// `eventsource` does not keep the process alive while it waits to reconnect.
const alive = setInterval(() => {}, 1000);
await watchAll(EventSource, base, paths);
clearInterval(alive);
