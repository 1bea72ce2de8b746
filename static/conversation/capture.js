// Owns the microphone of a conversation: it opens one, keeps one open through unplugged devices and phone calls, and
// changes it. How a microphone is opened is microphone.js.

import { asFailure, explain, Failure } from '../connection/errors.js';
import { isThere } from './devices.js';
import { openMicrophone } from './microphone.js';

// After a phone call the system gives the microphone back within moments, or not at all.
const STILL_MUTED_MS = 3_000;

export class Capture {
  #wish;
  #on;
  #stream = null;
  #muted = false;
  #call = new AbortController();
  #reopening = false;

  /**
   * @param {{deviceId: string, raw: boolean}} wish
   * @param {{stream: (s: MediaStream|null) => void, track: (t: MediaStreamTrack) => void,
   *          device: (id: string) => void, paused: (p: boolean) => void, problem: (said: object) => void}} on
   *   `track`: another one than before; `paused`: the system holds the sound back
   */
  constructor({ deviceId, raw }, on) {
    this.#wish = { deviceId, raw };
    this.#on = on;
  }

  get stream() {
    return this.#stream;
  }

  get #track() {
    return this.#stream?.getAudioTracks()[0] ?? null;
  }

  /** Opens one, unless one is open. Rejects with a Failure. @param {AbortSignal} signal of the conversation */
  async open(signal) {
    this.#call = { signal };
    if (this.#track?.readyState === 'live') return;
    await this.#take();
  }

  /** '' is the system's choice. */
  async choose(deviceId) {
    const before = this.#wish.deviceId;
    this.#wish.deviceId = deviceId;
    if (!this.#stream) return;
    try {
      await this.#take();
    } catch (error) {
      if (this.#call.signal.aborted) return;
      this.#wish.deviceId = before;
      this.#on.device(before);
      this.#on.problem(explain(asFailure(error)));
    }
  }

  mute(muted) {
    this.#muted = muted;
    if (this.#track) this.#track.enabled = !muted;
  }

  /** Devices came or went, or the page is looked at again: is what we hold still one that works? */
  async check() {
    const track = this.#track;
    if (!track || document.visibilityState !== 'visible') return;
    const { deviceId } = track.getSettings?.() ?? {};
    if (track.readyState === 'ended') await this.#reopen(track);
    else if (deviceId && !(await isThere(deviceId))) await this.#reopen(track, '');
  }

  /** A phone call, or whatever held the sound back, is over. */
  resume() {
    const track = this.#track;
    this.check();
    // iOS has been seen to leave a track muted for good.
    if (track?.muted) setTimeout(() => { if (track === this.#track && track.muted) this.#reopen(track); }, STILL_MUTED_MS);
  }

  close() {
    this.#drop();
    this.#muted = false;
    this.#on.stream(null);
  }

  async #take() {
    const { signal } = this.#call;
    // iOS ends the open track as soon as another is asked for: that is no loss.
    const held = this.#track;
    if (held) held.onended = null;
    let opened;
    try {
      opened = await openMicrophone(this.#wish);
    } catch (error) {
      if (held) held.onended = () => this.#reopen(held, '');
      throw error;
    }
    const { stream, deviceId } = opened;
    if (signal.aborted) {
      for (const track of stream.getTracks()) track.stop();
      signal.throwIfAborted();
    }
    this.#drop();
    this.#stream = stream;
    this.#wish.deviceId = deviceId;
    const track = this.#track;
    track.onended = () => this.#reopen(track, '');
    track.onmute = () => this.#on.paused(true);
    track.onunmute = () => this.#on.paused(false);
    track.enabled = !this.#muted;
    this.#on.paused(track.muted);
    this.#on.stream(stream);
    this.#on.device(deviceId);
    this.#on.track(track);
  }

  /** Unplugged, or taken back: go on with another, the system's by default, if there is one. */
  async #reopen(track, deviceId = this.#wish.deviceId) {
    const { signal } = this.#call;
    if (this.#reopening || signal.aborted || track !== this.#track) return;
    this.#reopening = true;
    this.#wish.deviceId = deviceId;
    try {
      await this.#take();
    } catch {
      // Phones open none for a page that is not shown: `check` tries again when it is.
      if (!signal.aborted && document.visibilityState === 'visible') this.#on.problem(explain(new Failure('microphone_lost')));
    } finally {
      this.#reopening = false;
    }
  }

  #drop() {
    for (const track of this.#stream?.getTracks() ?? []) {
      track.onended = track.onmute = track.onunmute = null;
      track.stop();
    }
    this.#stream = null;
  }
}
