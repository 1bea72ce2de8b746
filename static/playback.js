// Owns the <audio> element that plays the voice. An element, and not WebAudio: browsers cancel the echo only of
// what an element plays.

export class Playback {
  #audio;
  #onBlocked;

  /** @param {HTMLAudioElement} audio @param {(blocked: boolean) => void} onBlocked */
  constructor(audio, onBlocked) {
    this.#audio = audio;
    this.#onBlocked = onBlocked;
  }

  /** Plays `stream`; null stops. */
  async play(stream) {
    this.#audio.srcObject = stream;
    if (stream) await this.resume();
    else this.#onBlocked(false);
  }

  /** Also the answer to "Tap to hear": browsers let audio begin in a click. */
  async resume() {
    try {
      await this.#audio.play();
      this.#onBlocked(false);
    } catch (error) {
      // AbortError: another stream, or the end, came in between.
      if (error.name === 'NotAllowedError') this.#onBlocked(true);
    }
  }
}
