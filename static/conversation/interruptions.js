// Owns whether something else has the sound: a phone call, Siri, another app. Phones take it away in several ways at
// once (the microphone's track is muted, the AudioContext is "interrupted", the <audio> element is paused), and not
// all of them come back by themselves.

export class Interruptions {
  #reasons = new Set();
  #on;

  /** @param {{paused: (p: boolean) => void, over: () => void}} on  `over`: everything has to be set going again */
  constructor(on) {
    this.#on = on;
  }

  get paused() {
    return this.#reasons.size > 0;
  }

  /** @param {string} reason  whatever tells the ways apart */
  note(reason, present) {
    if (this.#reasons.has(reason) === present) return;
    const before = this.paused;
    if (present) this.#reasons.add(reason);
    else this.#reasons.delete(reason);
    if (before !== this.paused) this.#on.paused(this.paused);
    // One way back is a hint that the others may come back as well.
    if (!present) this.#on.over();
  }

  clear() {
    this.#reasons.clear();
  }
}
