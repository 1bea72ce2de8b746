// Owns the screen's wake lock, where the browser has one: a phone that locks itself would cut the conversation.

export class Awake {
  #wanted = false;
  #lock = null;

  constructor() {
    // The browser drops the lock whenever the page is hidden.
    document.addEventListener('visibilitychange', () => this.#take());
  }

  hold() {
    this.#wanted = true;
    this.#take();
  }

  release() {
    this.#wanted = false;
    this.#lock?.release().catch(() => {});
    this.#lock = null;
  }

  async #take() {
    if (!this.#wanted || document.visibilityState !== 'visible' || !navigator.wakeLock) return;
    if (this.#lock && !this.#lock.released) return;
    try {
      const lock = await navigator.wakeLock.request('screen');
      if (this.#wanted) this.#lock = lock;
      else await lock.release();
    } catch {
      // Refused, as on a low battery: the conversation works without.
    }
  }
}
