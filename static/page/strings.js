// Owns the words for states, phases and figures. Words for failures are in errors.js, fixed labels in index.html.

/** Keyed by the states of a conversation. `detail` is what stands below the state when nothing more exact is known. */
export const STATES = {
  idle: { word: 'Idle', detail: 'Ready when you are.' },
  connecting: { word: 'Connecting', detail: 'One moment…' },
  starting: { word: 'Starting', detail: 'The model is starting.' },
  listening: { word: 'Listening', detail: 'Just talk. You can interrupt at any time.' },
  speaking: { word: 'Speaking', detail: 'You can talk over it.' },
  reconnecting: { word: 'Reconnecting', detail: 'The connection was lost.' },
  ended: { word: 'Ended', detail: '' },
};

/** What the two views say differently. */
export const VIEWS = {
  talk: { start: 'Start talking', live: {}, ended: 'You ended the conversation.' },
  transcribe: {
    start: 'Start transcribing',
    live: { listening: 'Just talk. What you say is written down.' },
    ended: 'You ended the transcription.',
  },
};

export const PHASES = {
  microphone: 'Opening the microphone. Allow it if the browser asks.',
  offer: 'Asking the server for a place.',
  route: 'Finding a way for the audio.',
  sound: 'Connected. Waiting for the microphone’s first sound.',
};

/** In place of a server's "come back later". @param {number|null} left_s  null: not known */
export function starting(left_s) {
  if (left_s === null) return 'The model is starting. You can talk as soon as it is there.';
  if (left_s <= 0) return 'The model is starting. It should be there any moment.';
  return `The model is starting, about ${left_s} ${left_s === 1 ? 'second' : 'seconds'}.`;
}

export const MUTED_DETAIL = 'You are muted: the model hears silence.';
export const UNSTABLE_DETAIL = 'The connection is unsteady.';
export const ENDED_BY_SERVER = 'The conversation is over.';
export const ENDED_BY_LEAVING = 'The conversation ended when you left the page.';

export const quoted = (phrase) => `“${phrase}”`;
/** In place of "Just talk", of a model that knows some phrases only. */
export const trySaying = (phrase) => `Try saying ${quoted(phrase)}. You can interrupt at any time.`;

export const SILENT_MICROPHONE = 'Nothing comes from this microphone. Is it switched off, or the wrong one?';
export const NO_WORDS = 'This service answers with sound only: there are no words to show.';
export const SOME_WORDS = 'The model’s words appear here while it talks.';
export const ALL_WORDS = 'Your words and the model’s appear here while you talk.';

/** Of the transcript: of the model alone, and of both sides. */
export const TITLES = { model: 'What it says', both: 'What was said' };
/** Before a line of the transcript. */
export const WHO = { you: 'You:', model: 'Model:' };

/** Why what the user says is not written down, by the server's reason. */
const NO_CAPTIONS = {
  server_full: 'all places are taken by others',
  overloaded: 'the server is busy',
  engine_unavailable: 'the model that hears them is not ready',
};
export const noCaptions = (reason) =>
  `Your words are not written down at the moment: ${NO_CAPTIONS[reason] ?? 'the server cannot do it'}. The conversation goes on.`;

/** What comes after a loss. `resuming`: the server holds the conversation for us. */
export const PROSPECT = {
  resuming: 'The conversation goes on where it was.',
  begins: 'It will be a new conversation.',
};
export const retrying = (title, seconds, resuming) =>
  `${title}. Trying again ${seconds > 0 ? `in ${seconds} s` : 'now'}… ${resuming ? PROSPECT.resuming : PROSPECT.begins}`;
export const RECONNECTING = 'Connection lost. Reconnecting.';
export const CONNECTED = 'Connected. You can talk.';
export const RESUMED = 'Connected again. The conversation goes on where it was.';
export const ANEW = 'Connected again. This is a new conversation.';
/** Above the words of a later conversation. */
export const newConversation = (time) => `New conversation, ${time}`;
export const BEGUN_ANEW = 'A new conversation begins.';

export const PAUSED_DETAIL = 'Paused by a call or by another app. It goes on by itself afterwards.';
export const ENDING = 'This conversation ends in one minute.';
export const RECOVERED = 'The model answers again.';
export const RESTARTED = 'The model had to begin again: it has forgotten what was said. Just go on talking.';

/** Until the server ends the conversation, as on a clock. */
export function countdown(left_s) {
  return `This conversation ends in ${Math.floor(left_s / 60)}:${String(left_s % 60).padStart(2, '0')}.`;
}

export const KEY_MISSING = 'Enter the key that you were given first.';
export const KEY_NOT_SENDABLE = 'A key is letters, digits and signs, without spaces. Check what you have copied.';

export const milliseconds = (value) => (value == null ? '–' : `${Math.round(value)} ms`);
export const percent = (share) => (share == null ? '–' : `${(share * 100).toFixed(1)} %`);

/** How loud, for people who cannot see the bar; `share` is 0 to 1 of the meter. */
export function loudness(share) {
  if (share < 0.05) return 'silent';
  if (share < 0.4) return 'quiet';
  return share < 0.85 ? 'clear' : 'loud';
}

/** `model` and `device` of a service from /api/config. */
export function modelLine(service) {
  if (!service) return 'not offered here';
  // Before its first load the server knows the service's name and nothing of its model.
  if (!service.model) return `${service.name} (loading)`;
  return `${service.model} on ${service.device}${service.ready ? '' : ' (loading)'}`;
}

export const SWITCH_LOCKED = 'End this first to switch.';

/** What is heard, in the view that transcribes. */
export const HEARD = { listening: 'Listening', speech: 'Speech', 'turn-ended': 'Turn ended' };
export const CLEARED = 'Cleared.';
export const COPIED = 'Copied.';
export const NOT_COPIED = {
  title: 'The browser does not let this page copy', text: 'The clipboard is closed to it.', todo: 'Download the text instead.',
};
export const LOSE_WORDS = 'The words on this page have not been copied or downloaded. Discard them?';

/** A part after the first one. */
export const laterPart = (date) => `Begun at ${date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}`;

/** Of a download, without its end: a date that sorts. */
export function fileName(date) {
  const two = (number) => String(number).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `transcript-${day}-${two(date.getHours())}${two(date.getMinutes())}`;
}

/** In place of an alarm, for the files that this view is for as well. */
export const filesOnly = (title) => `${title}: live transcription needs it. Files can be transcribed all the same.`;
export const FILE_LOCKED = 'End the live transcription first.';
export const FILE_CANCELLED = 'Cancelled. What was found by then is kept.';
export const sending = (name, share) => (share < 1 ? `Sending ${name}: ${Math.floor(share * 100)} %` : `${name} is sent. The first words are on their way…`);
export const found = (name, at, total) => `${name}: ${at}${total ? ` of ${total}` : ''} transcribed`;
export const fileDone = (name, words) => `${name} is transcribed: ${words} ${words === 1 ? 'word' : 'words'}.`;
