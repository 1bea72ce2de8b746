// Owns the form before a room: name and language, both remembered on this device, and whether one comes with a microphone.

import { firstLanguage, rememberedLanguage, rememberedName, rememberYourself } from './membership.js';
import { alreadyIn, languageOption } from './words.js';

/** @param {HTMLSelectElement} select @param {import('./api.js').Language[]} languages @param {string} chosen */
export function fillLanguages(select, languages, chosen) {
  const shown = JSON.stringify(languages);
  if (select.dataset.shown !== shown) {
    select.dataset.shown = shown;
    select.replaceChildren(...languages.map((language) => new Option(languageOption(language), language.code)));
  }
  if (languages.some(({ code }) => code === chosen)) select.value = chosen;
}

export class Joining {
  #parts;
  #on;

  /**
   * @param {{box: HTMLElement, title: HTMLElement, who: HTMLElement, form: HTMLFormElement, name: HTMLInputElement,
   *          language: HTMLSelectElement, read: HTMLButtonElement, talk: HTMLButtonElement}} parts
   * @param {{join: (who: {name: string, language: string, voice: boolean}) => void}} on
   */
  constructor(parts, on) {
    this.#parts = parts;
    this.#on = on;
    parts.name.value = rememberedName();
    parts.form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#join(event.submitter !== parts.read && !parts.talk.hidden);
    });
  }

  /** @param {import('./api.js').Language[]} languages */
  offer(languages) {
    const { language } = this.#parts;
    const chosen = language.value || firstLanguage(languages, rememberedLanguage(), navigator.languages ?? []);
    fillLanguages(language, languages, chosen);
  }

  /** @param {{name: string, members: object[]}} room @param {import('./api.js').Language[]} languages */
  show({ name, members }, languages) {
    const { box, title, who } = this.#parts;
    title.textContent = name;
    who.textContent = alreadyIn(members, languages);
    box.hidden = false;
    (this.#parts.name.value ? title : this.#parts.name).focus();
  }

  hide() {
    this.#parts.box.hidden = true;
  }

  /** While the server is asked. */
  busy(busy) {
    for (const button of [this.#parts.talk, this.#parts.read]) button.disabled = busy;
  }

  #join(voice) {
    const who = { name: this.#parts.name.value.trim(), language: this.#parts.language.value };
    if (!who.name || !who.language) return;
    rememberYourself(who);
    this.#on.join({ ...who, voice });
  }
}
