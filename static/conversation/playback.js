// Owns the <audio> element that plays the voice, and tells the system what kind of sound it is. An element, and not
// WebAudio: browsers cancel the echo only of what an element plays.

export class Playback {
  #audio;
  #onBlocked;
  #onPaused;

  /**
   * @param {HTMLAudioElement} audio
   * @param {{blocked: (b: boolean) => void, paused: (p: boolean) => void}} on  `blocked`: it may only begin in a click;
   *   `paused`: the system has stopped it
   */
  constructor(audio, { blocked, paused }) {
    this.#audio = audio;
    this.#onBlocked = blocked;
    this.#onPaused = paused;
    audio.addEventListener('pause', () => { if (this.#wanted) paused(true); });
    audio.addEventListener('playing', () => paused(false));
  }

  get #wanted() {
    return this.#audio.srcObject?.active === true;
  }

  /**
   * Belongs in the click that starts a conversation: an element that was allowed to play once may go on later, when
   * the voice comes without a click.
   */
  unlock() {
    // Without this iOS routes a call's sound to the ear instead of the loudspeaker, or to no headset (Safari 16.4+).
    setAudioSession('play-and-record');
    this.#audio.srcObject = new MediaStream();
    this.#audio.play().catch(() => {});
  }

  /** Plays `stream`; null stops. */
  async play(stream) {
    this.#audio.srcObject = stream;
    if (stream) await this.resume();
    else this.#onBlocked(false);
  }

  /** Also the answer to "Tap to hear": browsers let audio begin in a click. */
  async resume() {
    if (!this.#audio.srcObject) return;
    try {
      await this.#audio.play();
      this.#onBlocked(false);
    } catch (error) {
      // AbortError: another stream, or the end, came in between.
      if (error.name === 'NotAllowedError') this.#onBlocked(true);
    }
  }

  /** Whether the page may choose the loudspeaker. Phones route calls by themselves. */
  get routable() {
    return typeof this.#audio.setSinkId === 'function';
  }

  /** '' is the system's choice, which follows headsets as they come and go. @returns {Promise<boolean>} whether it could be */
  async route(deviceId) {
    if (!this.routable || this.#audio.sinkId === deviceId) return true;
    try {
      await this.#audio.setSinkId(deviceId);
      return true;
    } catch {
      // Gone, or not allowed: what is heard now goes on.
      return false;
    }
  }

  /** The conversation is over: other apps may have the sound back. */
  release() {
    setAudioSession('auto');
    this.#onPaused(false);
  }
}

function setAudioSession(type) {
  try {
    if (navigator.audioSession) navigator.audioSession.type = type;
  } catch {
    // Not every type is known everywhere; the default works too.
  }
}
