// Owns one file on its way through POST /api/transcribe: up, and its words back as they are found. Knows no page.

import { addressOf, refusal } from '../connection/api.js';
import { authorization } from '../connection/auth.js';
import { Failure } from '../connection/errors.js';
import { EventStream } from '../connection/eventstream.js';

// The server says something at least every few seconds while it works.
const SILENCE_MS = 120_000;
// What these codes mean of a file; of an offer they mean something else.
const OF_A_FILE = {
  too_large: 'file_too_large', time_limit: 'file_too_long', not_audio: 'file_not_audio', unknown_service: 'file_not_here',
};

export class Upload {
  #request = new XMLHttpRequest();
  #events = new EventStream();
  #read = 0;
  #cancelled = false;
  #failed = null;
  #done = null;
  #warnings = [];
  #timer = 0;

  /**
   * @param {File} file
   * @param {{sent: (share: number) => void, word: (w: import('./captions.js').Word) => void}} on
   * @returns {Promise<{duration_ms: number, words: number, warnings: string[]}|null>} null: it was cancelled.
   *   `warnings`: sentences about what of the file was not heard. Rejects with a Failure.
   */
  send(file, on) {
    const request = this.#request;
    const headers = { Accept: 'text/event-stream', ...authorization() };
    return new Promise((resolve, reject) => {
      // Not fetch: that does not tell how much of a body has gone up.
      request.open('POST', addressOf('api/transcribe'));
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = ({ loaded, total }) => {
        this.#alive();
        on.sent(total ? loaded / total : 1);
      };
      request.upload.onload = () => on.sent(1);
      request.onprogress = () => this.#take(on);
      request.onloadend = () => {
        clearTimeout(this.#timer);
        this.#take(on);
        const failure = this.#failure('Authorization' in headers);
        if (this.#cancelled) resolve(null);
        else if (failure) reject(failure);
        else resolve(this.#done);
      };
      this.#alive();
      request.send(file);
    });
  }

  cancel() {
    this.#cancelled = true;
    this.#request.abort();
  }

  #alive() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#request.abort(), SILENCE_MS);
  }

  #take(on) {
    const { status, responseText } = this.#request;
    if (status !== 200 || this.#cancelled) return;
    this.#alive();
    const piece = responseText.slice(this.#read);
    this.#read += piece.length;
    for (const { event, data } of this.#events.push(piece)) this.#hear(event, data, on);
  }

  #hear(event, data, on) {
    let body = null;
    try {
      body = JSON.parse(data);
    } catch {
      return;
    }
    if (event === 'word' && isWord(body)) on.word(body);
    if (event === 'warning' && typeof body?.message === 'string') this.#warnings.push(body.message);
    if (event === 'done') {
      const warnings = this.#warnings;
      this.#done = { duration_ms: Number(body?.duration_ms) || 0, words: Number(body?.words) || 0, warnings };
    }
    if (event === 'error') this.#failed = body;
  }

  #failure(withKey) {
    const { status } = this.#request;
    if (status === 0) return new Failure(navigator.onLine === false ? 'offline' : 'unreachable');
    if (status === 200 && this.#done) return null;
    // Nothing but an end: what stands between the page and the server has cut it off.
    if (status === 200 && !this.#failed) return new Failure('file_cut');
    const headers = { get: (name) => this.#request.getResponseHeader(name) };
    const failure = refusal({ headers }, this.#failed ?? this.#body(), withKey);
    failure.code = OF_A_FILE[failure.code] ?? failure.code;
    return failure;
  }

  #body() {
    try {
      return JSON.parse(this.#request.responseText);
    } catch {
      return null;
    }
  }
}

/** What a message or an event calls a word. */
export function isWord(body) {
  return typeof body?.text === 'string' && body.text.trim() !== ''
    && Number.isFinite(body.start_ms) && Number.isFinite(body.end_ms) && body.start_ms >= 0;
}

/** How long the audio of a file is, as far as this browser can tell. @returns {Promise<number|null>} in ms */
export function durationOf(file) {
  const probe = document.createElement('audio');
  const url = URL.createObjectURL(file);
  return new Promise((resolve) => {
    probe.onloadedmetadata = () => resolve(Number.isFinite(probe.duration) ? probe.duration * 1000 : null);
    probe.onerror = () => resolve(null);
    probe.preload = 'metadata';
    probe.src = url;
  }).finally(() => {
    probe.removeAttribute('src');
    URL.revokeObjectURL(url);
  });
}
