// Owns the rest of the page's elements: state, controls, meters, figures, notice. It shows what it is told and
// reports clicks and keys; it decides nothing.

import { Examples } from './examples.js';
import { readWords, rememberedSwitch } from './remembered.js';
import { loudness, milliseconds, modelLine, noCaptions, percent, STATES, TITLES, VIEWS } from './strings.js';

const ARIA_INTERVAL_MS = 500;

const byId = (id) => document.getElementById(id);

/** Unlike `disabled`, this leaves the keyboard's focus where it is. */
export const allow = (button, allowed) => button.setAttribute('aria-disabled', String(!allowed));

export const whenAllowed = (button, act) => button.addEventListener('click', () => {
  if (button.getAttribute('aria-disabled') !== 'true') act();
});

/** After the first entry, which is the system's choice, and is taken for what is not there. */
function fill(select, devices, chosen) {
  const [system] = select.options;
  select.replaceChildren(system, ...devices.map(({ id, label }) => new Option(label, id)));
  select.value = devices.some(({ id }) => id === chosen) ? chosen : '';
}

export class View {
  #ariaAt_ms = { mic: 0, voice: 0 };

  constructor() {
    this.start = byId('start');
    this.mute = byId('mute');
    this.reset = byId('reset');
    this.hear = byId('hear');
    this.microphones = byId('mic-select');
    this.speakers = byId('speaker-select');
    this.playback = byId('playback');
    this.message = {
      box: byId('message'), title: byId('message-title'), text: byId('message-text'), todo: byId('message-todo'),
      retry: byId('retry'), dismiss: byId('dismiss'),
    };
    this.key = { form: byId('key-form'), input: byId('key'), error: byId('key-error') };
    this.ending = byId('ending');
    this.views = { box: byId('views'), why: byId('views-why') };
    this.examples = new Examples({ box: byId('examples'), fold: byId('examples-fold'), list: byId('examples-list') });
    this.captions = byId('write-mine');
    this.transcript = { log: byId('transcript'), empty: byId('transcript-empty') };
    readWords(byId('read-words'), [byId('transcript'), byId('captions-log')]);
    this.#copyButton();
  }

  /** @param {{toggle: () => void, mute: () => void, reset: () => void, hear: () => void, choose: (id: string) => void, route: (id: string) => void, captions: (wanted: boolean) => void}} on */
  connect(on) {
    whenAllowed(this.start, on.toggle);
    whenAllowed(this.mute, on.mute);
    whenAllowed(this.reset, on.reset);
    this.hear.addEventListener('click', on.hear);
    rememberedSwitch(this.captions, 'voice.write-mine', on.captions);
    this.microphones.addEventListener('change', () => on.choose(this.microphones.value));
    this.speakers.addEventListener('change', () => on.route(this.speakers.value));
    document.addEventListener('keydown', (event) => {
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.target.closest?.('input, select, textarea, [contenteditable]')) return;
      if (event.key.toLowerCase() === 'm') on.mute();
      if (event.key === 'Escape') on.end();
    });
  }

  state(state, active) {
    const words = STATES[state];
    const live = state === 'listening' || state === 'speaking';
    for (const element of [byId('state'), byId('orb'), document.body]) element.dataset.state = state;
    byId('state').textContent = words.word;
    this.start.textContent = active ? 'End' : VIEWS[document.body.dataset.view].start;
    this.start.classList.toggle('end', active);
    allow(this.mute, active);
    allow(this.reset, live);
    document.title = active ? `${words.word} – Voice` : 'Voice';
  }

  /** While the server has asked not to be asked. */
  waiting(waiting) {
    allow(this.start, !waiting);
  }

  detail(sentence) {
    const detail = byId('state-detail');
    if (detail.textContent !== sentence) detail.textContent = sentence;
  }

  /** For screen readers: only what changes rarely, for "listening" and "speaking" alternate all the time. */
  announce(sentence) {
    byId('announce').textContent = sentence;
  }

  muted(muted) {
    this.mute.setAttribute('aria-pressed', String(muted));
    // Its label stays: a pressed button named "Unmute" would say the opposite to a screen reader.
    byId('meter-mic-label').textContent = muted ? 'You (muted)' : 'You';
  }

  /** @param {'mic'|'voice'} name @param {number} share 0 to 1 */
  level(name, share, now_ms) {
    const meter = byId(`meter-${name}`);
    meter.style.setProperty('--level', share.toFixed(3));
    byId('orb').style.setProperty(`--${name}`, share.toFixed(3));
    const value = String(Math.round(share * 100));
    if (value === meter.getAttribute('aria-valuenow')) return;
    // Silence is said at once: it may be the last that is heard of a conversation.
    if (share > 0 && now_ms - this.#ariaAt_ms[name] < ARIA_INTERVAL_MS) return;
    this.#ariaAt_ms[name] = now_ms;
    meter.setAttribute('aria-valuenow', value);
    meter.setAttribute('aria-valuetext', loudness(share));
  }

  silence(sentence) {
    const hint = byId('silence');
    if (hint.textContent !== sentence) hint.textContent = sentence;
  }

  /** Whether the server can write down what the user says, and is asked to. */
  offerCaptions(offered, wanted) {
    byId('write-mine-field').hidden = !offered;
    byId('words-title').textContent = offered && wanted ? TITLES.both : TITLES.model;
  }

  /** @param {string|null} reason  why it does not do so now, null: it does, or is not to */
  noCaptions(reason) {
    const hint = byId('no-captions');
    hint.textContent = reason === null ? '' : noCaptions(reason);
    hint.hidden = reason === null;
  }

  microphoneList(devices, chosen) {
    fill(this.microphones, devices, chosen);
  }

  /** Shown only where there is something to choose, and the browser lets the page do it. */
  speakerList(devices, chosen) {
    fill(this.speakers, devices, chosen);
    byId('speaker-field').hidden = devices.length === 0;
  }

  config(config, service) {
    byId('model').textContent = modelLine(service);
    byId('version').textContent = config.version ? `Version ${config.version}.` : '';
    this.examples.show(service?.examples);
    const notice = config.notice ?? service?.notice;
    byId('notice').hidden = !notice;
    if (!notice) return;
    byId('notice').dataset.code = notice.code;
    byId('notice-message').textContent = notice.message;
    byId('notice-hint').textContent = notice.hint ?? '';
    byId('notice-hint-row').hidden = !notice.hint;
  }

  /** @param {ReturnType<import('../connection/stats.js').figures>|null} all  null: nothing is known (any more) */
  figures(all) {
    byId('delay').textContent = milliseconds(all?.delay_ms);
    byId('rtt').textContent = milliseconds(all?.rtt_ms);
    byId('loss-in').textContent = percent(all?.loss_in);
    byId('wait').textContent = milliseconds(all?.wait_ms);
    byId('concealed-in').textContent = percent(all?.concealed_in);
    byId('concealed-out').textContent = percent(all?.concealed_out);
    byId('loss-out').textContent = percent(all?.loss_out);
    for (const part of ['frame', 'network', 'engine', 'playout', 'jitter']) {
      byId(`part-${part}`).textContent = milliseconds(all?.parts[`${part}_ms`]);
    }
  }

  #copyButton() {
    const button = byId('copy-hint');
    button.addEventListener('click', async () => {
      const code = byId('notice-hint');
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = 'Copied';
      } catch {
        // No clipboard on an insecure origin: select it, so that the keyboard can copy it.
        getSelection().selectAllChildren(code);
        button.textContent = 'Selected';
      }
      setTimeout(() => { button.textContent = 'Copy'; }, 2_000);
    });
  }
}
