// Owns the form that asks for the server's key. What becomes of the key is auth.js.

import { key, useKey } from '../connection/auth.js';
import { KEY_NOT_SENDABLE } from './strings.js';

export class KeyForm {
  #form;
  #input;
  #error;

  /** @param {{form: HTMLFormElement, input: HTMLInputElement, error: HTMLElement}} parts @param {() => void} onKey */
  constructor({ form, input, error }, onKey) {
    this.#form = form;
    this.#input = input;
    this.#error = error;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (!useKey(input.value)) {
        this.#complain(KEY_NOT_SENDABLE);
        return;
      }
      this.hide();
      onKey();
    });
    input.addEventListener('input', () => this.#complain(''));
  }

  /** Shows it where the server wants a key and there is none. @returns {boolean} whether one is missing */
  want(auth) {
    const missing = auth === 'bearer' && !key();
    if (!missing) this.hide();
    else this.#form.hidden = false;
    return missing;
  }

  /** @param {string} complaint  why the one before did not do, or '' */
  ask(complaint = '') {
    this.#form.hidden = false;
    this.#complain(complaint);
    this.#input.focus();
  }

  hide() {
    this.#form.hidden = true;
    this.#input.value = '';
    this.#complain('');
  }

  #complain(text) {
    this.#error.textContent = text;
    this.#input.setAttribute('aria-invalid', String(text !== ''));
  }
}
