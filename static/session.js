// Owns one connection: RTCPeerConnection, POST /api/offer, the data channel `text`, and their end.
// It knows neither the page nor the user, and never tries again: that is conversation.js.

import { deleteSession, postOffer } from './api.js';
import { Failure } from './errors.js';

const GATHERING_MS = 1_000;
// ICE calls a path "disconnected" after some seconds without an answer; it often comes back by itself.
const DISCONNECTED_GRACE_MS = 3_000;
const BYE_GRACE_MS = 700;

export class Session {
  #on;
  #channel;
  #sender;
  #id = null;
  #connected = false;
  #closed = false;
  #over = false;
  #farewell = null;
  #graceTimer = 0;
  #settle = null;

  /**
   * @param {RTCIceServer[]} iceServers
   * @param {{message: (m: object) => void, voice: (s: MediaStream) => void, unstable: (u: boolean) => void,
   *          phase: (name: string) => void, lost: (f: Failure) => void}} on
   *   `lost` comes once, and only after `connect` has succeeded.
   */
  constructor(iceServers, on) {
    this.#on = on;
    this.pc = new RTCPeerConnection({ iceServers });
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

  /**
   * Offers, and waits until media flows. Rejects with a Failure; close() in between rejects it too.
   * @param {{stream: MediaStream, service?: string, options?: object, timeout_ms: number}} call
   */
  async connect({ stream, service, options, timeout_ms }) {
    const [track] = stream.getAudioTracks();
    this.#sender = this.pc.addTransceiver(track, { direction: 'sendrecv', streams: [stream] }).sender;
    await this.pc.setLocalDescription();
    await this.#gathered();
    this.#unlessClosed();

    const { sdp } = this.pc.localDescription;
    const answer = await postOffer({ sdp, type: 'offer', ...(service && { service }), ...(options && { options }) });
    this.#id = answer.session;
    if (this.#closed) {
      // The user left while the server was answering: give the slot back rather than let it time out.
      deleteSession(this.#id);
      this.#unlessClosed();
    }

    this.#on.phase('route');
    const connected = this.#settled(timeout_ms);
    try {
      await Promise.all([this.pc.setRemoteDescription({ type: 'answer', sdp: answer.sdp }), connected]);
    } catch (error) {
      throw error instanceof Failure ? error : new Failure('bad_gateway', { cause: error });
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

  /**
   * Ends it, once. Resolves when the server knows, or cannot be told.
   * @param {{bye?: boolean, leaving?: boolean}} how  `leaving`: the page goes away, so nothing can be waited for
   */
  async close({ bye = false, leaving = false } = {}) {
    if (this.#closed) return;
    const told = (bye || leaving) && this.send({ type: 'bye' });
    this.#closed = true;
    clearTimeout(this.#graceTimer);
    this.#settle?.reject(new Failure('peer_lost'));
    if (leaving) {
      if (this.#id && !this.#over) deleteSession(this.#id);
      this.pc.close();
      return;
    }
    if (told && !this.#over) await this.#answeredBye();
    this.pc.close();
    if (this.#id && !this.#over) await deleteSession(this.#id);
  }

  #unlessClosed() {
    if (this.#closed) throw new Failure('peer_lost');
  }

  #gathered() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, GATHERING_MS);
      const done = () => {
        if (this.pc.iceGatheringState !== 'complete' && !this.#closed) return;
        clearTimeout(timer);
        resolve();
      };
      this.pc.addEventListener('icegatheringstatechange', done);
      done();
    });
  }

  #settled(timeout_ms) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Failure('no_route')), timeout_ms);
      const settle = (act) => (value) => {
        clearTimeout(timer);
        this.#settle = null;
        act(value);
      };
      this.#settle = { resolve: settle(resolve), reject: settle(reject) };
    });
  }

  #answeredBye() {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, BYE_GRACE_MS);
      this.#farewell = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #follow(connectionState) {
    if (this.#closed) return;
    clearTimeout(this.#graceTimer);
    if (connectionState === 'connected') {
      if (this.#connected) this.#on.unstable(false);
      this.#connected = true;
      this.#settle?.resolve();
    } else if (connectionState === 'failed') {
      this.#lose(new Failure(this.#connected ? 'peer_lost' : 'no_route'));
    } else if (connectionState === 'disconnected' && this.#connected) {
      this.#on.unstable(true);
      this.#graceTimer = setTimeout(() => this.#lose(new Failure('peer_lost')), DISCONNECTED_GRACE_MS);
    }
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
    if (this.#closed) {
      if (this.#over) this.#farewell?.();
      return;
    }
    this.#on.message(message);
    if (this.#over) this.#lose(new Failure(String(message.reason)));
  }

  #lose(failure) {
    if (this.#closed) {
      this.#farewell?.();
      return;
    }
    clearTimeout(this.#graceTimer);
    if (this.#settle) this.#settle.reject(failure);
    else if (this.#connected) {
      const { lost } = this.#on;
      this.#on = { ...this.#on, lost: () => {} };
      lost(failure);
    }
  }
}
