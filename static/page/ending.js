// Owns the notice that the server will end the conversation, and its countdown.

import { countdown } from './strings.js';

const TICK_MS = 250;

export class Ending {
  #element;
  #timer = 0;

  /** @param {HTMLElement} element  not a live region: a countdown read aloud would drown the conversation */
  constructor(element) {
    this.#element = element;
  }

  show(in_ms) {
    this.hide();
    const at_ms = performance.now() + in_ms;
    const tick = () => {
      const text = countdown(Math.max(Math.ceil((at_ms - performance.now()) / 1000), 0));
      if (this.#element.textContent !== text) this.#element.textContent = text;
    };
    tick();
    this.#timer = setInterval(tick, TICK_MS);
    this.#element.hidden = false;
  }

  hide() {
    clearInterval(this.#timer);
    this.#element.hidden = true;
  }
}
