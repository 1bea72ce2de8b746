// Decides which words of two speakers stand in one line, and in which order the lines stand: by the time at which each
// began to be said. Pure: words may come later than others that were said after them.

// In a longer pause a line ends, so that what the other side said in it can stand between.
export const BREATH_MS = 800;
// Words do not come so late that they would go before older ones.
const KEPT_LINES = 200;

/** Of one conversation. A line is `{side, start_ms, end_ms}`; whoever places words hangs on it what is theirs. */
export class Utterances {
  #lines = [];
  #newest = {};

  /**
   * @param {string} side
   * @param {number} start_ms @param {number} end_ms
   * @returns {{line: object, before: object|null, fresh: boolean}} the line that the words belong to at its end; one
   *   that is `fresh` goes before another, or to the end
   */
  place(side, start_ms, end_ms) {
    const line = this.#newest[side];
    if (line && start_ms - line.end_ms <= BREATH_MS) {
      line.end_ms = Math.max(line.end_ms, end_ms);
      return { line, before: null, fresh: false };
    }
    const fresh = { side, start_ms, end_ms };
    const at = this.#lines.findLastIndex((other) => other.start_ms <= start_ms) + 1;
    const before = this.#lines[at] ?? null;
    this.#lines.splice(at, 0, fresh);
    this.#newest[side] = fresh;
    if (this.#lines.length > KEPT_LINES) this.#lines.shift();
    return { line: fresh, before, fresh: true };
  }
}
