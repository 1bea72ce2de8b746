// Owns the elements of what was said: paragraphs of words, those that are in the page at all, the end kept in view.
// What is finished goes into a log by the paragraph, which is how a screen reader tells it; the paragraph that grows is
// outside of it. What was rendered again, as earlier words are, is in a third place, and is not told again.

import { isAtEnd } from '../page/controls.js';
import { clock } from './captions.js';

// At the end of hours of talk so many words are in the page, more only while the user reads earlier ones.
export const TAIL_WORDS = 1_500;
const EARLIER_WORDS = 1_000;
export const MOST_WORDS = 6_000;

export class WordLog {
  #parts;
  #list;
  #wordOf = new WeakMap();
  // The paragraphs in the page by their ids, in order and without a hole.
  #shown = new Map();
  #count = 0;
  #following = true;
  // Somebody reads what is far before the end, and the end is not in the page.
  #cut = false;

  /**
   * @param {{scroll: HTMLElement, old: HTMLElement, log: HTMLElement, now: HTMLElement, earlier: HTMLButtonElement,
   *          newest: HTMLButtonElement}} parts
   * @param {() => readonly import('./paragraphs.js').Paragraph[]} list  all that there are, ids counting up by one
   */
  constructor(parts, list) {
    this.#parts = parts;
    this.#list = list;
    parts.scroll.addEventListener('scroll', () => this.#scrolled());
    parts.earlier.addEventListener('click', () => this.#showEarlier());
    parts.newest.addEventListener('click', () => {
      this.toEnd();
      parts.scroll.focus();
    });
    // A phone that is turned must not lose the end.
    new ResizeObserver(() => this.#keepEnd()).observe(parts.scroll);
  }

  /** @returns {import('./captions.js').Word|undefined} */
  wordOf(element) {
    return this.#wordOf.get(element);
  }

  /** The newest word of a paragraph, which is the last one. */
  add(paragraph) {
    if (!this.#cut) this.#following = this.#atEnd;
    const known = this.#shown.get(paragraph.id);
    if (!known && !this.#following && this.#count >= MOST_WORDS) this.#cut = true;
    if (!this.#cut) this.#append(known ?? this.#open(paragraph), paragraph.words.at(-1));
    if (this.#following) this.#trimStart(TAIL_WORDS);
    else this.#trimGone();
    this.#controls();
    this.#keepEnd();
  }

  /** The turn has ended: now it is told. */
  close(paragraph) {
    const element = this.#shown.get(paragraph.id);
    if (element?.parentElement !== this.#parts.now) return;
    for (const word of element.querySelectorAll('.fresh')) word.classList.remove('fresh');
    this.#keepFocus(element, () => this.#parts.log.append(element));
  }

  clear() {
    for (const id of [...this.#shown.keys()]) this.#remove(id);
    this.#following = true;
    this.#cut = false;
    this.#controls();
  }

  toEnd() {
    if (this.#cut) {
      this.clear();
      this.#prepend(this.#list().length, TAIL_WORDS);
    }
    this.#following = true;
    this.#trimStart(TAIL_WORDS);
    this.#controls();
    this.#keepEnd();
  }

  get #atEnd() {
    return !this.#cut && isAtEnd(this.#parts.scroll);
  }

  #append(element, said) {
    const word = this.#word(said);
    word.classList.add('fresh');
    element.lastElementChild.append(' ', word);
    this.#count += 1;
  }

  #open(paragraph) {
    const before = this.#list().at(-2);
    if (before) this.close(before);
    const element = this.#paragraph(paragraph);
    this.#parts.now.append(element);
    this.#shown.set(paragraph.id, element);
    return element;
  }

  #showEarlier() {
    const { scroll, earlier } = this.#parts;
    const [first] = this.#shown.keys();
    const list = this.#list();
    const fromEnd_px = scroll.scrollHeight - scroll.scrollTop;
    this.#following = false;
    this.#prepend(first - list[0].id, EARLIER_WORDS);
    this.#controls();
    // The words that are being read stay where they are.
    scroll.scrollTop = scroll.scrollHeight - fromEnd_px;
    this.#trimEnd();
    if (earlier.hidden) scroll.focus({ preventScroll: true });
  }

  /** Paragraphs before the one at `index`, until they have so many words. */
  #prepend(index, words) {
    const list = this.#list();
    const added = [];
    let count = 0;
    for (let at = index - 1; at >= 0 && count < words; at -= 1) {
      count += list[at].words.length;
      added.unshift(list[at]);
    }
    const made = added.map((paragraph) => {
      const element = this.#paragraph(paragraph);
      for (const word of paragraph.words) element.lastElementChild.append(' ', this.#word(word));
      return [paragraph.id, element];
    });
    const growing = made.length && !added.at(-1).closed ? made.at(-1)[1] : null;
    this.#parts.old.prepend(...made.map(([, element]) => element).filter((element) => element !== growing));
    if (growing) this.#parts.now.append(growing);
    this.#shown = new Map([...made, ...this.#shown]);
    this.#count += count;
  }

  #trimStart(most) {
    for (const id of [...this.#shown.keys()].slice(0, -1)) {
      if (this.#count <= most) return;
      this.#remove(id);
    }
  }

  #trimEnd() {
    for (const id of [...this.#shown.keys()].reverse()) {
      if (this.#count <= MOST_WORDS) return;
      this.#cut = true;
      this.#remove(id);
    }
  }

  /** What is no longer kept cannot be read either. */
  #trimGone() {
    const first = this.#list()[0].id;
    for (const id of [...this.#shown.keys()].filter((one) => one < first)) this.#remove(id);
  }

  #remove(id) {
    const element = this.#shown.get(id);
    this.#shown.delete(id);
    this.#count -= element.querySelectorAll('.word').length;
    this.#keepFocus(element, () => element.remove());
  }

  /** The focus is never lost to the top of the page. */
  #keepFocus(element, act) {
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    act();
    if (!focused) return;
    (focused.isConnected ? focused : this.#parts.scroll).focus({ preventScroll: true });
  }

  #paragraph({ title, words }) {
    const element = document.createElement('p');
    element.className = 'paragraph';
    if (title) element.dataset.title = title;
    const time = document.createElement('time');
    time.dateTime = `PT${Math.floor(words[0].start_ms / 1000)}S`;
    time.textContent = clock(words[0].start_ms);
    element.append(time, document.createElement('span'));
    return element;
  }

  #word(word) {
    const element = document.createElement('span');
    element.className = 'word';
    element.textContent = word.text;
    this.#wordOf.set(element, word);
    return element;
  }

  #scrolled() {
    this.#following = this.#atEnd;
    this.#controls();
  }

  #keepEnd() {
    const { scroll } = this.#parts;
    if (this.#following) scroll.scrollTop = scroll.scrollHeight;
  }

  #controls() {
    const { earlier, newest } = this.#parts;
    const list = this.#list();
    const [first] = this.#shown.keys();
    earlier.hidden = first === undefined || first <= list[0]?.id;
    newest.hidden = this.#following || this.#shown.size === 0;
  }
}
