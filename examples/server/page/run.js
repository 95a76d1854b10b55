/**
 * What this tab has seen of one stream: a plain record, which survives a reload in `sessionStorage`.
 *
 * The cursor is part of it, so that text and cursor never disagree, even after a crash. A page that keeps no text has it
 * easier: the browser module's option `storage` keeps the cursor alone.
 *
 * Times are milliseconds since the tab first asked for the stream.
 */
export class Run extends EventTarget {
  /** What the stream is: `{ id, n, rate, file }`. */
  plan;
  /** Whether this tab has begun the stream, so that nothing of it can be recorded before. */
  isOwn = false;
  /** The id of the last event that was dealt with. */
  cursor = '';
  /** The text's tokens by their number: `{ text, replayed }`. @type {Array<{ text: string, replayed: boolean }>} */
  tokens = [];
  /** Every arrival of a token, in order: `{ at, s, replayed }`. @type {Array<{ at: number, s: number, replayed: boolean }>} */
  arrivals = [];
  /** How many tokens came although they had come before. */
  twice = 0;
  /** The connection's states: `{ at, state }`, where `state` is the module's, or `offline`. */
  states = [];
  /** What happened, in words: `{ at, kind, words, s }`, where `s` counts the tokens by then. */
  happenings = [];
  /** The tokens that the server has said are lost: `{ from, to, at }`, both numbers inclusive. */
  lost = [];
  /** How many requests for the stream this tab has made. */
  requests = 0;
  /** How it ended: a terminal event's type, or `gaveup`. @type {string | null} */
  end = null;
  /** How long it ran in this tab, once it has ended. */
  endedAt = null;
  #began = Date.now();

  /** @param {{ id: string, n: number, rate: number, file: string }} plan */
  constructor(plan) {
    super();
    this.plan = plan;
  }

  /** Where the server has the stream. */
  get path() {
    return `/api/stream/${encodeURIComponent(this.plan.id)}`;
  }

  /** The time in this run, now or when it ended. */
  get now() {
    return this.endedAt ?? Date.now() - this.#began;
  }

  /** The tokens that are there: how many, how many of them by replay, and how many lack in between. */
  get count() {
    let [all, replayed] = [0, 0];
    for (const token of this.tokens) {
      if (!token) continue;
      all += 1;
      if (token.replayed) replayed += 1;
    }
    return { all, replayed, live: all - replayed, missing: this.tokens.length - all };
  }

  /** Takes a token in. */
  token(s, text, replayed) {
    if (this.tokens[s]) this.twice += 1;
    this.tokens[s] = { text, replayed };
    this.arrivals.push({ at: this.now, s, replayed });
    this.#changed({ s });
  }

  /** Forgets the tokens from this number on: the server is about to give them again. */
  forget(s) {
    this.tokens.length = Math.min(this.tokens.length, s);
    this.#changed({ redraw: true });
  }

  state(state) {
    if (this.states.at(-1)?.state === state) return;
    this.states.push({ at: this.now, state });
    this.#changed({});
  }

  /** Notes what happened: its kind is one of `start cut offline online open gap restart reload node end note`. */
  happened(kind, words) {
    const happening = { at: this.now, kind, words, s: this.tokens.length };
    this.happenings.push(happening);
    this.#changed({ happening });
  }

  /**
   * @param {string} end a terminal event's type, or `gaveup`
   * @param {string} words
   * @param {number} [tokens] how many there are, where the end says it: those that have not come are missing
   */
  ended(end, words, tokens = this.tokens.length) {
    if (this.end) return;
    this.tokens.length = tokens;
    this.endedAt = this.now;
    this.end = end;
    this.happened('end', words);
  }

  #changed(detail) {
    this.dispatchEvent(new CustomEvent('change', { detail }));
  }

  /** Keeps the record for this tab's next page. */
  save() {
    const record = { ...this, began: this.#began };
    try {
      sessionStorage.setItem(place(this.plan.id), JSON.stringify(record));
    } catch {
      // The storage is full or forbidden: the next page replays the stream from its start.
      sessionStorage.removeItem(place(this.plan.id));
    }
  }

  /** The record that this tab's last page kept of a stream, if it did. */
  static restore(id) {
    const kept = sessionStorage.getItem(place(id));
    if (!kept) return null;
    const { began, ...record } = JSON.parse(kept);
    const run = Object.assign(new Run(record.plan), record);
    run.#began = began;
    return run;
  }
}

function place(id) {
  return `run:${id}`;
}
