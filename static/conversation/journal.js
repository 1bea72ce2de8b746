// Owns window.__voice: a read-only window into the conversation, for automated tests and for support
// ("open the console, type __voice.events"). Nothing of the page depends on it.

const KEPT = 200;
// What comes many times a minute makes room first, so that what tells the story stays.
const FREQUENT = new Set(['figures', 'message:stats', 'message:text', 'message:word', 'message:pong']);

export class Journal {
  #events = [];

  /** @param {string} type @param {object} detail  plain data */
  note(type, detail) {
    this.#events.push({ at_ms: Math.round(performance.now()), type, ...(detail && { detail: structuredClone(detail) }) });
    if (this.#events.length <= KEPT) return;
    const frequent = this.#events.findIndex(({ type: kind, detail: what }) => FREQUENT.has(kind === 'message' ? `message:${what.type}` : kind));
    this.#events.splice(Math.max(frequent, 0), 1);
  }

  /** Publishes `state`, `sessionId`, `transcript`, `events` (the last 200) and `pc`, each read when asked for. */
  publish(conversation, transcript) {
    const events = () => [...this.#events];
    const hook = Object.freeze({
      get state() { return conversation.state; },
      get sessionId() { return conversation.sessionId; },
      get transcript() { return transcript.text; },
      get events() { return events(); },
      get pc() { return conversation.pc; },
    });
    Object.defineProperty(window, '__voice', { value: hook });
  }
}
