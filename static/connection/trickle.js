// Owns the way of our ICE candidates to the server: they wait for the answer, then go in batches, in order, one
// request at a time (RFC 8838, in the JSON form of docs/protocol.md). Losing some is harmless: the server learns
// of our addresses from our checks as well.

import { patchSession } from './api.js';

const UNANSWERED = new Set(['unreachable', 'offline', 'bad_gateway']);

export class Trickle {
  #waiting = [];
  #complete = false;
  #target = null;
  #sending = false;
  #end = new AbortController();

  /** @param {RTCIceCandidate} found */
  add({ candidate, sdpMid }) {
    this.#waiting.push({ candidate, sdpMid });
    this.#send();
  }

  /** There will be no more. */
  complete() {
    this.#complete = true;
    this.#send();
  }

  /** What has come so far stands in the offer. */
  included() {
    this.#waiting = [];
  }

  /** The answer is here. */
  open(session, etag) {
    this.#target = { session, etag };
    this.#send();
  }

  close() {
    this.#end.abort();
    this.#waiting = [];
  }

  async #send() {
    if (!this.#target || this.#sending) return;
    this.#sending = true;
    let told = false;
    while (!this.#end.signal.aborted && !told && (this.#waiting.length > 0 || this.#complete)) {
      const candidates = this.#waiting.splice(0);
      told = this.#complete;
      await this.#deliver({ candidates, complete: told });
    }
    this.#sending = told;
  }

  async #deliver(news) {
    const { session, etag } = this.#target;
    for (const last of [false, true]) {
      try {
        await patchSession(session, etag, news, this.#end.signal);
        return;
      } catch (failure) {
        if (last || this.#end.signal.aborted || !(failure.retryable || UNANSWERED.has(failure.code))) return;
      }
    }
  }
}
