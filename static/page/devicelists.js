// Owns the choice of a microphone and of a loudspeaker: the two lists, what was chosen in them last, and what becomes of
// a choice.

import { list, remember, remembered } from '../conversation/devices.js';
import { fill } from './controls.js';

export class DeviceLists {
  #parts;
  #playback;
  #capture;
  #microphoneId = remembered('microphone');
  #speakerId = remembered('speaker');

  /**
   * @param {{microphones: HTMLSelectElement, speakers: HTMLSelectElement, speakerField: HTMLElement}} parts
   * @param {import('../conversation/playback.js').Playback} playback
   * @param {import('../conversation/capture.js').Capture} capture
   */
  constructor(parts, playback, capture) {
    this.#parts = parts;
    this.#playback = playback;
    this.#capture = capture;
    parts.microphones.addEventListener('change', () => this.#choose(parts.microphones.value));
    parts.speakers.addEventListener('change', () => this.#route(parts.speakers.value));
    navigator.mediaDevices?.addEventListener?.('devicechange', () => {
      this.show();
      capture.check();
    });
  }

  async show() {
    const { microphones, speakers, speakerField } = this.#parts;
    try {
      fill(microphones, await list('microphone'), this.#microphoneId);
      if (!this.#playback.routable) return;
      const devices = await list('speaker');
      // One that is unplugged is not forgotten: it is taken again when it is back.
      const there = devices.some(({ id }) => id === this.#speakerId);
      fill(speakers, devices, this.#speakerId);
      // Shown only where there is something to choose, and the browser lets the page do it.
      speakerField.hidden = devices.length === 0;
      await this.#playback.route(there ? this.#speakerId : '');
    } catch {
      // The system's default stays on offer.
    }
  }

  /** This one is open now: the permission, or another device than the one that was wished for. */
  opened(deviceId) {
    this.#microphoneId = deviceId;
    return this.show();
  }

  #choose(deviceId) {
    this.#microphoneId = deviceId;
    remember('microphone', deviceId);
    this.#capture.choose(deviceId);
  }

  async #route(deviceId) {
    if (await this.#playback.route(deviceId)) {
      this.#speakerId = deviceId;
      remember('speaker', deviceId);
    }
    this.show();
  }
}
