// Owns one meter's element: a level for the eye, and now and then for the ear.

import { loudness } from './strings.js';

const ARIA_INTERVAL_MS = 500;

export class LevelBar {
  #meter;
  #aria_ms = 0;

  /** @param {HTMLElement} meter */
  constructor(meter) {
    this.#meter = meter;
  }

  /** @param {number} share 0 to 1 */
  show(share, now_ms) {
    this.#meter.style.setProperty('--level', share.toFixed(3));
    const value = String(Math.round(share * 100));
    if (value === this.#meter.getAttribute('aria-valuenow')) return;
    // Silence is said at once: it may be the last that is heard of a conversation.
    if (share > 0 && now_ms - this.#aria_ms < ARIA_INTERVAL_MS) return;
    this.#aria_ms = now_ms;
    this.#meter.setAttribute('aria-valuenow', value);
    this.#meter.setAttribute('aria-valuetext', loudness(share));
  }
}
