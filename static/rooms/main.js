// The composition root of the rooms' page: lobby, form, room. The address says which: `#room=ID` is a room, and the
// invitation to it. ?raw=1 and ?relay=1 are as on the page of conversations.

import { fetchConfig } from '../connection/api.js';
import { forgetKey, takeKeyFromAddress } from '../connection/auth.js';
import { asFailure, explain } from '../connection/errors.js';
import { onWakeup } from '../connection/wakeups.js';
import { Conversation, isActive } from '../conversation/conversation.js';
import { remember, remembered } from '../conversation/devices.js';
import { Interruptions } from '../conversation/interruptions.js';
import { Journal } from '../conversation/journal.js';
import { checkBrowser } from '../conversation/microphone.js';
import { Playback } from '../conversation/playback.js';
import { Awake } from '../page/awake.js';
import { Banner } from '../page/banner.js';
import { allow, byId, copyButton, isField, whenAllowed } from '../page/controls.js';
import { Countdown } from '../page/countdown.js';
import { DeviceLists } from '../page/devicelists.js';
import { KeyForm } from '../page/keyform.js';
import { LevelBar } from '../page/levelbar.js';
import { Levels } from '../page/levels.js';
import { Meters } from '../page/meter.js';
import { readWords } from '../page/remembered.js';
import { KEY_MISSING, PAUSED_DETAIL, PHASES, SILENT_MICROPHONE, UNSTABLE_DETAIL } from '../page/strings.js';
import { fragmentOf, invitation, roomOf } from './address.js';
import * as api from './api.js';
import { Bubbles } from './bubbles.js';
import { fillLanguages, Joining } from './joining.js';
import { Lobby } from './lobby.js';
import { forgetMembership, keepMembership, membership, rememberYourself } from './membership.js';
import { People } from './people.js';
import { QrCode } from './qrcode.js';
import { Reading } from './reading.js';
import { Replay } from './replay.js';
import { Room } from './room.js';
import { TalkMode } from './talkmode.js';
import * as words from './words.js';

const SERVICE = 'translate';
// The last of a word is still on its way when the button is let go.
const RELEASE_MS = 250;
// A member whom the server has forgotten, as after a long sleep, joins again by itself; not over and over.
const REJOIN_AFTER_MS = 60_000;

const query = new URLSearchParams(location.search);
const voice = byId('playback');
const banner = new Banner({
  box: byId('message'), title: byId('message-title'), text: byId('message-text'), todo: byId('message-todo'),
  retry: byId('retry'), dismiss: byId('dismiss'),
}, byId('title'), () => {});
const keyForm = new KeyForm({ form: byId('key-form'), input: byId('key'), error: byId('key-error') }, () => afterKey());
const interruptions = new Interruptions({ paused: showDetail, over: goOn });
const meters = new Meters((interrupted) => interruptions.note('context', interrupted));
const playback = new Playback(voice, {
  blocked: (blocked) => { byId('hear').hidden = !blocked; },
  paused: (paused) => interruptions.note('playback', paused),
});
const awake = new Awake();
const retry = new Countdown();
const journal = new Journal();
const level = new LevelBar(byId('meter-mic'));
const talk = new TalkMode(remembered('talk') === 'push');

let auth = 'none';
let languages = [];
let afterKey = route;
/** @type {import('./membership.js').Membership|null} */
let mine = null;
let room = new Room('');
let state = 'out';
let unstable = false;
let notice = '';
let release = 0;
let rejoined_ms = -Infinity;

const languageName = (code) => words.languageName(code, languages);
const people = new People({ title: byId('people-title'), list: byId('people') }, languageName);
const bubbles = new Bubbles({
  log: byId('messages'), empty: byId('messages-empty'), newest: byId('messages-newest'), told: byId('told'),
}, {
  languageName,
  replay: ({ id, audio }) => replay.toggle(id, (signal) => api.fetchAudio(mine.member, audio, signal)),
});
const replay = new Replay(byId('replay'), voice, {
  changed: (id, playing) => bubbles.replaying(id, playing),
  failed: (error) => show(error),
});
const qrCode = new QrCode({ button: byId('show-qr'), box: byId('qr'), image: byId('qr-image') }, {
  fetch: (id) => api.fetchQrCode(id, location.origin + location.pathname),
  failed: (error, again) => show(error, again),
});
const lobby = new Lobby({
  box: byId('lobby'), list: byId('rooms'), empty: byId('rooms-empty'), form: byId('new-room'), name: byId('new-room-name'),
  unlisted: byId('new-room-private'),
}, {
  offer: offered,
  made: (id) => { location.hash = fragmentOf(id); },
  failed: (error, again) => show(error, again),
});
const joining = new Joining({
  box: byId('joining'), title: byId('joining-title'), who: byId('joining-who'), form: byId('join'), name: byId('join-name'),
  language: byId('join-language'), read: byId('join-read'), talk: byId('join-talk'),
}, { join });

const conversation = new Conversation({
  service: SERVICE, raw: query.get('raw') === '1', relayOnly: query.get('relay') === '1', deviceId: remembered('microphone'),
  captions: true,
}, (type, detail) => {
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
journal.publish(conversation, { get text() { return room.messages.map(({ text }) => text).join('\n'); } });
const devices = new DeviceLists({
  microphones: byId('mic-select'), speakers: byId('speaker-select'), speakerField: byId('speaker-field'),
}, playback, conversation.capture);
const levels = new Levels(meters, {
  active: () => isActive(conversation.state),
  open: () => state === 'talking' && !conversation.muted,
  level: (name, share, now_ms) => { if (name === 'mic') level.show(share, now_ms); },
  silence: (silent) => { byId('silence').textContent = silent ? SILENT_MICROPHONE : ''; },
});
const reading = new Reading({
  event: hear,
  state(now) {
    if (now === 'reading') announce(state === 'reconnecting' ? words.BACK : words.READING);
    move(now);
  },
  retrying,
  ended: over,
});

const handlers = {
  state({ state: now, by, failure }) {
    if (now === 'ended') {
      levels.start();
      awake.release();
      if (failure) over(failure);
      else if (by === 'server') over(null);
      return;
    }
    if (now === 'listening' || now === 'speaking') {
      if (state !== 'talking') announce(state === 'reconnecting' ? words.BACK : words.CONNECTED);
      awake.hold();
      move('talking');
    } else {
      move(now);
    }
  },
  phase({ phase }) {
    if (state === 'connecting') detail(PHASES[phase]);
  },
  retrying,
  unstable(news) {
    ({ unstable } = news);
    showDetail();
  },
  muted: showTalk,
  message(message) {
    if (message.type === 'connected') conversation.send({ type: 'room-settings', original: byId('original').value });
    hear(message);
  },
  microphone_paused: ({ paused }) => interruptions.note('microphone', paused),
  problem: (said) => banner.show(said),
  async microphone({ deviceId }) {
    levels.another();
    await devices.opened(deviceId);
  },
};

function announce(sentence) {
  byId('announce').textContent = sentence;
}

function detail(sentence) {
  const box = byId('state-detail');
  if (box.textContent !== sentence) box.textContent = sentence;
}

function move(now) {
  // What a microphone failed of stays to be read, while its user reads on.
  if (now === 'talking' || (now === 'reading' && state === 'reconnecting')) banner.hide();
  state = now;
  unstable = false;
  if (now !== 'reconnecting') retry.stop();
  const tone = { talking: 'listening', reading: 'listening' }[now] ?? now;
  byId('state').dataset.state = tone;
  document.body.dataset.state = tone;
  byId('state').textContent = words.STATES[now].word;
  showTalk();
}

function showDetail() {
  if (state === 'reconnecting' || state === 'connecting') return;
  if (interruptions.paused) detail(PAUSED_DETAIL);
  else if (unstable) detail(UNSTABLE_DETAIL);
  else if (state !== 'talking') detail(words.STATES[state].detail);
  else if (talk.push) detail(talk.held ? words.PUSHED : words.PUSH);
  else detail(talk.muted ? words.MUTED : words.OPEN);
}

function retrying({ wait_ms, failure }) {
  announce(words.STATES.reconnecting.detail);
  retry.start(wait_ms, (left_s) => detail(words.retrying(failure.title, left_s)));
}

function show(error, again = null) {
  const said = explain(asFailure(error));
  banner.show(said, again);
  if (said.code !== 'unauthorized') return;
  afterKey = again ?? route;
  forgetKey();
  keyForm.ask();
}

// What is said.

function hear(event) {
  const { people: who, name, joined, left, message, settled, gone } = room.apply(event, Date.now());
  if (name) {
    byId('room-name').textContent = room.name;
    document.title = `${room.name} – Rooms`;
    if (mine.language !== room.language) changed({ language: room.language });
  }
  if (who) people.show(room.people, room.you);
  if (joined) announce(words.joined(joined.name));
  if (left) announce(words.gone(left.name));
  if (!message) return;
  bubbles.show(message);
  if (gone?.length) bubbles.forget(gone);
  if (settled && !message.own && message.text) bubbles.tell(message);
}

async function say(event) {
  event.preventDefault();
  const field = byId('say-text');
  const text = field.value.trim();
  if (!text || !mine) return;
  const button = byId('say-send');
  button.disabled = true;
  try {
    await api.say(mine.member, text);
    if (field.value.trim() === text) field.value = '';
  } catch (error) {
    // What was written stays, to be sent again.
    show(error);
  } finally {
    button.disabled = false;
    field.focus();
  }
}

// In and out.

async function join({ name, language, voice: talks }) {
  const id = roomOf(location.hash);
  joining.busy(true);
  // In the click: sound that begins later may otherwise stay blocked.
  if (talks) unlock();
  try {
    const member = await api.join(id, { name, language });
    banner.hide();
    enter({ member, name, language, voice: talks, last: '', messages: mine?.messages ?? [] });
  } catch (error) {
    show(error);
  } finally {
    joining.busy(false);
  }
}

function unlock() {
  meters.open();
  playback.unlock();
}

function enter(kept) {
  mine = kept;
  joining.hide();
  lobby.hide();
  room = new Room(kept.language);
  room.restore(kept.messages);
  bubbles.clear();
  for (const message of room.messages) bubbles.show(message);
  people.show([], '');
  byId('room-link').value = invitation(location.href, kept.member.room);
  qrCode.of(kept.member.room);
  byId('room-member-name').value = kept.name;
  fillLanguages(byId('room-language'), languages, kept.language);
  showLanguageNote();
  byId('room').hidden = false;
  byId('room-name').focus();
  keep();
  if (kept.voice && !lack()) speak();
  else read();
}

function keep() {
  if (mine) keepMembership(mine.member.room, { ...mine, last: reading.last || mine.last, messages: room.messages });
}

function speak() {
  mine.voice = true;
  reading.stop();
  unlock();
  conversation.options = { member: mine.member.token };
  conversation.start({ muted: talk.muted });
  levels.start();
}

function read() {
  mine.voice = false;
  conversation.end();
  const { member, last } = mine;
  reading.start((seen, signal) => api.openEvents(member, seen, signal), reading.last || last);
}

/** The session, or the event stream, is over. @param {object|null} failure  as told by `explain` */
function over(failure) {
  if (!mine) return;
  const { code } = failure ?? {};
  if (code === 'unknown_member' && performance.now() - rejoined_ms > REJOIN_AFTER_MS) {
    rejoined_ms = performance.now();
    mine.messages = room.messages;
    join(mine);
    return;
  }
  if (code === 'unknown_member' || code === 'unknown_room') {
    out();
    route();
    return;
  }
  if (!mine.voice) {
    move('out');
    banner.show(failure, read);
    return;
  }
  // Without a microphone, or a way for sound, there are still the words.
  read();
  if (!failure) return;
  banner.show(failure, failure.again === 'never' ? null : () => speak());
  if (code === 'unauthorized') {
    afterKey = speak;
    forgetKey();
    keyForm.ask();
  }
}

/** Of what is on this page; the server is told elsewhere. */
function out() {
  if (!mine) return;
  const { room: id } = mine.member;
  forgetMembership(id);
  mine = null;
  reading.stop();
  conversation.end();
  replay.stop();
  interruptions.clear();
  playback.release();
  meters.close();
  talk.releaseAll();
  move('out');
  byId('room').hidden = true;
  document.title = 'Rooms';
}

async function leave() {
  const { member } = mine;
  out();
  location.hash = '';
  announce(words.LEFT);
  await api.leave(member).catch(() => {});
}

async function changed(what) {
  Object.assign(mine, what);
  rememberYourself(what);
  room.changeYourself(what);
  people.show(room.people, room.you);
  fillLanguages(byId('room-language'), languages, mine.language);
  showLanguageNote();
  keep();
}

async function change(what) {
  try {
    await api.change(mine.member, what);
    changed(what);
  } catch (error) {
    byId('room-language').value = mine.language;
    byId('room-member-name').value = mine.name;
    show(error);
  }
}

function showLanguageNote() {
  const known = languages.find(({ code }) => code === mine?.language);
  byId('language-note').textContent = known ? words.languageNote(known) : '';
}

// The microphone.

function showTalk() {
  const talking = state === 'talking' || (state !== 'reading' && state !== 'out' && mine?.voice === true);
  byId('talking').hidden = !talking;
  byId('not-talking').hidden = talking;
  byId('stop-speaking').hidden = !talking;
  byId('speak').hidden = lack() !== null;
  for (const choice of byId('talk-mode').querySelectorAll('input')) choice.checked = choice.value === (talk.push ? 'push' : 'open');
  byId('mute').hidden = talk.push;
  byId('hold').hidden = !talk.push;
  byId('mute').setAttribute('aria-pressed', String(talk.muted));
  byId('hold').setAttribute('aria-pressed', String(talk.held));
  byId('meter-mic-label').textContent = talk.muted ? 'You (muted)' : 'You';
  allow(byId('mute'), talking);
  allow(byId('hold'), talking);
  showDetail();
}

function applyTalk() {
  clearTimeout(release);
  conversation.setMuted(talk.muted);
  showTalk();
}

function hold(what) {
  if (!talk.push || !isActive(conversation.state)) return;
  talk.hold(what);
  applyTalk();
}

function letGo(what) {
  if (!talk.held) return;
  clearTimeout(release);
  release = setTimeout(() => {
    talk.release(what);
    applyTalk();
  }, RELEASE_MS);
}

/** Keys that a control answers to are the control's. */
const hasItsOwnKeys = (target) => target !== byId('hold') && target.closest?.('button, a, summary') != null;

function key(event) {
  if (!mine || event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
  if (event.key === ' ' && talk.push && !hasItsOwnKeys(event.target)) {
    event.preventDefault();
    if (event.type === 'keyup') letGo('space');
    else if (!event.repeat) hold('space');
  } else if (event.key.toLowerCase() === 'm' && event.type === 'keydown' && !event.repeat && !talk.push) {
    toggleMute();
  }
}

function toggleMute() {
  if (!isActive(conversation.state)) return;
  talk.toggle();
  applyTalk();
  announce(talk.muted ? 'Muted' : 'Unmuted');
}

/** Phones stop what plays and records, and leave it to the page to set it going again. */
function goOn() {
  if (!isActive(conversation.state)) return;
  meters.resume();
  playback.resume();
  conversation.capture.resume();
}

function lack() {
  try {
    checkBrowser();
    return null;
  } catch (error) {
    return explain(asFailure(error));
  }
}

// Where one is.

function offered(all) {
  languages = all.languages;
  notice = typeof all.notice === 'string' ? all.notice : all.notice?.message ?? '';
  byId('notice').hidden = !notice;
  byId('notice-message').textContent = notice;
  joining.offer(languages);
  byId('no-languages').hidden = languages.length > 0;
  byId('no-languages').textContent = words.NO_LANGUAGES;
  byId('new-room-make').disabled = false;
  if (banner.code === 'unreachable' || banner.code === 'offline' || banner.code === 'bad_gateway') banner.hide();
}

/** By the address: lobby, form, or the room that this tab is in already. */
async function route() {
  const id = roomOf(location.hash);
  if (mine && mine.member.room !== id) {
    const { member } = mine;
    out();
    api.leave(member).catch(() => {});
  }
  if (mine) return;
  joining.hide();
  lobby.hide();
  try {
    const config = await fetchConfig();
    ({ auth = 'none' } = config);
    byId('version').textContent = config.version ? `Version ${config.version}.` : '';
    if (keyForm.want(auth)) {
      afterKey = route;
      keyForm.ask(KEY_MISSING);
      return;
    }
    if (id === roomOf(location.hash)) await (id ? visit(id) : lobby.show());
  } catch (error) {
    if (id === roomOf(location.hash)) show(error, route);
  }
}

async function visit(id) {
  offered(await api.fetchRooms());
  const kept = membership(id);
  if (kept) {
    enter(kept);
    return;
  }
  const there = await api.fetchRoom(id);
  const cannot = lack();
  byId('join-talk').hidden = cannot !== null;
  byId('join-lack').textContent = cannot ? `${cannot.title}. ${words.WITHOUT_MICROPHONE}` : '';
  if (!mine && id === roomOf(location.hash)) joining.show(there, languages);
}

byId('say').addEventListener('submit', say);
byId('leave').addEventListener('click', leave);
byId('speak').addEventListener('click', speak);
byId('stop-speaking').addEventListener('click', read);
byId('hear').addEventListener('click', () => {
  meters.open();
  playback.resume();
});
copyButton(byId('copy-link'), byId('room-link'));
readWords(byId('read-words'), [byId('told')]);
byId('room-language').addEventListener('change', ({ target }) => change({ language: target.value }));
byId('rename').addEventListener('submit', (event) => {
  event.preventDefault();
  const name = byId('room-member-name').value.trim();
  if (name && name !== mine.name) change({ name });
});
byId('original').value = remembered('original') || 'under';
byId('original').addEventListener('change', ({ target }) => {
  remember('original', target.value);
  conversation.send({ type: 'room-settings', original: target.value });
});
byId('talk-mode').addEventListener('change', ({ target }) => {
  talk.push = target.value === 'push';
  remember('talk', target.value);
  applyTalk();
});
whenAllowed(byId('mute'), toggleMute);
byId('hold').addEventListener('pointerdown', (event) => {
  event.target.setPointerCapture?.(event.pointerId);
  hold('button');
});
for (const type of ['pointerup', 'pointercancel', 'lostpointercapture']) byId('hold').addEventListener(type, () => letGo('button'));
byId('hold').addEventListener('contextmenu', (event) => event.preventDefault());
document.addEventListener('keydown', key);
document.addEventListener('keyup', key);
// After a click with the mouse the space bar is to talk, not to click again.
document.addEventListener('click', (event) => {
  if (talk.push && event.detail > 0 && mine) event.target.closest('button')?.blur();
});
window.addEventListener('blur', () => {
  if (!talk.held) return;
  talk.releaseAll();
  applyTalk();
});
window.addEventListener('pagehide', () => {
  keep();
  conversation.end({ leaving: true });
});
window.addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
window.addEventListener('hashchange', () => {
  takeKeyFromAddress();
  banner.hide();
  route();
});
onWakeup(goOn, new AbortController().signal);

takeKeyFromAddress();
move('out');
devices.show();
route();
