// Owns the words of the rooms' pages, fixed labels apart, which are in rooms.html. Words for failures are in
// connection/errors.js. Pure.

/** Keyed by the ways of being in a room. */
export const STATES = {
  connecting: { word: 'Connecting', detail: 'One moment…' },
  starting: { word: 'Starting', detail: 'The translator is starting. You are heard as soon as it is there.' },
  talking: { word: 'In the room', detail: '' },
  reading: { word: 'Reading', detail: 'You read and write here, without sound.' },
  reconnecting: { word: 'Reconnecting', detail: 'The connection was lost.' },
  out: { word: 'Not in the room', detail: '' },
};

export const OPEN = 'Your microphone is open.';
export const MUTED = 'You are muted. You still hear the others.';
export const PUSH = 'Hold the button, or the space bar, while you talk.';
export const PUSHED = 'You are heard.';
export const WITHOUT_MICROPHONE = 'You can read and write here without one.';

export const CONNECTED = 'You are in the room. You can talk.';
export const READING = 'You are in the room, to read and write.';
export const BACK = 'Connected again.';
export const PROSPECT = 'You stay in the room.';
export const LEFT = 'You have left the room.';

export const NO_ROOMS_YET = 'No room is open to all at the moment. Make one, and send its link to the others.';
export const NO_LANGUAGES = 'This server has no language to join in: no model that hears or translates is loaded.';

export const retrying = (title, left_s) => `${title}. Trying again ${left_s > 0 ? `in ${left_s} s` : 'now'}… ${PROSPECT}`;

const counted = (count, one, several) => `${count} ${count === 1 ? one : several}`;

/** "a", "a and b", "a, b and c" */
export function listed(names) {
  if (names.length < 2) return names.join('');
  return `${names.slice(0, -1).join(', ')} and ${names.at(-1)}`;
}

/** The name of a language: the server's, or else what the browser calls it. @param {{code: string, name: string}[]} languages */
export function languageName(code, languages) {
  const known = languages.find((language) => language.code === code);
  if (known) return known.name;
  try {
    return new Intl.DisplayNames(['en'], { type: 'language' }).of(code) ?? code;
  } catch {
    return String(code);
  }
}

/** In a list to choose from. @param {{name: string, hears: boolean, speaks: boolean}} language */
export function languageOption({ name, hears, speaks }) {
  if (hears && speaks) return name;
  if (hears) return `${name} (no voice: others are read)`;
  return speaks ? `${name} (typed, not spoken)` : `${name} (read and typed only)`;
}

/** What a member of this language has to know, '' where there is nothing. */
export function languageNote({ name, hears, speaks }) {
  const notes = [];
  if (!hears) notes.push(`What you say in ${name} is not written down here: type it instead.`);
  if (!speaks) notes.push(`There is no voice for ${name}: what the others say is translated in writing.`);
  return notes.join(' ');
}

/** Of a room in the lobby. */
export function roomLine({ members, languages: codes }, languages) {
  const spoken = listed(codes.map((code) => languageName(code, languages)));
  const people = counted(members, 'member', 'members');
  return spoken ? `${people}: ${spoken}` : people;
}

/** Above the form. @param {{name: string, language: string}[]} members */
export function alreadyIn(members, languages) {
  if (!members.length) return 'You are the first one here.';
  return `Already in: ${listed(members.map(({ name, language }) => `${name} (${languageName(language, languages)})`))}.`;
}

export const peopleTitle = (count) => `In the room (${count})`;
export const memberNote = ({ here, speaking }) => (!here ? 'away' : speaking ? 'speaking' : '');

export const joined = (name) => `${name} has joined.`;
export const gone = (name) => `${name} has left.`;

/**
 * What stands below a message besides its text, '' where there is nothing.
 * @param {{state: string, reason: string|null, text: string, playing: string, own: boolean, grows: boolean}} message
 * @param {string} from  @param {string} into  names of languages
 */
export function messageNote({ state, reason, text, playing, grows }, from, into) {
  if (grows) return playing === 'started' ? 'You hear this now' : '';
  if (state === 'pending') return text ? 'Translating…' : 'Being written down…';
  if (state === 'failed') {
    if (!text) return 'What was said could not be written down.';
    if (reason === 'untranslatable') return `Nothing here translates ${from} into ${into}: this is as it was said.`;
    return `It could not be translated into ${into}: this is as it was said.`;
  }
  if (playing === 'started') return 'You hear this now';
  if (playing === 'skipped') return 'Not spoken, to catch up: read it here';
  return '';
}

/** To the ear, once, when it is complete. */
export const toldAloud = ({ name, text }) => `${name}: ${text}`;

export const replayLabel = ({ name, text }) => `Replay ${name}: ${text}`;
export const time = (date) => date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
