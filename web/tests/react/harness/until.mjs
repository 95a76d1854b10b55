import assert from 'node:assert/strict';

/**
 * Waits for a condition, and fails where it does not come true in time.
 * @param {() => unknown} condition
 * @param {string} what
 */
export async function until(condition, what, limit = 10_000) {
  const deadline = Date.now() + limit;
  for (;;) {
    const value = condition();
    if (value) return value;
    if (Date.now() > deadline) assert.fail(`${what}: not within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
