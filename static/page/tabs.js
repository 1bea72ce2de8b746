// Owns which of the two views is shown, Talk or Transcribe, and which service each of them is for. The switch is there
// only where the server offers both; ?view=transcribe leads to it.

import { SWITCH_LOCKED } from './strings.js';

const TALK = 'talk';
const TRANSCRIBE = 'transcribe';

/** Before its model has loaded, the server tells no more of a service than its name. */
const transcribes = ({ kind, name }) => (kind ?? name) === 'transcribe';

/**
 * The service of each view, null where there is none. Pure.
 * @param {{services: {name: string, kind?: string}[], default_service: string}} config
 * @param {string} wanted  a service that the address asks for, '' for none
 */
export function servicesOf({ services, default_service: usual }, wanted) {
  const pick = (suits) => {
    const names = services.filter(suits).map(({ name }) => name);
    return [wanted, usual].find((name) => names.includes(name)) ?? names[0] ?? null;
  };
  return { talk: pick((service) => !transcribes(service)), transcribe: pick(transcribes) };
}

export class Tabs {
  #parts;
  #wanted;
  #on;
  #services = { talk: null, transcribe: null };
  #current = TALK;
  #chosen;
  #locked = false;
  #settled = false;

  /**
   * @param {{box: HTMLFieldSetElement, why: HTMLElement}} parts
   * @param {{view: string, service: string}} wish  of the address
   * @param {{shown: (view: string) => void, chosen: () => void}} on  `chosen`: by the user
   */
  constructor({ box, why }, wish, on) {
    this.#parts = { box, why, choices: [...box.querySelectorAll('input')] };
    this.#wanted = wish.service;
    this.#on = on;
    this.#chosen = wish.view === TRANSCRIBE || wish.view === TALK ? wish.view : null;
    for (const choice of this.#parts.choices) choice.addEventListener('change', () => this.#choose(choice.value));
    this.#show(this.#chosen ?? TALK);
  }

  get current() {
    return this.#current;
  }

  /**
   * What the server offers, now.
   * @returns {string} the service of the view that is shown, '' for whatever the server's default is
   */
  offered(config) {
    this.#services = servicesOf(config, this.#wanted);
    const { talk, transcribe } = this.#services;
    this.#parts.box.hidden = !talk || !transcribe;
    // Who is quicker than the server's first answer gets what it would have led to.
    if (!this.#locked || !this.#settled) this.#show(this.#fitting(config));
    this.#settled = true;
    if (!transcribe || this.#unknown(config)) return this.#wanted;
    return this.#services[this.#current] ?? '';
  }

  /** While something runs. */
  lock(locked) {
    this.#locked = locked;
    this.#parts.box.disabled = locked;
    this.#parts.why.textContent = locked ? SWITCH_LOCKED : '';
  }

  #unknown({ services }) {
    return this.#wanted !== '' && !services.some(({ name }) => name === this.#wanted);
  }

  #fitting({ default_service: usual }) {
    const { talk, transcribe } = this.#services;
    if (!transcribe) return TALK;
    if (!talk) return TRANSCRIBE;
    return this.#chosen ?? ((this.#wanted || usual) === transcribe ? TRANSCRIBE : TALK);
  }

  #choose(view) {
    if (this.#locked) return;
    this.#chosen = view;
    const address = new URL(location.href);
    address.searchParams.set('view', view);
    history.replaceState(history.state, '', address);
    this.#show(view);
    this.#on.chosen();
  }

  #show(view) {
    this.#current = view;
    document.body.dataset.view = view;
    for (const choice of this.#parts.choices) choice.checked = choice.value === view;
    this.#on.shown(view);
  }
}
