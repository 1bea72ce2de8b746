// Owns the transcript's element: the words of the model, and those of the user where they are written down, a line for
// what is said after a pause, in the order in which it was said; the end is kept in view.

import { isAtEnd } from './controls.js';
import { newConversation, WHO } from './strings.js';
import { Utterances } from './utterances.js';

const KEPT_CHARACTERS = 200_000;
const PAUSE_MS = 1500;

export class Transcript {
  #log;
  #empty;
  #said = null;
  #twoSided = false;
  #lastMs = 0;

  constructor(log, empty) {
    this.#log = log;
    this.#empty = empty;
  }

  /** The whole text, a blank line between conversations. */
  get text() {
    let text = '';
    for (const paragraph of this.#log.children) {
      const between = paragraph.dataset.time ? '\n\n' : '\n';
      text += `${text && between}${paragraph.textContent}`;
    }
    return text;
  }

  /** What the empty transcript says. */
  describe(sentence) {
    this.#empty.textContent = sentence;
  }

  /** Whether the user's words are written down beside the model's: then lines say whose they are. */
  set twoSided(twoSided) {
    this.#twoSided = twoSided;
  }

  /** The next words belong to another conversation. */
  begin() {
    this.#said = null;
  }

  /** Of the model. @param {string} delta  @param {number} at_ms  when it was written, in the conversation */
  add(delta, at_ms) {
    this.#keepEnd(() => {
      const line = this.#lineOf('model', at_ms, at_ms);
      if (!line.dataset.side && line.firstChild && at_ms - this.#lastMs > PAUSE_MS) line.append('\n');
      this.#lastMs = at_ms;
      line.append(delta);
    });
  }

  /** Of the user. @param {{text: string, start_ms: number, end_ms: number}} word */
  addWord({ text, start_ms, end_ms }) {
    this.#twoSided = true;
    this.#keepEnd(() => this.#lineOf('you', start_ms, end_ms).append(` ${text}`));
  }

  #keepEnd(write) {
    const atEnd = isAtEnd(this.#log);
    write();
    this.#empty.hidden = true;
    this.#forget();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Where the model speaks alone, a conversation is one paragraph. */
  #lineOf(side, start_ms, end_ms) {
    const first = this.#said === null;
    this.#said ??= new Utterances();
    if (!this.#twoSided && !first && this.#log.lastElementChild) return this.#log.lastElementChild;
    const { line, before, fresh } = this.#said.place(side, start_ms, end_ms);
    if (!fresh) return line.paragraph;
    line.paragraph = this.#paragraph(side);
    const next = before?.paragraph.isConnected ? before.paragraph : null;
    this.#log.insertBefore(line.paragraph, next);
    if (first) this.#date(line.paragraph);
    else if (next?.dataset.time) this.#moveDate(next, line.paragraph);
    return line.paragraph;
  }

  #paragraph(side) {
    const paragraph = document.createElement('p');
    if (!this.#twoSided) return paragraph;
    paragraph.dataset.side = side;
    // What a user says is not to be read to them, into the microphone that they speak into.
    if (side === 'you') paragraph.setAttribute('aria-live', 'off');
    const who = document.createElement('span');
    who.className = 'who';
    who.textContent = WHO[side];
    paragraph.append(who);
    return paragraph;
  }

  #date(paragraph) {
    const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    paragraph.dataset.time = this.#log.children.length > 1 ? newConversation(time) : time;
  }

  #moveDate(from, to) {
    to.dataset.time = from.dataset.time;
    delete from.dataset.time;
  }

  /** A conversation may last for hours: the oldest words go. */
  #forget() {
    let length = this.#log.textContent.length;
    while (length > KEPT_CHARACTERS) {
      const oldest = this.#log.firstElementChild;
      length -= oldest.firstChild.textContent.length;
      oldest.firstChild.remove();
      if (!oldest.firstChild) oldest.remove();
    }
  }
}
