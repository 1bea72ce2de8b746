// Owns the arithmetic of getStats(): round trip, loss, time in the jitter buffer, and the delay made of them. No IO.

const FRAME_MS = 80;
const PACKET_S = 0.02;
const CLOCK_HZ = 48_000;
// So much less than real time has come, and nothing is missing: the server has paused.
const PAUSED_SHARE = 0.9;

/** The way that is in use, of the entries of a report. */
export function selectedPair(reports) {
  const transport = reports.find((report) => report.type === 'transport' && report.selectedCandidatePairId);
  if (transport) return reports.find((report) => report.id === transport.selectedCandidatePairId);
  // Firefox names no pair in the transport.
  return reports.find((report) => report.type === 'candidate-pair' && report.nominated && report.state === 'succeeded');
}

/**
 * One reading of RTCPeerConnection.getStats().
 * @param {Iterable<object>} report  its values
 * @param {object|null} before  `counters` of the reading before: shares and means are of the time in between
 * @returns {{rtt_ms: number|null, jitter_buffer_ms: number|null, loss_out: number|null, loss_in: number|null, concealed_out: number|null, counters: object}}
 */
export function readStats(report, before) {
  const reports = [...report];
  const inbound = reports.find((entry) => entry.type === 'inbound-rtp' && entry.kind === 'audio');
  const remote = reports.find((entry) => entry.type === 'remote-inbound-rtp' && entry.kind === 'audio');
  const rtt_s = selectedPair(reports)?.currentRoundTripTime ?? remote?.roundTripTime;
  const counters = {
    received: inbound?.packetsReceived ?? 0,
    lost: inbound?.packetsLost ?? 0,
    delay_s: inbound?.jitterBufferDelay ?? 0,
    emitted: inbound?.jitterBufferEmittedCount ?? 0,
    concealed: (inbound?.concealedSamples ?? 0) - (inbound?.silentConcealedSamples ?? 0),
    samples: inbound?.totalSamplesReceived ?? 0,
  };
  const since = (name) => counters[name] - (before?.[name] ?? 0);
  const expected = since('received') + since('lost');
  // A server that is silent sends nothing, and browsers take that for loss and fade out what was said last.
  const paused = since('lost') <= 0 && since('received') * PACKET_S < (since('samples') / CLOCK_HZ) * PAUSED_SHARE;
  return {
    rtt_ms: rtt_s == null ? null : rtt_s * 1000,
    jitter_buffer_ms: since('emitted') > 0 ? (since('delay_s') / since('emitted')) * 1000 : null,
    loss_out: expected > 0 ? Math.max(since('lost'), 0) / expected : null,
    loss_in: remote?.fractionLost ?? null,
    concealed_out: since('samples') > 0 ? (paused ? 0 : Math.max(since('concealed'), 0) / since('samples')) : null,
    counters,
  };
}

/**
 * What stands on the page, from the browser's reading and the server's last `stats` message (or null).
 * From a mouth to the answering ear the sound crosses the network there and back: a whole round trip.
 */
export function figures(reading, server) {
  const rtt_ms = reading.rtt_ms ?? server?.rtt_ms ?? null;
  const parts = {
    frame_ms: FRAME_MS,
    network_ms: rtt_ms,
    engine_ms: server?.engine_ms ?? null,
    playout_ms: server?.playout_ms ?? null,
    jitter_ms: reading.jitter_buffer_ms,
  };
  // Without the server's share the sum would be far too good.
  const known = rtt_ms != null && parts.jitter_ms != null && server != null;
  return {
    rtt_ms,
    loss_in: server?.loss_in ?? reading.loss_in,
    loss_out: reading.loss_out ?? server?.loss_out ?? null,
    wait_ms: server?.jitter_buffer_ms ?? null,
    concealed_in: server?.concealed_in ?? null,
    concealed_out: reading.concealed_out,
    parts,
    delay_ms: known ? Object.values(parts).reduce((sum, part) => sum + (part ?? 0), 0) : null,
  };
}
