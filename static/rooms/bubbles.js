// Owns the elements of messages: a bubble each, in the order in which they were said, the end kept in view; and what a
// screen reader is told of them, once each is complete.

import { isAtEnd } from '../page/controls.js';
import { element } from '../page/elements.js';
import { messageNote, replayLabel, time, toldAloud } from './words.js';

const TOLD = 20;

export class Bubbles {
  #parts;
  #on;
  #shown = new Map();
  #following = true;

  /**
   * @param {{log: HTMLElement, empty: HTMLElement, newest: HTMLButtonElement, told: HTMLElement}} parts
   *   `told`: a live region that is not seen
   * @param {{replay: (message: import('./room.js').Message) => void, languageName: (code: string) => string}} on
   */
  constructor(parts, on) {
    this.#parts = parts;
    this.#on = on;
    parts.log.addEventListener('scroll', () => this.#scrolled());
    parts.newest.addEventListener('click', () => {
      this.#following = true;
      this.#keepEnd();
      parts.log.focus();
    });
    // A phone that is turned, or that shows its keyboard, must not lose the end.
    new ResizeObserver(() => this.#keepEnd()).observe(parts.log);
  }

  /** @param {import('./room.js').Message} message  new, or another than before */
  show(message) {
    const bubble = this.#shown.get(message.id) ?? this.#add(message);
    bubble.fill(message, this.#on.languageName);
    this.#parts.empty.hidden = true;
    if (message.own && bubble.fresh) this.#following = true;
    bubble.fresh = false;
    this.#keepEnd();
  }

  /** To the ear. */
  tell(message) {
    const line = element('p', { lang: message.state === 'ready' ? message.into : message.language }, toldAloud(message));
    this.#parts.told.append(line);
    while (this.#parts.told.children.length > TOLD) this.#parts.told.firstElementChild.remove();
  }

  replaying(id, playing) {
    this.#shown.get(id)?.replaying(playing);
  }

  forget(ids) {
    for (const id of ids) {
      this.#shown.get(id)?.box.remove();
      this.#shown.delete(id);
    }
  }

  clear() {
    this.forget([...this.#shown.keys()]);
    this.#parts.told.replaceChildren();
    this.#parts.empty.hidden = false;
    this.#following = true;
    this.#keepEnd();
  }

  #add(message) {
    const bubble = new Bubble(message, () => this.#on.replay(bubble.message));
    const after = [...this.#shown].filter(([id]) => Number(id) > Number(message.id));
    const next = after.sort(([one], [other]) => Number(one) - Number(other))[0]?.[1].box ?? null;
    this.#parts.log.insertBefore(bubble.box, next);
    this.#shown.set(message.id, bubble);
    return bubble;
  }

  #scrolled() {
    this.#following = isAtEnd(this.#parts.log);
    this.#parts.newest.hidden = this.#following;
  }

  #keepEnd() {
    const { log, newest } = this.#parts;
    if (this.#following) log.scrollTop = log.scrollHeight;
    newest.hidden = this.#following || isAtEnd(log);
  }
}

class Bubble {
  fresh = true;
  #text = element('p', { className: 'bubble-text' });
  #original = element('p', { className: 'bubble-original', hidden: true });
  #note = element('p', { className: 'bubble-note', hidden: true });
  #replay = element('button', { type: 'button', className: 'button quiet replay', hidden: true }, 'Replay');
  #language = element('span', { className: 'chip' });
  #name = element('span', { className: 'bubble-name' });

  constructor(message, replay) {
    const said = new Date(message.at_ms);
    const head = element('p', { className: 'bubble-head' }, this.#name, this.#language, element('time', { dateTime: said.toISOString() }, time(said)));
    this.box = element('div', {
      className: 'bubble', data: { testid: 'message', id: message.id, side: message.own ? 'own' : 'other' }, attributes: { role: 'article' },
    }, head, this.#text, this.#original, this.#note, this.#replay);
    this.#replay.dataset.testid = 'replay';
    this.#original.dataset.testid = 'original';
    this.#replay.addEventListener('click', replay);
  }

  fill(message, languageName) {
    this.message = message;
    const { text, original, language, into, state, own, playing, audio, grows } = message;
    const translated = (state === 'ready' || grows) && original !== text;
    this.box.dataset.state = state;
    this.box.dataset.playing = playing;
    this.box.setAttribute('aria-label', `${message.name}, ${languageName(language)}`);
    write(this.#name, own ? `${message.name} (you)` : message.name);
    write(this.#language, languageName(language));
    write(this.#text, grows ? `${text} …` : text || '…');
    this.#text.lang = translated ? into : language;
    write(this.#original, translated ? original : '');
    this.#original.lang = language;
    this.#original.hidden = !translated || !original;
    const note = messageNote(message, languageName(language), languageName(into));
    write(this.#note, note);
    this.#note.hidden = !note;
    this.#replay.hidden = !audio;
    this.#replay.setAttribute('aria-label', replayLabel(message));
  }

  replaying(playing) {
    this.#replay.textContent = playing ? 'Stop' : 'Replay';
    this.#replay.setAttribute('aria-pressed', String(playing));
  }
}

function write(box, text) {
  if (box.textContent !== text) box.textContent = text;
}
