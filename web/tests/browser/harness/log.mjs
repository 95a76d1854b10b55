// Waiting for what is expected, with a deadline: no test sleeps to be safe.

/** How long anything may take: a browser waits for up to 5 s before each new attempt, and the machine may be busy. */
export const PATIENCE = 60_000;

/** Rejects if the promise is not settled in time; `what` ends the sentence "waited in vain for …". */
export function within(promise, what, patience = PATIENCE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${patience} ms in vain for ${what}`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Entries in the order in which they arrive, and those who wait for some of them. */
export class Log {
  entries = [];
  #waiting = new Set();

  add(entry) {
    this.entries.push(entry);
    for (const check of this.#waiting) check();
  }

  /** Resolves once `holds(entries)` is truthy, with its value. */
  async until(holds, what, patience = PATIENCE) {
    let check;
    const held = new Promise((resolve) => {
      check = () => {
        const value = holds(this.entries);
        if (value) resolve(value);
      };
      this.#waiting.add(check);
      check();
    });
    try {
      return await within(held, what, patience);
    } catch (error) {
      error.message += `; so far:\n${this}`;
      throw error;
    } finally {
      this.#waiting.delete(check);
    }
  }

  /** The latest entries, a line each. */
  toString() {
    return this.entries.slice(-60).map((entry) => `  ${JSON.stringify(entry)}`).join('\n') || '  nothing';
  }
}
