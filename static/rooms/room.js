// Owns what is known of a room: who is in, who speaks, what was said, and what of it is heard. Pure: events of
// docs/rooms.md in, changes out. The oldest messages go.

export const KEPT_MESSAGES = 500;

const isText = (value) => typeof value === 'string';
const order = ({ id }) => Number(id);

/**
 * @typedef {{id: string, name: string, language: string, here: boolean, speaking: boolean}} Person
 * @typedef {{id: string, user: string, name: string, language: string, into: string, kind: string, text: string,
 *            original: string, state: 'pending'|'ready'|'failed', reason: string|null, audio: string|null, own: boolean,
 *            at_ms: number, playing: string, grows: boolean}} Message  `into`: the language of `text`, once it is there;
 *            `grows`: its speaker still speaks, and `text` is what there is of it
 */

export class Room {
  #members = new Map();
  #speaking = new Set();
  #messages = new Map();

  /** @param {string} language  of the user, until the room tells it */
  constructor(language) {
    this.language = language;
    this.name = '';
    this.you = '';
  }

  /** The user first, then by name. @returns {Person[]} */
  get people() {
    return [...this.#members.values()]
      .map((member) => ({ ...member, speaking: this.#speaking.has(member.id) }))
      .sort((one, other) => (other.id === this.you) - (one.id === this.you) || one.name.localeCompare(other.name));
  }

  /** In the order in which they were said. @returns {Message[]} */
  get messages() {
    return [...this.#messages.values()].sort((one, other) => order(one) - order(other));
  }

  /** Messages of before this page was loaded. */
  restore(messages) {
    for (const message of messages) this.#messages.set(message.id, { ...message, playing: message.playing === 'skipped' ? 'skipped' : '' });
  }

  /** The user's own, which the room does not tell. @param {{name?: string, language?: string}} what */
  changeYourself(what) {
    if (what.language) this.language = what.language;
    const me = this.#members.get(this.you);
    if (me) this.#members.set(this.you, { ...me, ...what });
  }

  /**
   * @param {object} event  of the data channel, or the event stream
   * @param {number} now_ms  since 1970
   * @returns {{people?: true, name?: true, joined?: Person, left?: Person, message?: Message, settled?: boolean, gone?: string[]}}
   *   `settled`: the message is complete now, and was not before; `gone`: ids of messages that are not kept any more
   */
  apply(event, now_ms) {
    if (event.type === 'room') return this.#begin(event);
    if (event.type === 'member' && isText(event.member?.id)) return this.#member(event);
    if (event.type === 'speaking' && isText(event.member)) return this.#speaks(event);
    if (event.type === 'message' && isText(event.id) && isText(event.text)) return this.#message(event, now_ms);
    if (event.type === 'playing' && isText(event.message)) return this.#play(event);
    return {};
  }

  #begin({ room, you, members }) {
    this.name = room?.name ?? '';
    this.you = you;
    this.#speaking.clear();
    this.#members = new Map((members ?? []).map((member) => [member.id, member]));
    this.language = this.#members.get(you)?.language ?? this.language;
    return { people: true, name: true };
  }

  #member({ member, change }) {
    const known = this.#members.get(member.id);
    if (change === 'left') {
      this.#members.delete(member.id);
      this.#speaking.delete(member.id);
      return { people: true, ...(known && { left: known }) };
    }
    this.#members.set(member.id, member);
    if (member.id === this.you) this.language = member.language;
    return { people: true, ...(change === 'joined' && !known && { joined: member }) };
  }

  #speaks({ member, on }) {
    if (on === true) this.#speaking.add(member);
    else this.#speaking.delete(member);
    return { people: true };
  }

  #message(event, now_ms) {
    const { id, user, name, language, kind, text, original, state, reason = null, audio = null } = event;
    const before = this.#messages.get(id);
    const message = {
      id, user, name, language, kind, text, original: original ?? text, state, reason, audio,
      // One that was said before the language was changed stays in that one.
      into: before?.into ?? this.language,
      own: before?.own ?? user === this.you,
      at_ms: before?.at_ms ?? now_ms,
      playing: before?.playing ?? '',
      grows: event.grows === true,
    };
    this.#messages.set(id, message);
    return { message, settled: state !== 'pending' && before?.state !== state, gone: this.#forget() };
  }

  #play({ message: id, state }) {
    const message = this.#messages.get(id);
    if (!message) return {};
    const changed = { ...message, playing: state === 'ended' ? '' : state };
    this.#messages.set(id, changed);
    return { message: changed, settled: false };
  }

  #forget() {
    const gone = this.messages.slice(0, Math.max(this.#messages.size - KEPT_MESSAGES, 0)).map(({ id }) => id);
    for (const id of gone) this.#messages.delete(id);
    return gone;
  }
}
