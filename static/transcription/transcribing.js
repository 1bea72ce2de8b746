// Owns the view that transcribes: what was said, live or from a file, and what can be done with it. The conversation
// that the words come from is not this module's; it hears its messages and its states.

import { asFailure, explain, Failure } from '../connection/errors.js';
import { allow, byId, whenAllowed } from '../page/controls.js';
import * as strings from '../page/strings.js';
import { clock, FORMATS } from './captions.js';
import { Paragraphs } from './paragraphs.js';
import { durationOf, isWord, Upload } from './upload.js';
import { WordLog } from './wordlog.js';
import { WordTimes } from './wordtimes.js';

// The end of a turn is said for so long, then that the page listens.
const TURN_ENDED_MS = 2_500;
const DONE_MS = 2_000;
// Long enough for a browser that asks where to save it.
const DOWNLOAD_MS = 60_000;

export class Transcribing {
  #on;
  #said = new Paragraphs();
  #log;
  #times;
  #upload = null;
  #name = '';
  #duration_ms = 0;
  #active = false;
  #live = false;
  #unsaved = false;
  #heardTimer = 0;

  /**
   * @param {{announce: (sentence: string) => void, fail: (said: object, again: () => void) => void,
   *          busy: (busy: boolean) => void, allowed: (then: () => void) => boolean}} on
   *   `busy`: with a file; `allowed`: whether a request may be made now, or else after `then` is called
   */
  constructor(on) {
    this.#on = on;
    this.#log = new WordLog({
      scroll: byId('captions'), old: byId('captions-old'), log: byId('captions-log'), now: byId('captions-now'),
      earlier: byId('captions-earlier'), newest: byId('captions-newest'),
    }, () => this.#said.list);
    this.#times = new WordTimes(byId('captions'), byId('word-time'), (element) => this.#log.wordOf(element));
    whenAllowed(byId('captions-copy'), () => this.#copy());
    whenAllowed(byId('captions-download'), () => this.#download(byId('captions-format').value));
    whenAllowed(byId('captions-clear'), () => this.#clearIfAgreed());
    whenAllowed(byId('file-choose'), () => byId('file').click());
    byId('file-cancel').addEventListener('click', () => this.#upload?.cancel());
    byId('file').addEventListener('change', () => this.#chosen());
  }

  /** Whether a file is being transcribed. */
  get busy() {
    return this.#upload !== null;
  }

  /** Of the conversation. */
  state(state, active) {
    this.#active = active;
    this.#live = state === 'listening' || state === 'speaking';
    this.#hear('listening');
    this.#allow();
  }

  /** From the server, on the data channel. */
  message(message) {
    if (message.type === 'word' && isWord(message)) this.#add(message);
    else if (message.type === 'turn-ended' && Number.isFinite(message.at_ms)) this.#turnEnded(message.at_ms);
    else if (message.type === 'speech-started') this.#hear('speech');
    else if (message.type === 'speech-ended') this.#hear('listening');
    else if (message.type === 'connected' && message.resumed !== true) this.#begin();
    else if (message.type === 'state' && message.reason === 'reset') this.#begin();
  }

  /** Nothing more comes. */
  finish() {
    this.#close(this.#said.end());
  }

  #begin() {
    this.finish();
    this.#said.begin(this.#said.empty ? '' : strings.laterPart(new Date()));
    this.#name = '';
  }

  #add({ text, start_ms, end_ms }) {
    const first = this.#said.empty;
    this.#log.add(this.#said.add({ text: text.trim(), start_ms, end_ms }));
    this.#keepSafe(true);
    byId('captions-gone').hidden = !this.#said.dropped;
    if (first) this.#allow();
  }

  #turnEnded(at_ms) {
    this.#close(this.#said.turnEnded(at_ms));
    this.#hear('turn-ended');
  }

  #close(paragraph) {
    if (paragraph) this.#log.close(paragraph);
  }

  /** In words; for the eye only, since a screen reader is told what was said. */
  #hear(what) {
    const heard = byId('heard');
    clearTimeout(this.#heardTimer);
    heard.hidden = !this.#live;
    heard.dataset.heard = what;
    heard.textContent = strings.HEARD[what];
    if (what === 'turn-ended') this.#heardTimer = setTimeout(() => this.#hear('listening'), TURN_ENDED_MS);
  }

  #allow() {
    const { empty } = this.#said;
    byId('captions-empty').hidden = !empty;
    for (const id of ['captions-copy', 'captions-download', 'captions-clear']) allow(byId(id), !empty);
    allow(byId('file-choose'), !this.#active && !this.busy);
    byId('file-choose').title = this.#active ? strings.FILE_LOCKED : '';
  }

  // What becomes of it.

  #render(format) {
    const duration_ms = Math.max(this.#duration_ms, this.#said.end_ms);
    return FORMATS[format].render({ duration_ms, turns: this.#said.list });
  }

  async #copy() {
    const button = byId('captions-copy');
    try {
      await navigator.clipboard.writeText(this.#render('txt'));
      this.#keepSafe(false);
      this.#on.announce(strings.COPIED);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy text'; }, DONE_MS);
    } catch {
      this.#on.fail({ code: 'not_copied', ...strings.NOT_COPIED, again: 'never' }, null);
    }
  }

  #download(format) {
    const blob = new Blob([this.#render(format)], { type: `${FORMATS[format].type};charset=utf-8` });
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = `${this.#name || strings.fileName(new Date())}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), DOWNLOAD_MS);
    this.#keepSafe(false);
  }

  #clearIfAgreed() {
    if (!this.#agreed()) return;
    this.#clear();
    this.#on.announce(strings.CLEARED);
  }

  #agreed() {
    return !this.#unsaved || confirm(strings.LOSE_WORDS);
  }

  #clear() {
    this.#times.hide();
    this.#said.clear();
    this.#log.clear();
    this.#keepSafe(false);
    this.#duration_ms = 0;
    byId('captions-gone').hidden = true;
    this.#allow();
  }

  /** A tab that is closed by mistake asks first, where words would be lost. */
  #keepSafe(unsaved) {
    if (unsaved === this.#unsaved) return;
    this.#unsaved = unsaved;
    if (unsaved) window.addEventListener('beforeunload', askFirst);
    else window.removeEventListener('beforeunload', askFirst);
  }

  // Files.

  #chosen() {
    const input = byId('file');
    const [file] = input.files;
    input.value = '';
    if (file) this.#take(file);
  }

  /** What is there gives way to the file: its times are to be those of the file. */
  #take(file) {
    if (this.busy || this.#active || !this.#on.allowed(() => this.#take(file)) || !this.#agreed()) return;
    this.#clear();
    this.#said.begin();
    this.#name = file.name.replace(/\.[^.]*$/, '');
    this.#transcribe(file);
  }

  async #transcribe(file) {
    const upload = new Upload();
    this.#upload = upload;
    this.#on.busy(true);
    this.#allow();
    byId('file-row').hidden = false;
    let total = '';
    durationOf(file).then((ms) => { total = ms === null ? '' : clock(ms); });
    this.#progress(strings.sending(file.name, 0));
    this.#on.announce(strings.sending(file.name, 0));
    try {
      const done = await upload.send(file, {
        sent: (share) => this.#progress(strings.sending(file.name, share)),
        word: (word) => {
          this.#add(word);
          this.#progress(strings.found(file.name, clock(this.#said.end_ms), total));
        },
      });
      if (done) this.#duration_ms = done.duration_ms;
      if (done?.warnings.length) {
        this.#on.fail(explain(new Failure('file_in_part', { detail: done.warnings.join(' ') })), null);
      }
      this.#on.announce(done ? strings.fileDone(file.name, done.words) : strings.FILE_CANCELLED);
    } catch (error) {
      this.#on.fail(explain(asFailure(error)), () => this.#take(file));
    } finally {
      this.#upload = null;
      this.finish();
      const focused = document.activeElement === byId('file-cancel');
      byId('file-row').hidden = true;
      this.#allow();
      if (focused) byId('file-choose').focus();
      this.#on.busy(false);
    }
  }

  #progress(text) {
    byId('file-progress').textContent = text;
  }
}

function askFirst(event) {
  event.preventDefault();
}
