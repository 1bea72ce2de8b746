// Owns the judgement whether a path is alive, from the signs of life that its caller reports. Time is an argument;
// there is no clock and no IO in here.

// The server speaks each second, and sound comes fifty times a second, or each 0.4 s where there is none: this long a
// silence is worth a question…
export const QUIET_MS = 800;
// …which is asked again as long as it goes on: a server may know only then that a process of its has died…
export const ASK_AGAIN_MS = 1_000;
// …this long is worth a word to the user…
export const DOUBT_MS = 2_500;
// …and after this, with the question unanswered, nothing will come. ICE itself would take two to six times as long.
export const DEAD_MS = 3_500;
// After an event that paths often do not survive, an answer has to come within this.
export const PROOF_MS = 1_000;
/** On a path that is slow by itself an answer may take longer: some round trips, for the first may be lost. */
export const proofWithin_ms = (rtt_ms) => Math.max(PROOF_MS, 3 * rtt_ms + 400);
// What was waiting in the device's buffers while it slept arrives at once, and proves nothing.
export const STALE_MS = 200;
// Nobody looked for so long: the device slept, or the page was frozen.
const SLEPT_MS = 3_000;

export class Liveness {
  #heard_ms;
  #looked_ms;
  #demanded_ms = null;
  #proofWithin_ms = PROOF_MS;
  #asked_ms = -Infinity;

  constructor(now_ms) {
    this.#heard_ms = now_ms;
    this.#looked_ms = now_ms;
  }

  /** A message, or sound, has come. */
  heard(now_ms) {
    if (this.#demanded_ms !== null && now_ms < this.#demanded_ms + STALE_MS) return;
    this.#alive(now_ms);
  }

  /** The answer to a question that was asked after the last demand: it proves everything. */
  answered(now_ms) {
    this.#alive(now_ms);
  }

  /** Whether the last look is so long ago that the device must have slept. Everything is judged afresh then. */
  slept(now_ms) {
    const slept = now_ms - this.#looked_ms > SLEPT_MS;
    if (slept) this.#heard_ms = now_ms;
    this.#looked_ms = now_ms;
    return slept;
  }

  /** From now on only what is new counts, and it has to come within this. @returns {boolean} false: one is under way */
  demand(now_ms, within_ms = PROOF_MS) {
    this.slept(now_ms);
    if (this.#demanded_ms !== null) return false;
    this.#demanded_ms = now_ms;
    this.#proofWithin_ms = within_ms;
    return true;
  }

  /** To be called some times a second. @returns {{ask: boolean, doubtful: boolean, dead: boolean}} */
  look(now_ms) {
    this.#looked_ms = now_ms;
    const silent_ms = now_ms - this.#heard_ms;
    const unproven = this.#demanded_ms !== null && now_ms - this.#demanded_ms >= this.#proofWithin_ms;
    const ask = silent_ms >= QUIET_MS && now_ms - this.#asked_ms >= ASK_AGAIN_MS;
    if (ask) this.#asked_ms = now_ms;
    return { ask, doubtful: silent_ms >= DOUBT_MS, dead: unproven || silent_ms >= DEAD_MS };
  }

  #alive(now_ms) {
    this.#heard_ms = now_ms;
    this.#demanded_ms = null;
    this.#asked_ms = -Infinity;
  }
}
