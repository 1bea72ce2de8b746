// Owns the times of single words: under the mouse, under a finger, and by the arrow keys in the log, which is one stop
// of the Tab key however many words it has.

import { span } from './captions.js';

export class WordTimes {
  #scroll;
  #tip;
  #wordOf;
  #shown = null;

  /**
   * @param {HTMLElement} scroll  what the words are in
   * @param {HTMLElement} tip  beside it, in the same positioned box
   * @param {(element: Element) => import('./captions.js').Word|undefined} wordOf
   */
  constructor(scroll, tip, wordOf) {
    this.#scroll = scroll;
    this.#tip = tip;
    this.#wordOf = wordOf;
    const at = (event) => event.target.closest?.('.word');
    scroll.addEventListener('pointerover', (event) => {
      if (event.pointerType !== 'mouse') return;
      const word = at(event) ?? this.#focused;
      if (word) this.#show(word);
      else this.hide();
    });
    scroll.addEventListener('pointerleave', () => { if (!this.#focused) this.hide(); });
    scroll.addEventListener('click', (event) => this.#go(at(event)));
    scroll.addEventListener('focusin', () => { if (this.#focused) this.#show(this.#focused); });
    scroll.addEventListener('focusout', () => this.hide());
    scroll.addEventListener('scroll', () => this.#place());
    scroll.addEventListener('keydown', (event) => this.#key(event));
  }

  hide() {
    this.#shown?.removeAttribute('aria-describedby');
    this.#shown = null;
    this.#tip.hidden = true;
  }

  get #focused() {
    const { activeElement } = document;
    return this.#scroll.contains(activeElement) && activeElement.matches('.word') ? activeElement : null;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === 'Escape' && this.#shown) {
      // Not the end of the session: what is on top goes first.
      event.preventDefault();
      this.hide();
    } else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      event.preventDefault();
      this.#go(this.#next(event.key === 'ArrowRight' ? 1 : -1));
    }
  }

  #next(step) {
    const words = [...this.#scroll.querySelectorAll('.word')];
    const from = words.indexOf(this.#focused);
    if (from >= 0) return words[from + step];
    // The first step leads to what can be seen.
    const { top, bottom } = this.#scroll.getBoundingClientRect();
    const seen = words.filter((word) => {
      const box = word.getBoundingClientRect();
      return box.top >= top && box.bottom <= bottom;
    });
    return step > 0 ? seen[0] : seen.at(-1);
  }

  #go(word) {
    if (!word) return;
    word.tabIndex = -1;
    word.focus();
    this.#show(word);
  }

  #show(element) {
    const word = this.#wordOf(element);
    if (!word) return;
    this.hide();
    this.#shown = element;
    this.#tip.textContent = span(word);
    this.#tip.hidden = false;
    element.setAttribute('aria-describedby', this.#tip.id);
    this.#place();
  }

  /** Above the word, within the box. */
  #place() {
    if (!this.#shown) return;
    if (!this.#shown.isConnected) {
      this.hide();
      return;
    }
    const box = this.#tip.offsetParent.getBoundingClientRect();
    const word = this.#shown.getBoundingClientRect();
    const view = this.#scroll.getBoundingClientRect();
    const outside = word.bottom < view.top || word.top > view.bottom;
    this.#tip.classList.toggle('outside', outside);
    const { offsetWidth, offsetHeight } = this.#tip;
    const left = Math.min(Math.max(word.left + word.width / 2 - offsetWidth / 2, box.left), box.right - offsetWidth);
    const above = word.top - offsetHeight - 4;
    const top = above >= box.top ? above : word.bottom + 4;
    this.#tip.style.setProperty('left', `${left - box.left}px`);
    this.#tip.style.setProperty('top', `${top - box.top}px`);
  }
}
