// Owns a conversation from "Start" to "End": its state, the microphone, one Session at a time, and the way back
// after a loss. It says what happens as plain data and knows no page.

import { fetchConfig } from './api.js';
import { settled, Trouble } from './backoff.js';
import { asFailure, explain, Failure } from './errors.js';
import { checkBrowser, openMicrophone } from './microphone.js';
import { Session } from './session.js';
import { figures, readStats } from './stats.js';

const TRANSITIONS = {
  idle: ['connecting'],
  connecting: ['listening', 'ended'],
  listening: ['speaking', 'reconnecting', 'ended'],
  speaking: ['listening', 'reconnecting', 'ended'],
  reconnecting: ['listening', 'ended'],
  ended: ['connecting'],
};
const LIVE = new Set(['listening', 'speaking']);
const STATS_INTERVAL_MS = 1_000;
const CONNECT_TIMEOUT_S = 15;

export const isActive = (state) => state !== 'idle' && state !== 'ended';

/** Resolves after `ms`, when the network comes back, or when `signal` aborts: whichever is first. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      window.removeEventListener('online', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    window.addEventListener('online', done);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}

export class Conversation {
  #emit;
  #streams;
  #wish;
  #state = 'idle';
  #muted = false;
  #call = new AbortController();
  #session = null;
  #microphone = null;
  #connectedAt_ms = 0;
  #trouble = null;
  #statsTimer = 0;
  #counters = null;
  #serverStats = null;

  /**
   * @param {{service: string, raw: boolean, deviceId: string}} wish
   * @param {(type: string, detail: object) => void} emit  `detail` is plain data, see the calls below
   * @param {{microphone: (s: MediaStream|null) => void, voice: (s: MediaStream|null) => void}} streams
   */
  constructor(wish, emit, streams) {
    this.#wish = { ...wish };
    this.#emit = emit;
    this.#streams = streams;
  }

  get state() {
    return this.#state;
  }

  get muted() {
    return this.#muted;
  }

  get sessionId() {
    return this.#session?.id ?? null;
  }

  get pc() {
    return this.#session?.pc ?? null;
  }

  async start() {
    if (isActive(this.#state)) return;
    this.#call = new AbortController();
    const { signal } = this.#call;
    this.#trouble = null;
    this.#muted = false;
    this.#move('connecting');
    try {
      await this.#open(signal, Infinity);
    } catch (error) {
      if (!signal.aborted) this.#finish({ failure: explain(asFailure(error)) });
    }
  }

  /** The user, or the page as it goes away, ends it. */
  end({ leaving = false } = {}) {
    if (isActive(this.#state)) this.#finish({ by: leaving ? 'leaving' : 'you' }, { bye: true, leaving });
  }

  setMuted(muted) {
    if (!isActive(this.#state)) return;
    this.#muted = muted;
    this.#applyMute();
    this.#session?.send({ type: 'settings', muted });
    this.#emit('muted', { muted });
  }

  reset() {
    return this.#session?.send({ type: 'reset' }) ?? false;
  }

  /** Also while a conversation runs. `deviceId` '' is the system's choice. */
  async chooseMicrophone(deviceId) {
    const before = this.#wish.deviceId;
    this.#wish.deviceId = deviceId;
    if (!this.#microphone) return;
    const { signal } = this.#call;
    try {
      await this.#takeMicrophone(signal);
      await this.#session?.replaceTrack(this.#microphone.getAudioTracks()[0]);
    } catch (error) {
      if (signal.aborted) return;
      this.#wish.deviceId = before;
      this.#emit('microphone', { deviceId: before });
      this.#emit('problem', explain(asFailure(error)));
    }
  }

  async #open(signal, left_ms) {
    checkBrowser();
    const held = this.#microphone?.getAudioTracks()[0];
    if (held?.readyState !== 'live') {
      this.#emit('phase', { phase: 'microphone' });
      await this.#takeMicrophone(signal);
    }
    this.#emit('phase', { phase: 'offer' });
    const config = await fetchConfig();
    signal.throwIfAborted();
    this.#emit('config', config);

    const session = this.#newSession(config);
    const timeout_s = config.limits?.connect_timeout_s ?? CONNECT_TIMEOUT_S;
    this.#session = session;
    await session.connect({
      stream: this.#microphone,
      service: this.#wish.service,
      options: this.#muted ? { muted: true } : undefined,
      timeout_ms: Math.min(timeout_s * 1000, left_ms),
    });
    signal.throwIfAborted();
    this.#connectedAt_ms = performance.now();
    this.#move('listening');
    this.#watchStats(session);
  }

  #newSession(config) {
    const mine = (act) => (value) => {
      if (session === this.#session) act(value);
    };
    const session = new Session(config.ice_servers ?? [], {
      message: mine((message) => this.#hear(message)),
      voice: mine((stream) => this.#streams.voice(stream)),
      unstable: mine((unstable) => this.#emit('unstable', { unstable })),
      phase: mine((phase) => this.#emit('phase', { phase })),
      lost: mine((failure) => this.#lost(failure)),
    });
    return session;
  }

  async #takeMicrophone(signal) {
    // iOS ends the open track as soon as another is asked for: that is no loss.
    const [held] = this.#microphone?.getAudioTracks() ?? [];
    if (held) held.onended = null;
    let opened;
    try {
      opened = await openMicrophone(this.#wish);
    } catch (error) {
      if (held) held.onended = () => this.#microphoneEnded(held);
      throw error;
    }
    const { stream, deviceId } = opened;
    if (signal.aborted) {
      for (const track of stream.getTracks()) track.stop();
      signal.throwIfAborted();
    }
    this.#dropMicrophone();
    this.#microphone = stream;
    this.#wish.deviceId = deviceId;
    const [track] = stream.getAudioTracks();
    track.onended = () => this.#microphoneEnded(track);
    this.#applyMute();
    this.#streams.microphone(stream);
    this.#emit('microphone', { deviceId });
  }

  /** Unplugged, or taken back: go on with the system's microphone if there is one. */
  async #microphoneEnded(track) {
    if (!isActive(this.#state) || track !== this.#microphone?.getAudioTracks()[0]) return;
    const { signal } = this.#call;
    this.#wish.deviceId = '';
    try {
      await this.#takeMicrophone(signal);
      await this.#session?.replaceTrack(this.#microphone.getAudioTracks()[0]);
    } catch {
      if (!signal.aborted) this.#emit('problem', explain(new Failure('microphone_lost')));
    }
  }

  #dropMicrophone() {
    for (const track of this.#microphone?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.#microphone = null;
  }

  #applyMute() {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !this.#muted;
  }

  #hear(message) {
    this.#emit('message', message);
    if (message.type === 'connected' && this.#muted) this.#session.send({ type: 'settings', muted: true });
    if (message.type === 'stats') this.#serverStats = message;
    if (message.type === 'state' && LIVE.has(message.state) && LIVE.has(this.#state)) this.#move(message.state);
    if (message.type === 'error') {
      const { code, message: serverMessage, retryable } = message;
      this.#emit('problem', explain(new Failure(String(code), { serverMessage, retryable })));
    }
  }

  #lost(failure) {
    const said = explain(failure);
    if (failure.code === 'bye') this.#finish({ by: 'server' });
    else if (said.again === 'auto') this.#recover(failure);
    else this.#finish({ failure: said });
  }

  async #recover(cause) {
    const { signal } = this.#call;
    const now_ms = performance.now();
    if (!this.#trouble || settled(now_ms - this.#connectedAt_ms)) this.#trouble = new Trouble(now_ms);
    this.#move('reconnecting');
    this.#streams.voice(null);
    let last = cause;
    for (;;) {
      const wait_ms = this.#trouble.next(performance.now(), Math.random(), last.retryAfterS);
      if (wait_ms === null) {
        this.#finish({ failure: explain(new Failure('gave_up', { last })) });
        return;
      }
      this.#emit('retrying', { attempt: this.#trouble.attempts, wait_ms, failure: explain(last) });
      // The old session first: on a server with one place, its ghost would be in the way.
      await Promise.all([this.#dropSession(), pause(wait_ms, signal)]);
      if (signal.aborted) return;
      try {
        await this.#open(signal, Math.max(this.#trouble.left_ms(performance.now()), 1_000));
        return;
      } catch (error) {
        if (signal.aborted) return;
        last = asFailure(error);
        if (explain(last).again !== 'auto') {
          this.#finish({ failure: explain(last) });
          return;
        }
      }
    }
  }

  #watchStats(session) {
    clearInterval(this.#statsTimer);
    this.#counters = null;
    this.#serverStats = null;
    this.#statsTimer = setInterval(async () => {
      const report = await session.pc.getStats();
      if (session !== this.#session || !LIVE.has(this.#state)) return;
      const reading = readStats(report.values(), this.#counters);
      this.#counters = reading.counters;
      this.#emit('figures', figures(reading, this.#serverStats));
    }, STATS_INTERVAL_MS);
  }

  async #dropSession(how) {
    const session = this.#session;
    this.#session = null;
    clearInterval(this.#statsTimer);
    await session?.close(how);
  }

  #finish(outcome, how) {
    this.#call.abort();
    this.#dropSession(how);
    this.#dropMicrophone();
    this.#streams.microphone(null);
    this.#streams.voice(null);
    this.#muted = false;
    this.#move('ended', outcome);
  }

  #move(state, outcome = {}) {
    const from = this.#state;
    if (from === state) return;
    if (!TRANSITIONS[from].includes(state)) throw new Error(`illegal: ${from} -> ${state}`);
    this.#state = state;
    this.#emit('state', { state, from, ...outcome });
  }
}
