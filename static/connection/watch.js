// Owns the watch over one connection: it collects the signs of life (messages, packets, pongs), asks where there are
// none, and says when the path is dead. What the signs mean is liveness.js.

import { Liveness, proofWithin_ms, STALE_MS } from './liveness.js';
import { selectedPair } from './stats.js';
import { onWakeup } from './wakeups.js';

const LOOK_MS = 250;

export class Watch {
  #pc;
  #on;
  #liveness = new Liveness(performance.now());
  #end = new AbortController();
  #timer;
  #packets = 0;
  #rtt_ms = 0;
  #questions = 0;
  #doubtful = false;

  /**
   * @param {RTCPeerConnection} pc
   * @param {{ask: (id: number) => void, doubtful: (d: boolean) => void, dead: () => void}} on  `ask` sends a `ping`;
   *   `dead` comes once
   */
  constructor(pc, on) {
    this.#pc = pc;
    this.#on = on;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    onWakeup(() => this.demand(), this.#end.signal);
  }

  heard(message) {
    if (message.type === 'pong' && message.id === this.#questions) this.#liveness.answered(performance.now());
    else this.#liveness.heard(performance.now());
    this.#doubt(false);
  }

  /** Something has happened that paths often do not survive: an answer is wanted at once. */
  demand() {
    const within_ms = proofWithin_ms(this.#rtt_ms);
    if (this.#end.signal.aborted || !this.#liveness.demand(performance.now(), within_ms)) return;
    this.#ask();
    for (const wait_ms of [STALE_MS / 2, within_ms]) setTimeout(() => this.#look(), wait_ms);
  }

  stop() {
    this.#end.abort();
    clearInterval(this.#timer);
  }

  #ask() {
    this.#questions += 1;
    this.#on.ask(this.#questions);
  }

  async #look() {
    if (this.#end.signal.aborted) return;
    if (this.#liveness.slept(performance.now())) this.demand();
    const { packets, rtt_ms } = await reading(this.#pc);
    if (this.#end.signal.aborted) return;
    const now_ms = performance.now();
    if (packets > this.#packets) this.#liveness.heard(now_ms);
    this.#packets = packets;
    this.#rtt_ms = rtt_ms;
    const { ask, doubtful, dead } = this.#liveness.look(now_ms);
    if (dead) {
      this.stop();
      this.#on.dead();
      return;
    }
    if (ask) this.#ask();
    this.#doubt(doubtful);
  }

  #doubt(doubtful) {
    if (doubtful === this.#doubtful) return;
    this.#doubtful = doubtful;
    this.#on.doubtful(doubtful);
  }
}

async function reading(pc) {
  const reports = [...(await pc.getStats()).values()];
  const inbound = reports.filter(({ type }) => type === 'inbound-rtp');
  return {
    packets: inbound.reduce((sum, { packetsReceived = 0 }) => sum + packetsReceived, 0),
    rtt_ms: (selectedPair(reports)?.currentRoundTripTime ?? 0) * 1000,
  };
}
