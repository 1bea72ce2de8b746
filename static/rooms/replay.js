// Owns the <audio> element that says a message once more, one at a time.

export class Replay {
  #audio;
  #voice;
  #on;
  #call = new AbortController();
  #id = null;
  #url = '';

  /**
   * @param {HTMLAudioElement} audio
   * @param {HTMLAudioElement} voice  whose loudspeaker it uses
   * @param {{changed: (id: string, playing: boolean) => void, failed: (error: unknown) => void}} on
   */
  constructor(audio, voice, on) {
    this.#audio = audio;
    this.#voice = voice;
    this.#on = on;
    audio.addEventListener('ended', () => this.stop());
  }

  /** Plays it, or stops it where it is the one that plays. @param {(signal: AbortSignal) => Promise<Blob>} fetchSound */
  async toggle(id, fetchSound) {
    const again = id !== this.#id;
    this.stop();
    if (!again) return;
    const call = this.#call = new AbortController();
    this.#id = id;
    this.#on.changed(id, true);
    try {
      const sound = await fetchSound(call.signal);
      if (call.signal.aborted) return;
      this.#url = URL.createObjectURL(sound);
      this.#audio.src = this.#url;
      if (this.#voice.sinkId) await this.#audio.setSinkId(this.#voice.sinkId).catch(() => {});
      if (!call.signal.aborted) await this.#audio.play();
    } catch (error) {
      if (call.signal.aborted) return;
      this.stop();
      this.#on.failed(error);
    }
  }

  stop() {
    this.#call.abort();
    this.#audio.pause();
    this.#audio.removeAttribute('src');
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = '';
    const id = this.#id;
    this.#id = null;
    if (id !== null) this.#on.changed(id, false);
  }
}
