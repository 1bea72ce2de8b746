// Owns the wait for a model that starts: when it is due, and the sentence that counts down to it.

import { starting } from './strings.js';

const TICK_MS = 500;

export class Starting {
  #show;
  #due_ms = null;
  #timer = 0;

  /** @param {() => void} show  the sentence may have changed */
  constructor(show) {
    this.#show = show;
  }

  get sentence() {
    return starting(this.#due_ms === null ? null : Math.ceil(Math.max(this.#due_ms - performance.now(), 0) / 1000));
  }

  /** @param {unknown} eta_ms  null, or what is no number: not known */
  tell(eta_ms) {
    this.#due_ms = Number.isFinite(eta_ms) ? performance.now() + eta_ms : null;
    clearInterval(this.#timer);
    this.#timer = setInterval(this.#show, TICK_MS);
    this.#show();
  }

  stop() {
    clearInterval(this.#timer);
  }
}
