// Owns when to try again: how long to wait, and when to stop. Time and chance are arguments; there is no clock in here.

const FIRST_MS = 500;
const LONGEST_MS = 8_000;
// While a session waits to be resumed, its grace runs out meanwhile.
const HURRY_MS = 2_000;
const GIVE_UP_MS = 60_000;
// A connection that held this long was a good one: the next loss starts from the beginning.
const SETTLED_MS = 10_000;

/** Doubles from 0.5 s to `longest_ms`; `random` (0 to 1) spreads it over the upper half, so that a thousand pages do not come back at once. */
export function backoffMs(attempt, random, longest_ms = LONGEST_MS) {
  const whole = Math.min(FIRST_MS * 2 ** attempt, longest_ms);
  return whole * (0.5 + random / 2);
}

/** Whether a connection that lasted so long ends a spell of trouble. */
export const settled = (connectedFor_ms) => connectedFor_ms >= SETTLED_MS;

/** One spell of trouble, which several losses in a row share. */
export class Trouble {
  #until_ms;
  #attempts = 0;

  /** @param {number} [patience_ms]  what a conversation that waits to be resumed is worth, where that is longer */
  constructor(now_ms, patience_ms = 0) {
    this.#until_ms = now_ms + Math.max(GIVE_UP_MS, patience_ms);
  }

  get attempts() {
    return this.#attempts;
  }

  left_ms(now_ms) {
    return this.#until_ms - now_ms;
  }

  /**
   * How long to wait before the next attempt, in ms; null when it is time to give up.
   * @param {{retryAfterS?: number, hurry?: boolean}} how  `hurry`: a session waits for us; the first attempt waits for nothing
   */
  next(now_ms, random, { retryAfterS = 0, hurry = false } = {}) {
    const attempt = this.#attempts;
    const pause_ms = hurry ? (attempt > 0 ? backoffMs(attempt - 1, random, HURRY_MS) : 0) : backoffMs(attempt, random);
    const wait_ms = Math.max(pause_ms, retryAfterS * 1000);
    if (wait_ms > this.left_ms(now_ms)) return null;
    this.#attempts += 1;
    return wait_ms;
  }
}
