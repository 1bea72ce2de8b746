// Owns the lobby: the rooms that are open to all, looked up again and again while they are shown, and the form that makes
// a new one.

import { element } from '../page/elements.js';
import { fetchRooms, makeRoom } from './api.js';
import { fragmentOf } from './address.js';
import { NO_ROOMS_YET, roomLine } from './words.js';

const LOOK_MS = 5_000;

export class Lobby {
  #parts;
  #on;
  #call = null;
  #timer = 0;
  #shown = '';

  /**
   * @param {{box: HTMLElement, list: HTMLElement, empty: HTMLElement, form: HTMLFormElement, name: HTMLInputElement,
   *          unlisted: HTMLInputElement}} parts
   * @param {{offer: (all: object) => void, made: (room: string) => void, failed: (error: unknown, again: () => void) => void}} on
   *   `offer`: what the server can do, with each look
   */
  constructor(parts, on) {
    this.#parts = parts;
    this.#on = on;
    parts.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#make();
    });
    document.addEventListener('visibilitychange', () => { if (this.#call && document.visibilityState === 'visible') this.#look(); });
  }

  show() {
    this.#parts.box.hidden = false;
    this.#call ??= new AbortController();
    return this.#look();
  }

  hide() {
    this.#parts.box.hidden = true;
    this.#call?.abort();
    this.#call = null;
    clearTimeout(this.#timer);
  }

  async #look() {
    const { signal } = this.#call;
    clearTimeout(this.#timer);
    try {
      const all = await fetchRooms(signal);
      if (signal.aborted) return;
      this.#on.offer(all);
      this.#list(all);
    } catch (error) {
      if (signal.aborted) return;
      this.#on.failed(error, () => { if (this.#call) this.#look(); });
      if (error.code === 'no_rooms') return;
    }
    this.#timer = setTimeout(() => { if (document.visibilityState === 'visible') this.#look(); }, LOOK_MS);
  }

  #list({ rooms, languages }) {
    // A reader with a cursor should not lose the place.
    const shown = JSON.stringify([rooms, languages]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const { list, empty } = this.#parts;
    const focused = document.activeElement?.getAttribute('href');
    list.replaceChildren(...rooms.map((room) => element('li', {}, element(
      'a', { className: 'room-link', href: fragmentOf(room.id), data: { testid: 'room-link' } },
      element('span', { className: 'room-link-name' }, room.name), ' ',
      element('span', { className: 'small' }, roomLine(room, languages)),
    ))));
    if (focused) [...list.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus();
    empty.hidden = rooms.length > 0;
    empty.textContent = NO_ROOMS_YET;
  }

  async #make() {
    const { name, unlisted } = this.#parts;
    const wish = { private: unlisted.checked, ...(name.value.trim() && { name: name.value.trim() }) };
    try {
      const { id } = await makeRoom(wish);
      name.value = '';
      this.#on.made(id);
    } catch (error) {
      this.#on.failed(error, () => this.#make());
    }
  }
}
