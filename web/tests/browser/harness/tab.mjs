// A tab of the browser, and what its page says of the stream that it watches.
import { deepStrictEqual, ok, strictEqual } from 'node:assert';
import { Log } from './log.mjs';

const tabs = new WeakMap();

export class Tab {
  /** What the page reports: `{ what: 'event' | 'open' | 'state' | 'gap' | 'restart' | 'end' | 'gaveup', … }`. */
  lines = new Log();
  page;

  /** Gives the pages of a context the function by which they report. */
  static prepare(context) {
    return context.exposeBinding('report', ({ page }, line) => tabs.get(page)?.lines.add(line));
  }

  static async open(context, origin, settings) {
    const tab = new Tab();
    tab.page = await context.newPage();
    tabs.set(tab.page, tab);
    tab.page.on('pageerror', (error) => tab.lines.add({ what: 'pageerror', error: String(error) }));
    await tab.page.goto(`${origin}/page?settings=${encodeURIComponent(JSON.stringify(settings))}`);
    return tab;
  }

  /** The events with a number, in the order in which they came. */
  get events() {
    return this.lines.entries.filter(isNumbered);
  }

  get numbers() {
    return this.events.map(({ s }) => s);
  }

  /** Lines of one sort. */
  all(what) {
    return this.lines.entries.filter((line) => line.what === what);
  }

  /** Waits until the page has seen so many events, and returns the last one. */
  seen(count) {
    return this.lines.until((lines) => lines.filter(isNumbered)[count - 1], `event ${count}`);
  }

  /** Waits for a line of this sort. */
  said(what, holds = () => true) {
    return this.lines.until((lines) => lines.find((line) => line.what === what && holds(line)), `"${what}"`);
  }

  /** Waits for the next line of this sort, from now on. */
  next(what, holds = () => true) {
    const old = new Set(this.lines.entries);
    return this.said(what, (line) => !old.has(line) && holds(line));
  }

  /** Forgets what a test has dealt with. */
  forget(dealtWith) {
    this.lines.entries = this.lines.entries.filter((line) => !dealtWith(line));
  }

  /** Waits until the source is done: at the end of its stream, or because it gave up. */
  last() {
    return this.lines.until((lines) => lines.find(isLast), 'the end');
  }

  /** Waits for the end, and checks that it is this one. */
  async ends(name) {
    const end = await this.last();
    strictEqual(end.name, name, `how it ends; so far:\n${this.lines}`);
    return end;
  }

  /** Every event from `first` up to `end` once, in order, with rising ids, and no word of a loss. */
  isWhole(end, first = 0) {
    const expected = Array.from({ length: end - first }, (_, index) => first + index);
    deepStrictEqual(this.numbers, expected, `the events' numbers; so far:\n${this.lines}`);
    deepStrictEqual([this.all('gap'), this.all('restart'), this.all('pageerror')], [[], [], []]);
    const ids = this.events.map(({ id }) => id);
    ok(ids.every((id) => ID.test(id)), `events without an id of the server's; so far:\n${this.lines}`);
    ok(ids.every((id, index) => index === 0 || isAfter(id, ids[index - 1])), `ids that do not rise: ${ids}`);
  }

  evaluate(body, argument) {
    return this.page.evaluate(body, argument);
  }
}

function isNumbered(line) {
  return line.what === 'event' && Number.isInteger(line.s);
}

function isLast(line) {
  return line.what === 'end' || line.what === 'gaveup';
}

const ID = /e(\d+)-(\d+)$/;

/** Whether an id `e<epoch>-<seq>` comes after another one. */
function isAfter(id, other) {
  const [epoch, seq] = parts(id);
  const [otherEpoch, otherSeq] = parts(other);
  return epoch > otherEpoch || (epoch === otherEpoch && seq > otherSeq);
}

function parts(id) {
  return ID.exec(id).slice(1).map(Number);
}
