// Owns a countdown in whole seconds, for a sentence that says when something happens.

const TICK_MS = 250;

export class Countdown {
  #timer = 0;

  /** @param {(left_s: number) => void} show  at once, and whenever the number is another */
  start(wait_ms, show) {
    this.stop();
    const until_ms = performance.now() + wait_ms;
    let shown = null;
    const tick = () => {
      const left_s = Math.max(Math.ceil((until_ms - performance.now()) / 1000), 0);
      if (left_s === shown) return;
      shown = left_s;
      show(left_s);
    };
    this.#timer = setInterval(tick, TICK_MS);
    tick();
  }

  stop() {
    clearInterval(this.#timer);
  }
}
