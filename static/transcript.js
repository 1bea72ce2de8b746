// Owns the transcript's element: a paragraph for each conversation, deltas appended as text, the end kept in view.

const KEPT_CHARACTERS = 200_000;
const NEAR_THE_END_PX = 48;

export class Transcript {
  #log;
  #empty;
  #paragraph = null;

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

  add(delta) {
    const atEnd = this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_THE_END_PX;
    if (!this.#paragraph) this.#open();
    this.#paragraph.append(delta);
    this.#empty.hidden = true;
    this.#forget();
    if (atEnd) this.#log.scrollTop = this.#log.scrollHeight;
  }

  #open() {
    this.#paragraph = document.createElement('p');
    this.#paragraph.dataset.time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
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
