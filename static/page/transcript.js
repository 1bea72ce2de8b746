// Owns the transcript's element: a paragraph for each conversation, deltas appended as text, a line for what is said
// after a pause, the end kept in view.

import { newConversation } from './strings.js';

const KEPT_CHARACTERS = 200_000;
const NEAR_THE_END_PX = 48;
const PAUSE_MS = 1500;

export class Transcript {
  #log;
  #empty;
  #paragraph = null;
  #lastMs = 0;

  constructor(log, empty) {
    this.#log = log;
    this.#empty = empty;
  }

  /** The whole text, a blank line between conversations. */
  get text() {
    return [...this.#log.children].map((paragraph) => paragraph.textContent).join('\n\n');
  }

  /** What the empty transcript says. */
  describe(sentence) {
    this.#empty.textContent = sentence;
  }

  /** The next words belong to another conversation. */
  begin() {
    this.#paragraph = null;
  }

  /** @param {string} delta  @param {number} atMs  when it was written, in the conversation */
  add(delta, atMs) {
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_THE_END_PX;
    if (!this.#paragraph) this.#open();
    else if (atMs - this.#lastMs > PAUSE_MS) this.#paragraph.append('\n');
    this.#lastMs = atMs;
    this.#paragraph.append(delta);
    this.#empty.hidden = true;
    this.#forget();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #open() {
    this.#paragraph = document.createElement('p');
    const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    this.#paragraph.dataset.time = this.#log.children.length ? newConversation(time) : time;
    this.#log.append(this.#paragraph);
  }

  /** A conversation may last for hours: the oldest words go. */
  #forget() {
    let length = this.#log.textContent.length;
    while (length > KEPT_CHARACTERS) {
      const oldest = this.#log.firstElementChild;
      length -= oldest.firstChild.length;
      oldest.firstChild.remove();
      if (!oldest.firstChild) oldest.remove();
    }
  }
}
