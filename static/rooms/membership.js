// Owns what this tab keeps of the rooms that it is in, so that a reload is no leaving: the member's token, how they take
// part, and what was said. And what this device keeps: a name and a language. Storage may be forbidden.

import { remember, remembered } from '../conversation/devices.js';

const KEPT_MESSAGES = 100;
const storageKey = (room) => `voice.room.${room}`;

/** @typedef {{member: import('./api.js').Member, name: string, language: string, voice: boolean, last: string, messages: object[]}} Membership */

/** @returns {Membership|null} */
export function membership(room) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(storageKey(room)) ?? 'null');
    return typeof kept?.member?.token === 'string' ? kept : null;
  } catch {
    return null;
  }
}

/** @param {Membership} kept */
export function keepMembership(room, kept) {
  try {
    sessionStorage.setItem(storageKey(room), JSON.stringify({ ...kept, messages: kept.messages.slice(-KEPT_MESSAGES) }));
  } catch {
    // A reload then asks for the name again.
  }
}

export function forgetMembership(room) {
  try {
    sessionStorage.removeItem(storageKey(room));
  } catch {
    // There was none.
  }
}

export const rememberedName = () => remembered('name');
export const rememberedLanguage = () => remembered('language');

export function rememberYourself({ name, language }) {
  if (name) remember('name', name);
  if (language) remember('language', language);
}

/**
 * The language to begin with. Pure.
 * @param {{code: string}[]} languages @param {string} before  the last choice @param {readonly string[]} wished  as the browser tells them
 */
export function firstLanguage(languages, before, wished) {
  const codes = languages.map(({ code }) => code);
  const primary = wished.map((tag) => tag.split('-')[0].toLowerCase());
  return [before, ...primary].find((code) => codes.includes(code)) ?? codes[0] ?? '';
}
