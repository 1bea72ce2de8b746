// Owns the list of who is in the room: name, language, and in words whether they speak or are away.

import { element } from '../page/elements.js';
import { memberNote, peopleTitle } from './words.js';

export class People {
  #parts;
  #languageName;
  #items = new Map();

  /** @param {{title: HTMLElement, list: HTMLUListElement}} parts @param {(code: string) => string} languageName */
  constructor(parts, languageName) {
    this.#parts = parts;
    this.#languageName = languageName;
  }

  /** @param {import('./room.js').Person[]} people */
  show(people, you) {
    this.#parts.title.textContent = peopleTitle(people.length);
    const ids = new Set(people.map(({ id }) => id));
    for (const id of [...this.#items.keys()].filter((known) => !ids.has(known))) {
      this.#items.get(id).remove();
      this.#items.delete(id);
    }
    people.forEach((person, at) => {
      const item = this.#item(person, you);
      if (this.#parts.list.children[at] !== item) this.#parts.list.insertBefore(item, this.#parts.list.children[at] ?? null);
    });
  }

  #item(person, you) {
    const { id, name, language } = person;
    const note = memberNote(person);
    const item = this.#items.get(id) ?? element('li', { className: 'person', data: { testid: 'person' } });
    this.#items.set(id, item);
    item.dataset.note = note;
    const text = [id === you ? `${name} (you)` : name, this.#languageName(language), note].join('\n');
    // Speaking comes and goes: what has not changed is left alone, with a reader's place in it.
    if (item.dataset.text === text) return item;
    item.dataset.text = text;
    const [shown, spoken] = text.split('\n');
    item.replaceChildren(
      element('span', { className: 'person-name' }, shown), ' ',
      element('span', { className: 'chip' }, spoken), ' ',
      element('span', { className: 'person-note' }, note),
    );
    return item;
  }
}
