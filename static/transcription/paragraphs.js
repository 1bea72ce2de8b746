// Owns what was said, as data: words in, paragraphs out, on one timeline over all sessions and files. Bounded: the
// oldest paragraphs go. Knows no page; what a file of it looks like is captions.js.

// At three words a second it takes eighteen hours to say so many; they take about 20 MB.
export const KEPT_WORDS = 200_000;
// A turn ends here where the model does not say that it does…
const PAUSE_MS = 2_000;
// …and here, so that a speaker who never pauses can be read: after a sentence where there is one.
const LONG_WORDS = 120;
const LONGEST_WORDS = 250;
const PENDING_ENDS = 64;
const SENTENCE_END = /[.?!…。？！]$/u;

/**
 * @typedef {import('./captions.js').Word} Word
 * @typedef {{id: number, title: string, words: Word[], closed: boolean}} Paragraph
 *   `id` counts up by one; `title`: of a part, in its first paragraph; `closed`: its turn has ended
 */

export class Paragraphs {
  #kept;
  #list = [];
  #count = 0;
  #ids = 0;
  #offset_ms = 0;
  #title = '';
  #apart = true;
  // Ends of turns that are later than the last word: words that were said before them may still come.
  #ends = [];
  #dropped = false;

  constructor(kept = KEPT_WORDS) {
    this.#kept = kept;
  }

  /** @returns {readonly Paragraph[]} */
  get list() {
    return this.#list;
  }

  get empty() {
    return this.#list.length === 0;
  }

  /** Whether the oldest words are gone. */
  get dropped() {
    return this.#dropped;
  }

  /** Where the last word ends. */
  get end_ms() {
    return this.#list.at(-1)?.words.at(-1).end_ms ?? 0;
  }

  /** The next words belong to another session, whose times begin at 0: it follows upon what there is. */
  begin(title = '') {
    this.end();
    this.#title = title;
    this.#offset_ms = Math.ceil(this.end_ms / 1000) * 1000;
  }

  /** @param {Word} word @returns {Paragraph} the one that it is in now, at the end */
  add({ text, start_ms, end_ms }) {
    const word = { text, start_ms: start_ms + this.#offset_ms, end_ms: Math.max(end_ms, start_ms) + this.#offset_ms };
    const turnEnded = this.#ends.some((at_ms) => at_ms <= word.start_ms);
    this.#ends = this.#ends.filter((at_ms) => at_ms > word.start_ms);
    if (turnEnded || this.#apart || this.#breaksBefore(word)) this.#open();
    const paragraph = this.#list.at(-1);
    paragraph.words.push(word);
    this.#count += 1;
    this.#forget();
    return paragraph;
  }

  /** @returns {Paragraph|null} the one that this closes */
  turnEnded(at_ms) {
    // Words of it may be under way, even all of them, for a model writes later than a detector hears.
    this.#ends = [...this.#ends, at_ms + this.#offset_ms].slice(-PENDING_ENDS);
    return this.#close();
  }

  /** Nothing more comes of this session. @returns {Paragraph|null} the one that this closes */
  end() {
    this.#ends = [];
    this.#apart = true;
    return this.#close();
  }

  /** Times go on as they are: a session may be under way. */
  clear() {
    this.end();
    this.#list = [];
    this.#count = 0;
    this.#title = '';
    this.#dropped = false;
  }

  #breaksBefore(word) {
    const { words } = this.#list.at(-1);
    const last = words.at(-1);
    if (word.start_ms - last.end_ms >= PAUSE_MS || words.length >= LONGEST_WORDS) return true;
    return words.length >= LONG_WORDS && SENTENCE_END.test(last.text);
  }

  #open() {
    this.#close();
    this.#ids += 1;
    this.#list.push({ id: this.#ids, title: this.#title, words: [], closed: false });
    this.#title = '';
    this.#apart = false;
  }

  #close() {
    const last = this.#list.at(-1);
    if (!last || last.closed) return null;
    last.closed = true;
    return last;
  }

  #forget() {
    while (this.#count > this.#kept && this.#list.length > 1) {
      this.#count -= this.#list.shift().words.length;
      this.#dropped = true;
    }
  }
}
