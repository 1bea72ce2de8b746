// Owns the wait until the microphone's sound leaves: a browser is connected before its sound runs, by up to two seconds.

const LOOK_MS = 40;
// Longer than a browser needs that is going to send anything.
const PATIENCE_MS = 3_000;

/** Of the entries of a report. Pure. */
export function packetsSent(reports) {
  const outbound = reports.filter(({ type, kind }) => type === 'outbound-rtp' && kind === 'audio');
  return outbound.reduce((sum, { packetsSent: sent = 0 }) => sum + sent, 0);
}

/**
 * Resolves once packets leave, or when waiting for them is of no use: the connection is closed, the system holds the
 * microphone back, or nothing comes of it. Never rejects.
 * @param {RTCPeerConnection} pc @param {RTCRtpSender} sender
 */
export async function untilItFlows(pc, sender) {
  const until_ms = performance.now() + PATIENCE_MS;
  while (performance.now() < until_ms && pc.connectionState === 'connected') {
    if (sender.track?.readyState !== 'live' || sender.track.muted) return;
    const report = await pc.getStats().catch(() => new Map());
    if (packetsSent([...report.values()]) > 0) return;
    await new Promise((resolve) => { setTimeout(resolve, LOOK_MS); });
  }
}
