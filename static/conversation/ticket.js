// Owns the way back into a session that has lost its path: its id, the token of the last answer, and how long the
// server waits. Time is an argument; no IO.

// The server counts its grace from when it notices the loss, which is later than when the path died.
const NOTICED_MS = 4_000;
const REFUSALS = new Set(['unknown_session', 'session_ended', 'resume_refused']);

export class Ticket {
  #session = null;
  #token = null;
  #grace_ms = 0;
  #until_ms = Infinity;

  get held() {
    return this.#token !== null;
  }

  get grace_ms() {
    return this.held ? this.#grace_ms : 0;
  }

  /** Of an answer. @param {{token: string, grace_s: number}|undefined} resume  missing where the server does not wait */
  take(session, resume, now_ms) {
    this.#session = session;
    this.#token = typeof resume?.token === 'string' && resume.grace_s > 0 ? resume.token : null;
    this.#grace_ms = (resume?.grace_s ?? 0) * 1000 + NOTICED_MS;
    // In the middle of a return the clock starts again as well: the server has heard from us.
    if (this.#until_ms !== Infinity) this.#until_ms = now_ms + this.#grace_ms;
  }

  /** The path is dead as of now. */
  lost(now_ms) {
    this.#until_ms = now_ms + this.#grace_ms;
  }

  /** Whether the server should still be waiting. */
  valid(now_ms) {
    return this.held && now_ms < this.#until_ms;
  }

  /** For `resume` of an offer. */
  present(last_seq) {
    return { session: this.#session, token: this.#token, last_seq };
  }

  refusedBy({ code }) {
    return this.held && REFUSALS.has(code);
  }

  drop() {
    this.#token = null;
    this.#until_ms = Infinity;
  }
}
