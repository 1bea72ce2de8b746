// Owns the event stream of a member who only reads: it opens it, and opens it again behind the last event that was seen
// when it breaks off. Knows no page.

import { asFailure, explain, Failure } from '../connection/errors.js';
import { EventStream } from '../connection/eventstream.js';
import { onWakeup, pause } from '../connection/wakeups.js';
import { settled, Trouble } from '../conversation/backoff.js';

export class Reading {
  #on;
  #call = null;
  #last = '';

  /**
   * @param {{event: (event: object) => void, state: (state: 'connecting'|'reading'|'reconnecting') => void,
   *          retrying: (detail: {wait_ms: number, failure: object}) => void, ended: (failure: object) => void}} on
   *   failures as `explain` tells them; `ended` comes once for each start, unless it is stopped
   */
  constructor(on) {
    this.#on = on;
  }

  get active() {
    return this.#call !== null;
  }

  /** The id of the last event, '' before the first. */
  get last() {
    return this.#last;
  }

  /**
   * @param {(last: string, signal: AbortSignal) => Promise<ReadableStream>} open  rejects with a Failure
   * @param {string} last  what was seen before
   */
  async start(open, last = '') {
    this.stop();
    this.#call = new AbortController();
    this.#last = last;
    const { signal } = this.#call;
    this.#on.state('connecting');
    const failure = await this.#run(open, signal);
    if (signal.aborted) return;
    this.#call = null;
    this.#on.ended(explain(failure));
  }

  stop() {
    this.#call?.abort();
    this.#call = null;
  }

  /** @returns {Promise<Failure>} why it cannot go on */
  async #run(open, signal) {
    let trouble = null;
    for (;;) {
      let began_ms = Infinity;
      let failure;
      try {
        const stream = await open(this.#last, signal);
        began_ms = performance.now();
        if (!signal.aborted) this.#on.state('reading');
        await this.#follow(stream, signal);
        failure = new Failure('peer_lost');
      } catch (error) {
        failure = asFailure(error);
      }
      if (signal.aborted || explain(failure).again !== 'auto') return failure;
      const now_ms = performance.now();
      if (!trouble || settled(now_ms - began_ms)) trouble = new Trouble(now_ms);
      const wait_ms = trouble.next(now_ms, Math.random(), { retryAfterS: failure.retryAfterS, hurry: true });
      if (wait_ms === null) return new Failure('gave_up', { last: failure });
      this.#on.state('reconnecting');
      this.#on.retrying({ wait_ms, failure: explain(failure) });
      await pause(wait_ms, signal);
      if (signal.aborted) return failure;
    }
  }

  /** To its end. */
  async #follow(stream, signal) {
    const reader = stream.getReader();
    const over = new AbortController();
    const cancel = () => reader.cancel().catch(() => {});
    signal.addEventListener('abort', cancel, { signal: over.signal });
    if (signal.aborted) cancel();
    // What came by a network that is gone does not end: it only stays away.
    onWakeup((what) => { if (what === 'online') cancel(); }, over.signal);
    const decoder = new TextDecoder();
    const events = new EventStream();
    try {
      for (;;) {
        const { done, value } = await reader.read().catch((cause) => { throw new Failure('peer_lost', { cause }); });
        if (done || signal.aborted) return;
        for (const event of events.push(decoder.decode(value, { stream: true }))) this.#take(event);
      }
    } finally {
      over.abort();
    }
  }

  #take({ id, data }) {
    if (id) this.#last = id;
    let event = null;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof event?.type === 'string') this.#on.event(event);
  }
}
