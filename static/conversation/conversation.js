// Owns a conversation from "Start" to "End": its state, one Connection at a time, and the way back after a loss: to the
// same session where the server still holds it, to a new one otherwise. It says what happens as plain data and knows
// no page.

import { fetchConfig } from '../connection/api.js';
import { Connection } from '../connection/connection.js';
import { asFailure, explain, Failure } from '../connection/errors.js';
import { figures, readStats } from '../connection/stats.js';
import { pause } from '../connection/wakeups.js';
import { backoffMs, settled, Trouble } from './backoff.js';
import { Capture } from './capture.js';
import { checkBrowser } from './microphone.js';
import { Sequence } from './sequence.js';
import { Ticket } from './ticket.js';

const TRANSITIONS = {
  idle: ['connecting'],
  connecting: ['starting', 'listening', 'ended'],
  // Connected, to a server whose model is on its way.
  starting: ['listening', 'reconnecting', 'ended'],
  listening: ['starting', 'speaking', 'reconnecting', 'ended'],
  speaking: ['listening', 'reconnecting', 'ended'],
  reconnecting: ['starting', 'listening', 'ended'],
  ended: ['connecting'],
};
const LIVE = new Set(['listening', 'speaking']);
const STATS_INTERVAL_MS = 1_000;
const CONNECT_TIMEOUT_S = 15;
// The server times the same wait, and can say more of it afterwards: it goes first.
const AFTER_THE_SERVER_MS = 500;
// Of a resume: a way that has not come about by then is tried again, with the addresses of then.
const RESUME_CONNECT_MS = 6_000;
// A request that sticks to a network that is gone is sent again; each time with more patience, for slow networks.
const RESUME_REQUEST_MS = 2_500;
// While a server stops, requests may still reach it.
const LONGEST_MOVE_PAUSE_MS = 1_000;

export const isActive = (state) => state !== 'idle' && state !== 'ended';

export class Conversation {
  #emit;
  #streams;
  #wish;
  #capture;
  #state = 'idle';
  #muted = false;
  #call = new AbortController();
  // The connection that counts, and the one that is to take its place as soon as the server has answered.
  #connection = null;
  #attempt = null;
  #answer = null;
  #ticket = new Ticket();
  #heard = new Sequence();
  #config = null;
  #connectedAt_ms = 0;
  #trouble = null;
  // While the session goes on to another server; `lost`: why the connection to this one has ended, if it has.
  #leaving = null;
  #statsTimer = 0;
  #counters = null;
  #serverStats = null;
  #serverState = 'listening';

  /**
   * @param {{service: string, raw: boolean, relayOnly: boolean, deviceId: string, captions: boolean, options?: object}} wish
   * @param {(type: string, detail: object) => void} emit  `detail` is plain data, see the calls below
   * @param {{microphone: (s: MediaStream|null) => void, voice: (s: MediaStream|null) => void}} streams
   */
  constructor(wish, emit, streams) {
    this.#wish = { ...wish };
    this.#emit = emit;
    this.#streams = streams;
    this.#capture = new Capture(wish, {
      stream: (stream) => streams.microphone(stream),
      track: (track) => this.#replaceTrack(track),
      device: (deviceId) => emit('microphone', { deviceId }),
      paused: (paused) => emit('microphone_paused', { paused }),
      problem: (said) => emit('problem', said),
    });
  }

  get state() {
    return this.#state;
  }

  get muted() {
    return this.#muted;
  }

  get sessionId() {
    return this.#connection?.id ?? null;
  }

  get pc() {
    return (this.#connection ?? this.#attempt)?.pc ?? null;
  }

  get capture() {
    return this.#capture;
  }

  /** Of the next session; '' is the server's default. */
  set service(name) {
    this.#wish.service = name;
  }

  /** Of the next session, beside what the conversation asks for itself: those of docs/protocol.md. */
  set options(options) {
    this.#wish.options = options;
  }

  /** @param {{muted?: boolean}} how  `muted`: the microphone opens, and is not heard until it is told to be */
  async start({ muted = false } = {}) {
    if (isActive(this.#state)) return;
    this.#call = new AbortController();
    const { signal } = this.#call;
    this.#trouble = null;
    this.#forgetSession();
    this.#muted = muted;
    this.#capture.mute(muted);
    this.#move('connecting');
    try {
      await this.#open(signal);
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
    this.#capture.mute(muted);
    this.#connection?.send({ type: 'settings', muted });
    this.#emit('muted', { muted });
  }

  /** Whether the server is to write down what the user says; in this conversation and those to come. */
  setCaptions(captions) {
    this.#wish.captions = captions;
    if (isActive(this.#state)) this.#connection?.send({ type: 'settings', captions });
  }

  /** A message of the service's own. @returns {boolean} whether it could be sent */
  send(message) {
    return this.#connection?.send(message) ?? false;
  }

  reset() {
    return this.#connection?.send({ type: 'reset' }) ?? false;
  }

  /** One connection. Rejects with a Failure, and leaves the conversation as it was where the server did not answer. */
  async #open(signal, { left_ms = Infinity, tries = 0 } = {}) {
    checkBrowser();
    const [config] = await Promise.all([this.#configuration(tries), this.#openMicrophone(signal)]);
    signal.throwIfAborted();
    const attempt = (this.#attempt ??= this.#newConnection(config));
    const resume = this.#ticket.held ? this.#ticket.present(this.#heard.last) : null;
    this.#emit('phase', { phase: 'offer' });
    try {
      await attempt.connect({
        stream: this.#capture.stream,
        ...(resume ? { resume } : { service: this.#wish.service, options: this.#options() }),
        ...this.#patience(config, left_ms, resume && tries),
      });
    } catch (error) {
      // Without an answer the ticket may be used up: the very same offer goes out again, or none.
      if (attempt === this.#attempt && !(resume && attempt.unanswered)) {
        this.#attempt = null;
        attempt.supersede();
      }
      throw error;
    }
    signal.throwIfAborted();
    this.#connectedAt_ms = performance.now();
    this.#takeTicket();
    this.#move(this.#serverState === 'starting' ? 'starting' : 'listening');
    // The model may have begun while the microphone did.
    if (this.#serverState === 'speaking') this.#move('speaking');
    this.#watchStats(attempt);
  }

  /** What differs from the server's defaults. */
  #options() {
    const { captions, options } = this.#wish;
    return { ...options, wait: true, ...(this.#muted && { muted: true }), ...(!captions && { captions: false }) };
  }

  #patience(config, left_ms, tries) {
    if (tries !== null) {
      return {
        request_timeout_ms: RESUME_REQUEST_MS * (1 + tries),
        timeout_ms: Math.min(RESUME_CONNECT_MS, left_ms),
      };
    }
    const timeout_ms = (config.limits?.connect_timeout_s ?? CONNECT_TIMEOUT_S) * 1000 + AFTER_THE_SERVER_MS;
    return { timeout_ms: Math.min(timeout_ms, left_ms) };
  }

  /** The first try to resume goes without asking again; by the second, TURN credentials may have expired. */
  async #configuration(tries) {
    if (this.#config && this.#ticket.held && (tries === 0 || this.#attempt)) return this.#config;
    this.#config = await fetchConfig();
    this.#emit('config', this.#config);
    return this.#config;
  }

  async #openMicrophone(signal) {
    this.#emit('phase', { phase: 'microphone' });
    await this.#capture.open(signal);
  }

  #newConnection(config) {
    const mine = (act) => (value) => {
      if (connection === this.#connection) act(value);
    };
    const ice = { iceServers: config.ice_servers ?? [], relayOnly: this.#wish.relayOnly };
    const connection = new Connection(ice, {
      answered: (answer) => this.#replaceConnection(connection, answer),
      message: mine((message) => this.#hear(message)),
      voice: mine((stream) => this.#streams.voice(stream)),
      unstable: mine((unstable) => this.#emit('unstable', { unstable })),
      phase: mine((phase) => this.#emit('phase', { phase })),
      lost: mine((failure) => this.#lost(failure)),
      // Until the next session has been answered, the last words of this one are welcome.
      late: (message) => { if (!this.#connection) this.#emit('late', message); },
    });
    return connection;
  }

  /** The server has answered: only now may the connection before go, for its end is the end of the session. */
  #replaceConnection(connection, answer) {
    this.#connection?.supersede();
    this.#connection = connection;
    this.#serverState = 'listening';
    this.#attempt = null;
    this.#answer = answer;
    // The token before is used up. A session that has never been connected is not one to come back to.
    if (this.#ticket.held) this.#takeTicket();
  }

  #takeTicket() {
    this.#ticket.take(this.#answer.session, this.#answer.resume, performance.now());
  }

  #replaceTrack(track) {
    for (const connection of [this.#connection, this.#attempt]) connection?.replaceTrack(track).catch(() => {});
  }

  #hear(message) {
    if (!this.#heard.take(message.seq)) return;
    this.#emit('message', message);
    // What was said of it while the path was down has not reached the server.
    if (message.type === 'connected' && (this.#muted || message.resumed)) {
      this.#connection.send({ type: 'settings', muted: this.#muted, captions: this.#wish.captions });
    }
    if (message.type === 'starting' || message.type === 'connected') this.#await(message.type === 'starting');
    if (message.type === 'moving') this.#moveOn();
    if (message.type === 'stats') this.#serverStats = message;
    if (message.type === 'state' && LIVE.has(message.state)) {
      this.#serverState = message.state;
      if (LIVE.has(this.#state)) this.#move(message.state);
    }
    if (message.type === 'error') {
      const { code, message: serverMessage, retryable } = message;
      this.#emit('problem', explain(new Failure(String(code), { serverMessage, retryable })));
    }
  }

  /** Whether there is a model yet. What it does comes later than that it is there. */
  #await(starting) {
    if (starting) this.#serverState = 'starting';
    else if (this.#serverState === 'starting') this.#serverState = 'listening';
    const state = starting ? 'starting' : 'listening';
    if (this.#state === (starting ? 'listening' : 'starting')) this.#move(state);
  }

  #lost(failure) {
    const said = explain(failure);
    if (this.#leaving && said.again === 'auto') {
      this.#leaving.lost = failure;
      return;
    }
    if (this.#connection.over) this.#forgetSession();
    if (failure.code === 'bye') this.#finish({ by: 'server' });
    else if (failure.code === 'engine_unavailable') this.#finish({ failure: said });
    else if (said.again === 'auto') this.#recover(failure);
    else this.#finish({ failure: said });
  }

  /** The server stops, and another one has the session for us. */
  async #moveOn() {
    if (this.#leaving || !this.#ticket.held) return;
    const { signal } = this.#call;
    const leaving = (this.#leaving = { lost: null });
    const failure = await this.#openElsewhere(leaving, signal);
    if (this.#leaving === leaving) this.#leaving = null;
    if (failure && !signal.aborted) this.#recover(failure);
  }

  /**
   * Until the other server answers, the voice goes on by this one.
   * @returns {Promise<Failure|null>} from what there is to recover; null: from nothing, here or there it goes on
   */
  async #openElsewhere(leaving, signal) {
    const before = this.#connection;
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        await this.#open(signal, { tries });
        return null;
      } catch (error) {
        const failure = asFailure(error);
        if (this.#connection !== before) return failure;
        const refused = this.#ticket.refusedBy(failure) || explain(failure).again !== 'auto';
        if (leaving.lost || refused) return leaving.lost;
      }
      await pause(backoffMs(tries, Math.random(), LONGEST_MOVE_PAUSE_MS), signal);
    }
    return null;
  }

  async #recover(cause) {
    const { signal } = this.#call;
    const now_ms = performance.now();
    this.#ticket.lost(now_ms);
    if (!this.#trouble || settled(now_ms - this.#connectedAt_ms)) {
      this.#trouble = new Trouble(now_ms, this.#ticket.grace_ms);
    }
    this.#move('reconnecting');
    this.#streams.voice(null);
    clearInterval(this.#statsTimer);
    let last = cause;
    while (!signal.aborted) {
      if (!(await this.#waitForNext(last, signal))) return;
      try {
        await this.#open(signal, {
          left_ms: Math.max(this.#trouble.left_ms(performance.now()), 1_000),
          tries: this.#trouble.attempts - 1,
        });
        return;
      } catch (error) {
        if (signal.aborted) return;
        last = asFailure(error);
        if (this.#ticket.refusedBy(last)) this.#giveUpSession(last);
        else if (explain(last).again !== 'auto') this.#finish({ failure: explain(last) });
      }
    }
  }

  /** @returns {Promise<boolean>} false: it is over */
  async #waitForNext(last, signal) {
    const now_ms = performance.now();
    const resuming = this.#ticket.valid(now_ms);
    const { retryAfterS } = last;
    const wait_ms = this.#trouble.next(now_ms, Math.random(), { retryAfterS, hurry: resuming });
    if (wait_ms === null) {
      this.#finish({ failure: explain(new Failure('gave_up', { last })) });
      return false;
    }
    this.#emit('retrying', { attempt: this.#trouble.attempts, wait_ms, resuming, failure: explain(last) });
    // Without a way back into it, the old session goes first: on a server with one place its ghost would be in the way.
    if (!this.#ticket.held) await Promise.all([this.#dropConnection(), pause(wait_ms, signal)]);
    else if (wait_ms > 0) await pause(wait_ms, signal);
    return !signal.aborted;
  }

  /** The server does not let us back in: what follows is a new conversation. */
  #giveUpSession(failure) {
    // It has said that there is no such session (any more): nothing is left to be ended.
    if (failure.code !== 'resume_refused') this.#connection?.supersede();
    this.#forgetSession();
    // It has answered, which is a new beginning.
    this.#trouble = new Trouble(performance.now());
  }

  #forgetSession() {
    this.#ticket.drop();
    this.#heard = new Sequence();
  }

  #watchStats(connection) {
    clearInterval(this.#statsTimer);
    this.#counters = null;
    this.#serverStats = null;
    this.#statsTimer = setInterval(async () => {
      const report = await connection.pc.getStats();
      if (connection !== this.#connection || !LIVE.has(this.#state)) return;
      const reading = readStats(report.values(), this.#counters);
      this.#counters = reading.counters;
      this.#emit('figures', figures(reading, this.#serverStats));
    }, STATS_INTERVAL_MS);
  }

  async #dropConnection(how) {
    const connection = this.#connection;
    this.#connection = null;
    clearInterval(this.#statsTimer);
    this.#attempt?.supersede();
    this.#attempt = null;
    await connection?.close(how);
  }

  #finish(outcome, how) {
    this.#call.abort();
    this.#leaving = null;
    this.#dropConnection(how).then(() => { if (!this.#connection) this.#emit('gone', {}); });
    this.#forgetSession();
    this.#capture.close();
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
