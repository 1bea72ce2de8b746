// The composition root: wires the conversation to the page, and holds what little belongs to neither.
// ?service=NAME asks for a service by name; ?view=transcribe leads to the view that transcribes; ?raw=1 switches echo
// cancellation, noise suppression and gain control off, for measurements; ?relay=1 lets the audio go through a TURN
// relay only, to see that there is one that works.

import { fetchConfig } from './connection/api.js';
import { forgetKey, takeKeyFromAddress } from './connection/auth.js';
import { asFailure, explain, Failure } from './connection/errors.js';
import { onWakeup } from './connection/wakeups.js';
import { Conversation, isActive } from './conversation/conversation.js';
import { remembered } from './conversation/devices.js';
import { Interruptions } from './conversation/interruptions.js';
import { Journal } from './conversation/journal.js';
import { checkBrowser } from './conversation/microphone.js';
import { Playback } from './conversation/playback.js';
import { Awake } from './page/awake.js';
import { Banner } from './page/banner.js';
import { Countdown } from './page/countdown.js';
import { DeviceLists } from './page/devicelists.js';
import { Ending } from './page/ending.js';
import { KeyForm } from './page/keyform.js';
import { Levels } from './page/levels.js';
import { Meters } from './page/meter.js';
import { Starting } from './page/starting.js';
import * as strings from './page/strings.js';
import { Tabs } from './page/tabs.js';
import { Transcript } from './page/transcript.js';
import { View } from './page/view.js';
import { Transcribing } from './transcription/transcribing.js';
import { isWord } from './transcription/upload.js';

const NOT_READY_POLL_MS = 5_000;
// Long enough to be seen by eyes that were elsewhere.
const NEWS_MS = 8_000;

const query = new URLSearchParams(location.search);
const wish = {
  service: query.get('service') ?? '',
  raw: query.get('raw') === '1',
  relayOnly: query.get('relay') === '1',
  deviceId: remembered('microphone'),
  captions: true,
};

const view = new View();
const transcript = new Transcript(view.transcript.log, view.transcript.empty);
const banner = new Banner(view.message, view.start, (waiting) => view.waiting(waiting || transcribing.busy));
const ending = new Ending(view.ending);
const starting = new Starting(showDetail);
const interruptions = new Interruptions({ paused: showPaused, over: goOn });
const meters = new Meters((interrupted) => interruptions.note('context', interrupted));
const awake = new Awake();
const retry = new Countdown();
const journal = new Journal();
const playback = new Playback(view.playback, {
  blocked: (blocked) => { view.hear.hidden = !blocked; },
  paused: (paused) => interruptions.note('playback', paused),
});
const keyForm = new KeyForm(view.key, () => afterKey());
const transcribing = new Transcribing({
  announce: (sentence) => view.announce(sentence),
  fail: showFailure,
  busy(busy) {
    if (busy) banner.hide();
    view.waiting(busy);
    tabs.lock(busy);
  },
  allowed: (then) => !askedForKey(then),
});

const lack = lackOfBrowser();
let auth = 'none';
let serverConfig = null;
let serverService = null;
let firstPhrase = '';
let afterKey = start;
let unstable = false;
let connectedBefore = false;
let greeting = '';
let news = '';
let newsTimer = 0;
let lackShownIn = '';

const conversation = new Conversation(wish, (type, detail) => {
  // A configuration holds TURN credentials: not for the support's eyes.
  journal.note(type, type === 'config' ? { version: detail.version } : detail);
  handlers[type]?.(detail);
}, {
  microphone: (stream) => meters.attach('mic', stream),
  voice: (stream) => {
    meters.attach('voice', stream);
    playback.play(stream);
  },
});
journal.publish(conversation, transcript);
const levels = new Levels(meters, {
  active: () => isActive(conversation.state),
  open: () => isLive() && !conversation.muted,
  level: (name, share, now_ms) => view.level(name, share, now_ms),
  silence: (silent) => view.silence(silent ? strings.SILENT_MICROPHONE : ''),
});
const devices = new DeviceLists(view.devices, playback, conversation.capture);
const tabs = new Tabs(view.views, { view: query.get('view'), service: wish.service }, {
  shown: () => view.state(conversation.state, isActive(conversation.state)),
  chosen() {
    if (!showConfig(serverConfig)?.ready) showServer();
  },
});

const handlers = {
  state({ state, from, by, failure }) {
    view.state(state, isActive(state));
    tabs.lock(isActive(state));
    transcribing.state(state, isActive(state));
    retry.stop();
    unstable = false;
    if (!isLive()) tell('');
    if (state === 'ended') ended(by, failure);
    else showDetail();
    greet();
    if (state === 'connecting') connectedBefore = false;
    if (state === 'connecting') banner.hide();
    if (state === 'reconnecting') view.figures(null);
    if (state !== 'starting') starting.stop();
    if (from === 'starting' && state === 'listening') showLoaded();
    if (state === 'starting' || (state === 'listening' && from !== 'speaking')) {
      banner.hide();
      awake.hold();
    }
  },
  phase({ phase }) {
    if (conversation.state === 'connecting') view.detail(strings.PHASES[phase]);
  },
  retrying({ wait_ms, resuming, failure }) {
    retry.start(wait_ms, (left_s) => view.detail(strings.retrying(failure.title, left_s, resuming)));
    view.announce(`${strings.RECONNECTING} ${resuming ? strings.PROSPECT.resuming : strings.PROSPECT.begins}`);
  },
  unstable(detail) {
    ({ unstable } = detail);
    showDetail();
  },
  muted({ muted }) {
    view.muted(muted);
    view.announce(muted ? 'Muted' : 'Unmuted');
    showDetail();
  },
  message(message) {
    hearWords(message);
    if (message.type === 'connected') {
      const resumed = message.resumed === true;
      if (!resumed) beginAnew();
      greeting = resumed ? strings.RESUMED : connectedBefore ? strings.ANEW : strings.CONNECTED;
      connectedBefore = true;
      greet();
      describeWords(message.writes);
    } else if (message.type === 'starting') {
      starting.tell(message.eta_ms);
      view.announce(starting.sentence);
    } else if (message.type === 'text' && typeof message.delta === 'string') {
      transcript.add(message.delta, message.at_ms ?? message.time_ms);
    } else if (message.type === 'captions') {
      if (message.state === 'on') transcript.twoSided = true;
      view.noCaptions(message.state === 'off' ? message.reason ?? null : null);
    } else if (message.type === 'state' && message.reason === 'reset') {
      transcript.begin();
      view.announce(strings.BEGUN_ANEW);
      tell(strings.BEGUN_ANEW);
    } else if (message.type === 'state' && message.reason === 'restarted') {
      transcript.begin();
      view.announce(strings.RESTARTED);
      tell(strings.RESTARTED);
    } else if (message.type === 'recovered' && banner.code === message.code) {
      banner.hide();
      view.announce(strings.RECOVERED);
    } else if (message.type === 'ending' && Number.isFinite(message.in_ms)) {
      ending.show(message.in_ms);
      // More urgent than a greeting that waits for the microphone, which would be read in its place.
      greeting = '';
      view.announce(strings.ENDING);
    }
  },
  late: hearWords,
  gone: () => transcribing.finish(),
  microphone_paused: ({ paused }) => interruptions.note('microphone', paused),
  problem: (said) => banner.show(said),
  config: showConfig,
  figures: (all) => view.figures(all),
  async microphone({ deviceId }) {
    levels.another();
    await devices.opened(deviceId);
  },
};

/** Words that are heard beside a conversation go into its transcript, and not into the view that transcribes. */
function hearWords(message) {
  if (tabs.current === 'transcribe') transcribing.message(message);
  else if (message.type === 'word' && isWord(message)) transcript.addWord(message);
}

function describeWords(writes) {
  const both = serverService?.captions && view.captions.checked;
  if (writes) transcript.describe(both ? strings.ALL_WORDS : strings.SOME_WORDS);
  else transcript.describe(strings.NO_WORDS);
}

function beginAnew() {
  transcript.begin();
  transcript.twoSided = false;
  view.noCaptions(null);
  ending.hide();
}

const isLive = () => conversation.state === 'listening' || conversation.state === 'speaking';

/** Said only when both are true: the server has greeted, and what is said is heard. */
function greet() {
  if (!greeting || !isLive()) return;
  view.announce(greeting);
  if (greeting !== strings.CONNECTED) tell(greeting);
  greeting = '';
}

/** For the eye what is announced to the ear: it stands for a while in place of the usual sentence. */
function tell(sentence) {
  clearTimeout(newsTimer);
  news = sentence;
  if (!sentence) return;
  newsTimer = setTimeout(() => {
    news = '';
    showDetail();
  }, NEWS_MS);
  showDetail();
}

function ended(by, failure) {
  awake.release();
  ending.hide();
  interruptions.clear();
  playback.release();
  meters.close();
  view.muted(false);
  view.silence('');
  view.noCaptions(null);
  view.figures(null);
  const why = {
    you: strings.VIEWS[tabs.current].ended, server: strings.ENDED_BY_SERVER, leaving: strings.ENDED_BY_LEAVING,
  }[by] ?? `${failure.title}.`;
  view.detail(why);
  view.announce(`Ended. ${why}`);
  if (failure) showFailure(failure, start);
  else banner.hide();
}

function showFailure(failure, again) {
  banner.show(failure, again);
  if (failure.code === 'unauthorized') {
    afterKey = again;
    forgetKey();
    keyForm.ask();
  }
}

/** @param {() => void} then  what the key is for */
function askedForKey(then) {
  const missing = keyForm.want(auth);
  if (missing) {
    afterKey = then;
    keyForm.ask(strings.KEY_MISSING);
  }
  return missing;
}

function showDetail() {
  const { state } = conversation;
  if (state === 'connecting' || state === 'reconnecting' || state === 'ended') return;
  if (interruptions.paused) view.detail(strings.PAUSED_DETAIL);
  else if (unstable) view.detail(strings.UNSTABLE_DETAIL);
  else if (state === 'starting') view.detail(starting.sentence);
  else if (news) view.detail(news);
  else view.detail(conversation.muted ? strings.MUTED_DETAIL : liveDetail(state));
}

function liveDetail(state) {
  if (state === 'listening' && tabs.current === 'talk' && firstPhrase) return strings.trySaying(firstPhrase);
  return strings.VIEWS[tabs.current].live[state] ?? strings.STATES[state].detail;
}

function showPaused(paused) {
  journal.note('paused', { paused });
  if (!isActive(conversation.state)) return;
  if (paused) view.announce(strings.PAUSED_DETAIL);
  showDetail();
}

/** Phones stop what plays and records, and leave it to the page to set it going again. */
function goOn() {
  if (!isActive(conversation.state)) return;
  meters.resume();
  playback.resume();
  conversation.capture.resume();
}

function showConfig(config) {
  serverConfig = config;
  ({ auth = 'none' } = config);
  const wanted = tabs.offered(config);
  const name = wanted || config.default_service;
  conversation.service = wanted;
  const service = config.services.find((one) => one.name === name);
  view.config(config, service);
  firstPhrase = service?.examples?.[0]?.say[0] ?? '';
  showLack();
  serverService = service;
  view.offerCaptions(service?.captions === true, view.captions.checked);
  if (service?.ready) describeWords(service.writes);
  return service;
}

/** What there was to know of a service before its model was there is out of date. */
async function showLoaded() {
  try {
    showConfig(await fetchConfig());
  } catch {
    // The conversation goes on: what the page says of the server stays as it is.
  }
}

function start() {
  if (transcribing.busy || askedForKey(start)) return;
  // All of it in the click: sound that begins later may otherwise stay blocked.
  meters.open();
  playback.unlock();
  conversation.start();
  levels.start();
}

function lackOfBrowser() {
  try {
    checkBrowser();
    return null;
  } catch (error) {
    return explain(asFailure(error));
  }
}

/** Once for each view: where files can be transcribed, a browser that cannot talk is no reason for an alarm. */
function showLack() {
  if (!lack || isActive(conversation.state) || lackShownIn === tabs.current) return;
  lackShownIn = tabs.current;
  const quiet = tabs.current === 'transcribe';
  view.detail(quiet ? strings.filesOnly(lack.title) : strings.STATES.idle.detail);
  if (!quiet) banner.show(lack);
  else if (banner.code === lack.code) banner.hide();
}

/** What the server runs, before a conversation; asked again while the model loads. */
async function showServer() {
  // Stays null while the page is not shown, and becomes undefined when the server has no service of that name.
  let service = null;
  try {
    if (isActive(conversation.state)) return;
    if (document.visibilityState === 'visible') service = showConfig(await fetchConfig());
    if (banner.code === 'offline' || banner.code === 'unreachable' || banner.code === 'bad_gateway') banner.hide();
  } catch (error) {
    if (!isActive(conversation.state)) banner.show(explain(asFailure(error)), showServer);
    return;
  }
  if (service === undefined) banner.show(explain(new Failure('unknown_service')));
  else if (!service?.ready) setTimeout(showServer, NOT_READY_POLL_MS);
  if (service !== null) keyForm.want(auth);
}

view.connect({
  toggle: () => (isActive(conversation.state) ? conversation.end() : start()),
  end: () => conversation.end(),
  mute: () => conversation.setMuted(!conversation.muted),
  reset: () => conversation.reset(),
  hear: () => {
    meters.open();
    playback.resume();
  },
  captions(wanted) {
    conversation.setCaptions(wanted);
    view.offerCaptions(serverService?.captions === true, wanted);
    if (serverService?.ready) describeWords(serverService.writes);
  },
});
window.addEventListener('pagehide', () => conversation.end({ leaving: true }));
window.addEventListener('hashchange', () => {
  takeKeyFromAddress();
  keyForm.want(auth);
});
onWakeup(goOn, new AbortController().signal);

takeKeyFromAddress();

view.state('idle', false);
view.detail(strings.STATES.idle.detail);
view.start.disabled = false;
showServer();
devices.show();
showLack();
