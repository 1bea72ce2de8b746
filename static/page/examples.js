// Owns the phrases to try with a model: a list by topic, folded where there is little room, absent where there is none.

import { element } from './elements.js';
import { quoted } from './strings.js';

const ROOMY = '(min-width: 52rem) and (min-height: 30.01rem)';

export class Examples {
  #parts;
  #shown = '[]';

  /** @param {{box: HTMLElement, fold: HTMLDetailsElement, list: HTMLDListElement}} parts */
  constructor(parts) {
    this.#parts = parts;
    // Beside the conversation there is room for it; below, it would push the words away.
    parts.fold.open = matchMedia(ROOMY).matches;
  }

  /** @param {{topic: string, say: string[]}[]} [examples]  of a service from /api/config */
  show(examples = []) {
    // Told with each configuration; a reader with a cursor should not lose the place.
    const shown = JSON.stringify(examples);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#parts.box.hidden = examples.length === 0;
    this.#parts.list.replaceChildren(...examples.map(group));
  }
}

function group({ topic, say }) {
  const phrases = say.map((phrase) => element('span', {}, quoted(phrase)));
  return element('div', {}, element('dt', {}, topic), element('dd', {}, ...phrases.flatMap((phrase) => [' ', phrase])));
}
