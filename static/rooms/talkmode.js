// Owns when the microphone is heard: always but for "mute", or only while a button or the space bar is held. Pure.

export class TalkMode {
  #push;
  #muted = false;
  #held = new Set();

  /** @param {boolean} push  push to talk */
  constructor(push) {
    this.#push = push;
  }

  get push() {
    return this.#push;
  }

  set push(push) {
    this.#push = push;
    this.#held.clear();
  }

  get held() {
    return this.#held.size > 0;
  }

  /** Whether the server is to hear silence. */
  get muted() {
    return this.#push ? !this.held : this.#muted;
  }

  /** Of the open microphone. */
  toggle() {
    this.#muted = !this.#muted;
  }

  /** @param {string} what  that holds: more than one may */
  hold(what) {
    if (this.#push) this.#held.add(what);
  }

  release(what) {
    this.#held.delete(what);
  }

  /** The window has gone, and with it the news that a key was let go. */
  releaseAll() {
    this.#held.clear();
  }
}
