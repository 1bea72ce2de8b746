// Owns the rest of the page's elements: state, controls, meters, figures, notice. It shows what it is told and
// reports clicks and keys; it decides nothing.

import { allow, byId, copyButton, isField, whenAllowed } from './controls.js';
import { Examples } from './examples.js';
import { LevelBar } from './levelbar.js';
import { readWords, rememberedSwitch } from './remembered.js';
import { milliseconds, modelLine, noCaptions, percent, STATES, TITLES, VIEWS } from './strings.js';

export class View {
  #levels = { mic: new LevelBar(byId('meter-mic')), voice: new LevelBar(byId('meter-voice')) };

  constructor() {
    this.start = byId('start');
    this.mute = byId('mute');
    this.reset = byId('reset');
    this.hear = byId('hear');
    this.devices = { microphones: byId('mic-select'), speakers: byId('speaker-select'), speakerField: byId('speaker-field') };
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
    copyButton(byId('copy-hint'), byId('notice-hint'));
  }

  /** @param {{toggle: () => void, mute: () => void, reset: () => void, hear: () => void, captions: (wanted: boolean) => void}} on */
  connect(on) {
    whenAllowed(this.start, on.toggle);
    whenAllowed(this.mute, on.mute);
    whenAllowed(this.reset, on.reset);
    this.hear.addEventListener('click', on.hear);
    rememberedSwitch(this.captions, 'voice.write-mine', on.captions);
    document.addEventListener('keydown', (event) => {
      if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (isField(event.target)) return;
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
    byId('orb').style.setProperty(`--${name}`, share.toFixed(3));
    this.#levels[name].show(share, now_ms);
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

  config(config, service) {
    byId('model').textContent = modelLine(service);
    byId('version').textContent = config.version ? `Version ${config.version}.` : '';
    byId('rooms-link').hidden = !config.services.some(({ name }) => name === 'translate');
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
}
