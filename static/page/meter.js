// Owns loudness: one AudioContext for a conversation, an AnalyserNode for each stream. Plays nothing.

const FLOOR_DBFS = -100;
const METER_BOTTOM_DBFS = -60;
// A bar that falls slowly can be read; 1.5 of its lengths a second.
const FALL_PER_S = 1.5;

/** The share of a meter, 0 to 1, that a loudness fills. */
export function shareOf(dbfs) {
  return Math.min(Math.max((dbfs - METER_BOTTOM_DBFS) / -METER_BOTTOM_DBFS, 0), 1);
}

/** RMS of samples (-1 to 1), in dBFS, at least -100. */
export function dbfsOf(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return Math.max(20 * Math.log10(Math.sqrt(sum / samples.length) || 1e-9), FLOOR_DBFS);
}

class Meter {
  constructor(context, stream) {
    this.source = context.createMediaStreamSource(stream);
    this.analyser = context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.source.connect(this.analyser);
    this.share = 0;
    this.dbfs = FLOOR_DBFS;
  }

  read(elapsed_s) {
    this.analyser.getFloatTimeDomainData(this.samples);
    this.dbfs = dbfsOf(this.samples);
    this.share = Math.max(shareOf(this.dbfs), this.share - FALL_PER_S * elapsed_s);
    return this.share;
  }

  close() {
    this.source.disconnect();
    this.analyser.disconnect();
  }
}

/** The meters of one conversation. `open` belongs in a click: a context made elsewhere stays suspended. */
export class Meters {
  #context = null;
  #meters = new Map();
  #onInterrupted;

  /** @param {(interrupted: boolean) => void} onInterrupted  iOS stops the context while a phone call lasts */
  constructor(onInterrupted) {
    this.#onInterrupted = onInterrupted;
  }

  open() {
    if (typeof AudioContext !== 'function') return;
    this.#context ??= this.#newContext();
    this.resume();
  }

  /** After an interruption; harmless at any time. */
  async resume() {
    const context = this.#context;
    await context?.resume().catch(() => {});
    this.#look(context);
  }

  #newContext() {
    const context = new AudioContext();
    context.onstatechange = () => this.#look(context);
    return context;
  }

  #look(context) {
    if (context && context === this.#context) this.#onInterrupted(context.state === 'interrupted');
  }

  /** Measures `stream` under `name`, in place of what was there. */
  attach(name, stream) {
    this.#meters.get(name)?.close();
    this.#meters.delete(name);
    if (this.#context && stream?.getAudioTracks().length) this.#meters.set(name, new Meter(this.#context, stream));
  }

  /** Once a drawn frame. @returns {{share: number, dbfs: number}} of `name`; silence when nothing is attached */
  read(name, elapsed_s) {
    const meter = this.#meters.get(name);
    if (!meter) return { share: 0, dbfs: FLOOR_DBFS };
    return { share: meter.read(elapsed_s), dbfs: meter.dbfs };
  }

  get running() {
    return this.#context?.state === 'running';
  }

  close() {
    for (const meter of this.#meters.values()) meter.close();
    this.#meters.clear();
    this.#context?.close().catch(() => {});
    this.#context = null;
  }
}
