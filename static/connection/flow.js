// Owns the wait until the microphone's sound leaves: a browser is connected before its sound runs, by up to two seconds.

const LOOK_MS = 40;
// Longer than a browser needs that is going to send anything.
const PATIENCE_MS = 5_000;
// Firefox sends a few packets (up to 140 ms of them) and then none until its sound card runs, as much as two seconds
// later: the first packet proves nothing.
const STEADY_MS = 300;
// Between two looks that see more packets. Shorter, and a busy machine's sound would never be steady.
const PAUSE_MS = 200;

/** Of the entries of a report. Pure. */
export function packetsSent(reports) {
  const outbound = reports.filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'audio');
  return outbound.reduce((sum, { packetsSent: sent = 0 }) => sum + sent, 0);
}

/** Tells from counts of packets whether they leave steadily. Pure: time is an argument. */
export class Steadiness {
  #packets = 0;
  #grew_ms = -Infinity;
  #since_ms = 0;

  /** @returns {boolean} whether they have left for a while without a pause */
  look(now_ms, packets) {
    if (packets > this.#packets) {
      if (now_ms - this.#grew_ms > PAUSE_MS) this.#since_ms = now_ms;
      this.#grew_ms = now_ms;
      this.#packets = packets;
    }
    return this.#grew_ms - this.#since_ms >= STEADY_MS;
  }
}

/**
 * Resolves once packets leave steadily, or when waiting for them is of no use: the connection is closed, the system
 * holds the microphone back, or nothing comes of it. Never rejects.
 * @param {RTCPeerConnection} pc @param {RTCRtpSender} sender
 */
export async function untilItFlows(pc, sender) {
  const until_ms = performance.now() + PATIENCE_MS;
  const steadiness = new Steadiness();
  while (performance.now() < until_ms && pc.connectionState === 'connected') {
    if (sender.track?.readyState !== 'live' || sender.track.muted) return;
    const report = await pc.getStats().catch(() => new Map());
    if (steadiness.look(performance.now(), packetsSent([...report.values()]))) return;
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
  }
}
