// Owns when to try again: how long to wait, and when to stop. Time and chance are arguments; there is no clock in here.

const FIRST_MS = 500;
const LONGEST_MS = 8_000;
const GIVE_UP_MS = 60_000;
// A connection that held this long was a good one: the next loss starts from the beginning.
const SETTLED_MS = 10_000;

/** Doubles from 0.5 s to 8 s; `random` (0 to 1) spreads it over the upper half, lest a thousand pages come back at once. */
export function backoffMs(attempt, random) {
  const whole = Math.min(FIRST_MS * 2 ** attempt, LONGEST_MS);
  return whole * (0.5 + random / 2);
}

/** Whether a connection that lasted so long ends a spell of trouble. */
export const settled = (connectedFor_ms) => connectedFor_ms >= SETTLED_MS;

/** One spell of trouble, which several losses in a row share. */
export class Trouble {
  #since_ms;
  #attempts = 0;

  constructor(now_ms) {
    this.#since_ms = now_ms;
  }

  get attempts() {
    return this.#attempts;
  }

  left_ms(now_ms) {
    return this.#since_ms + GIVE_UP_MS - now_ms;
  }

  /** How long to wait before the next attempt, in ms; null when it is time to give up. */
  next(now_ms, random, retryAfterS = 0) {
    const wait_ms = Math.max(backoffMs(this.#attempts, random), retryAfterS * 1000);
    if (wait_ms > this.left_ms(now_ms)) return null;
    this.#attempts += 1;
    return wait_ms;
  }
}
