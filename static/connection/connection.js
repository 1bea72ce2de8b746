// Owns one connection: RTCPeerConnection, POST /api/offer, the data channel `text`, and their end.
// It knows neither the page nor the user, and never tries again: that is conversation/conversation.js.

import { deleteSession, isUnknown, postOffer, whyEnded } from './api.js';
import { Failure } from './errors.js';
import { untilItFlows } from './flow.js';
import { Gathering, hasRelay, relayFailure } from './gathering.js';
import { Trickle } from './trickle.js';
import { Watch } from './watch.js';

const BYE_GRACE_MS = 700;
// A service that only writes has words under way when it hears "bye", and the server takes up to 3 s for them.
const LAST_WORDS_MS = 3_500;
// Failures that leave open whether the server has seen the request.
const UNANSWERED = new Set(['unreachable', 'offline', 'bad_gateway']);

const elapsed = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

export class Connection {
  #on;
  #ice;
  #channel;
  #sender;
  #gathering;
  #trickle = new Trickle();
  #watch = null;
  #offer = null;
  #unanswered = false;
  #id = null;
  #connected = false;
  #closed = false;
  #over = false;
  #failed = null;
  #farewell = null;
  #farewell_ms = BYE_GRACE_MS;
  #settle = null;
  #connecting = 0;

  /**
   * @param {{iceServers: RTCIceServer[], relayOnly?: boolean}} ice
   * @param {{answered: (a: {session: string, resume?: object}) => void, message: (m: object) => void,
   *          voice: (s: MediaStream) => void, unstable: (u: boolean) => void, phase: (name: string) => void,
   *          lost: (f: Failure) => void, late: (m: object) => void}} on
   *   `lost` comes once, and only after `connect` has succeeded; `late` is what is said between `bye` and the end.
   */
  constructor(ice, on) {
    this.#on = on;
    this.#ice = ice;
    const { iceServers, relayOnly } = ice;
    this.pc = new RTCPeerConnection({
      iceServers,
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
      // The server bundles: without this, addresses (and places on a relay) would be gathered for each section.
      bundlePolicy: 'max-bundle',
    });
    this.#gathering = new Gathering(this.pc, {
      candidate: (candidate) => this.#trickle.add(candidate),
      complete: () => this.#gathered(),
    });
    this.#channel = this.pc.createDataChannel('text', { ordered: true });
    this.#channel.onmessage = (event) => this.#receive(event.data);
    this.#channel.onclose = () => this.#lose(new Failure('peer_lost'));
    this.pc.onconnectionstatechange = () => this.#follow(this.pc.connectionState);
    this.pc.ontrack = ({ track, streams }) => on.voice(streams[0] ?? new MediaStream([track]));
  }

  get id() {
    return this.#id;
  }

  get open() {
    return !this.#closed && this.#channel.readyState === 'open';
  }

  /** The server has said that the session has ended. */
  get over() {
    return this.#over;
  }

  /** Whether an offer is out without an answer: `connect` sends the very same again. */
  get unanswered() {
    return this.#unanswered;
  }

  /**
   * Offers, and waits until the microphone's sound leaves. Rejects with a Failure; close() in between rejects it too.
   * @param {{stream: MediaStream, service?: string, options?: object,
   *          resume?: {session: string, token: string, last_seq: number},
   *          request_timeout_ms?: number, timeout_ms: number}} call  of a second try, only the times count
   */
  async connect({ request_timeout_ms, timeout_ms, ...call }) {
    this.#offer ??= await this.#describe(call);
    this.#unlessClosed();
    const answer = await this.#post(request_timeout_ms);
    this.#id = answer.session;
    if (this.#closed) {
      // The user left while the server was answering: give the slot back rather than let it time out. The end of
      // a session that this one resumes is told by the connection before.
      if (!this.#offer.resume) deleteSession(this.#id);
      this.#unlessClosed();
    }
    this.#on.answered(answer);
    this.#on.phase('route');
    try {
      await this.#route(answer, timeout_ms);
    } catch (error) {
      if (error.code === 'no_route' && !this.#closed && !this.#offer.resume) await this.#askWhy(error);
      throw error;
    }
  }

  /** @returns {boolean} whether it could be sent */
  send(message) {
    if (!this.open) return false;
    this.#channel.send(JSON.stringify(message));
    return true;
  }

  async replaceTrack(track) {
    if (!this.#closed) await this.#sender?.replaceTrack(track);
  }

  /** The conversation goes on in another connection: the server is told nothing. */
  supersede() {
    if (this.#closed) return;
    this.#shut();
    this.pc.close();
  }

  /**
   * Ends it, once. Resolves when the server knows, or cannot be told.
   * @param {{bye?: boolean, leaving?: boolean}} how  `leaving`: the page goes away, so nothing can be waited for
   */
  async close({ bye = false, leaving = false } = {}) {
    if (this.#closed) return;
    const told = (bye || leaving) && this.send({ type: 'bye' });
    this.#shut();
    if (leaving) {
      if (this.#id && !this.#over) deleteSession(this.#id);
      this.pc.close();
      return;
    }
    if (told && !this.#over) await this.#answeredBye();
    // Before the connection goes: its end is the end of the session, which could not be ended again.
    if (this.#id && !this.#over) await Promise.race([deleteSession(this.#id), elapsed(BYE_GRACE_MS)]);
    this.pc.close();
  }

  #shut() {
    this.#closed = true;
    this.#watch?.stop();
    this.#trickle.close();
    this.#settle?.reject(new Failure('peer_lost'));
  }

  #unlessClosed() {
    if (this.#closed) throw new Failure('peer_lost');
  }

  async #describe({ stream, service, options, resume }) {
    const { iceServers, relayOnly } = this.#ice;
    if (relayOnly && !hasRelay(iceServers)) throw new Failure('relay_missing');
    const [track] = stream.getAudioTracks();
    this.#sender = this.pc.addTransceiver(track, { direction: 'sendrecv', streams: [stream] }).sender;
    await this.pc.setLocalDescription();
    const { sdp } = this.pc.localDescription;
    this.#trickle.included();
    return { sdp, type: 'offer', ...(service && { service }), ...(options && { options }), ...(resume && { resume }) };
  }

  async #post(request_timeout_ms) {
    try {
      const answer = await postOffer(this.#offer, request_timeout_ms);
      this.#unanswered = false;
      return answer;
    } catch (failure) {
      this.#unanswered = UNANSWERED.has(failure.code);
      throw failure;
    }
  }

  async #route(answer, timeout_ms) {
    const connected = this.#settled(timeout_ms);
    this.#trickle.open(answer.session, answer.etag);
    try {
      await Promise.all([this.pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp }), connected]);
    } catch (error) {
      throw error instanceof Failure ? error : new Failure('bad_gateway', { cause: error });
    }
  }

  /** The server may know more of it, such as which of its ports cannot be reached. */
  async #askWhy(failure) {
    failure.added = await whyEnded(this.#id);
    if (failure.added) this.#over = true;
  }

  #gathered() {
    const failure = this.#noRoute();
    if (failure.code !== 'no_route') this.#lose(failure);
    this.#trickle.complete();
  }

  /** Why there is no way: without a relayed address of ours, where nothing else is allowed, it is the relay. */
  #noRoute() {
    if (!this.#ice.relayOnly || this.#gathering.found) return new Failure('no_route');
    return relayFailure(this.#gathering.errorCodes);
  }

  #settled(timeout_ms) {
    if (this.#failed) return Promise.reject(this.#failed);
    return new Promise((resolve, reject) => {
      this.#connecting = setTimeout(() => this.#settle.reject(this.#noRoute()), timeout_ms);
      const settle = (act) => (value) => {
        clearTimeout(this.#connecting);
        this.#settle = null;
        act(value);
      };
      this.#settle = { resolve: settle(resolve), reject: settle(reject) };
    });
  }

  #answeredBye() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, this.#farewell_ms);
      this.#farewell = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #follow(connectionState) {
    if (this.#closed) return;
    if (connectionState === 'connected' && !this.#connected) {
      this.#connected = true;
      this.#watch = new Watch(this.pc, {
        ask: (id) => this.#ask(id),
        doubtful: (doubtful) => this.#on.unstable(doubtful),
        dead: () => this.#lose(new Failure('peer_lost')),
      });
      this.#flow();
    } else if (connectionState === 'failed') {
      this.#lose(this.#connected ? new Failure('peer_lost') : this.#noRoute());
    } else if (connectionState === 'disconnected') {
      this.#watch?.demand();
    }
  }

  /** Both ways: where the path is dead nothing comes back, and where the server's process is, another one answers. */
  async #ask(id) {
    this.send({ type: 'ping', id });
    const unknown = await isUnknown(this.#id);
    if (unknown && !this.#closed) this.#lose(new Failure('peer_lost'));
  }

  async #flow() {
    clearTimeout(this.#connecting);
    this.#on.phase('sound');
    await untilItFlows(this.pc, this.#sender);
    this.#settle?.resolve();
  }

  #receive(data) {
    let message = null;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof message?.type !== 'string') return;
    if (message.type === 'disconnected') this.#over = true;
    if (message.type === 'connected' && message.speaks === false) this.#farewell_ms = LAST_WORDS_MS;
    if (this.#closed) {
      if (this.#over) this.#farewell?.();
      else if (this.#farewell) this.#on.late(message);
      return;
    }
    this.#watch?.heard(message);
    this.#on.message(message);
    if (this.#over) this.#lose(new Failure(String(message.reason)));
  }

  #lose(failure) {
    if (this.#closed) {
      this.#farewell?.();
      return;
    }
    this.#watch?.stop();
    if (this.#settle) this.#settle.reject(failure);
    else if (this.#connected) {
      const { lost } = this.#on;
      this.#on = { ...this.#on, lost: () => {} };
      lost(failure);
    } else {
      this.#failed ??= failure;
    }
  }
}
