// Owns which numbered events have been heard. After a resume the server sends again what it thinks was missed, and
// some of it may come twice. No IO.

// As many as the server keeps: what is further behind does not come any more.
const KEPT = 256;

export class Sequence {
  #last = 0;
  #ahead = new Set();

  /** The highest number up to which nothing is missing. */
  get last() {
    return this.#last;
  }

  /** @returns {boolean} whether it is the first time. What has no number is always new. */
  take(seq) {
    if (!Number.isSafeInteger(seq)) return true;
    if (seq <= this.#last || this.#ahead.has(seq)) return false;
    this.#ahead.add(seq);
    if (this.#ahead.size > KEPT) this.#last = Math.min(...this.#ahead) - 1;
    while (this.#ahead.delete(this.#last + 1)) this.#last += 1;
    return true;
  }
}
