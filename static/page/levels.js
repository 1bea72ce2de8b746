// Owns the levels that are drawn while a conversation runs, and the suspicion that a microphone is switched off.

// Even a quiet room is louder than this; less for so long is a microphone that is off.
const DEAD_DBFS = -85;
const DEAD_AFTER_MS = 6_000;
// A picture of the meters with each of the screen's would be half of all that a page in conversation computes.
const EVERY_MS = 40;

export class Levels {
  #meters;
  #on;
  #heard = false;
  #frame = 0;
  #timer = 0;

  /**
   * @param {import('./meter.js').Meters} meters  with `mic` and `voice`
   * @param {{active: () => boolean, open: () => boolean, level: (name: 'mic'|'voice', share: number, now_ms: number) => void,
   *          silence: (silent: boolean) => void}} on
   *   `active`: whether to go on drawing; `open`: whether the microphone is to be heard; `silence`: nothing comes from it
   */
  constructor(meters, on) {
    this.#meters = meters;
    this.#on = on;
  }

  /** Another microphone: one that was never heard. */
  another() {
    this.#heard = false;
  }

  start() {
    let before_ms = performance.now();
    let heard_ms = before_ms;
    const draw = (now_ms) => {
      const active = this.#on.active();
      const elapsed_s = Math.max(now_ms - before_ms, 0) / 1000;
      before_ms = now_ms;
      const microphone = this.#meters.read('mic', elapsed_s);
      this.#on.level('mic', microphone.share, now_ms);
      this.#on.level('voice', this.#meters.read('voice', elapsed_s).share, now_ms);
      if (!active) return;

      // One that was heard is not off: some send nothing at all between phrases.
      this.#heard ||= microphone.dbfs > DEAD_DBFS;
      if (!this.#on.open() || !this.#meters.running || this.#heard) heard_ms = now_ms;
      this.#on.silence(now_ms - heard_ms > DEAD_AFTER_MS);
      this.#timer = setTimeout(() => { this.#frame = requestAnimationFrame(draw); }, EVERY_MS);
    };
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(draw);
  }
}
