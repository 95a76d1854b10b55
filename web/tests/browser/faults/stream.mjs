// What the cases know of the streams of the example server.
import { after } from '../harness/front.mjs';

/**
 * Where the front lets a stream fall silent: in the middle of the event that follows the first ten. So no stream ends before the fault
 * that it is to meet, however slow the machine is.
 */
export const AFTER_TEN = after('"s":10,');

/** A stream that lasts for longer than any test. */
export const UNTIL_STOPPED = '/api/stream/a?n=10000&rate=20';

/** The numbers of so many events. */
export function count(end) {
  return Array.from({ length: end }, (_, number) => number);
}

/** The cursors with which a front was asked. */
export function cursors({ requests }) {
  return requests.entries.map(({ cursor }) => cursor);
}

/** The statuses with which its requests were answered. */
export function statuses({ requests }) {
  return requests.entries.map(({ status }) => status);
}
