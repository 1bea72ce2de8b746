// Owns what was said as a file that others read: plain text, SubRip, WebVTT, JSON; and times as people read them. Pure:
// turns of words in, text out. The rules are those of the server's own files (POST /api/transcribe), to the letter.

/**
 * @typedef {{text: string, start_ms: number, end_ms: number}} Word
 * @typedef {{words: Word[]}} Turn  what a speaker said until they had finished
 * @typedef {{duration_ms: number, turns: Turn[]}} Said
 * @typedef {{start_ms: number, end_ms: number, lines: string[]}} Cue
 */

// A line's length and, with the next two, what the guides of broadcasters and Netflix agree on.
export const LINE_CHARACTERS = 42;
const CUE_LINES = 2;
const CUE_MS = 6_000;
// A cue stays so long for the reader, unless the next one comes sooner.
const LEAST_CUE_MS = 1_000;
// Words after a pause of this length have a cue of their own: no reader wants them before they are said.
const CUE_GAP_MS = 1_000;
// Control characters, surrogates, separators of lines and paragraphs: in a file they would be structure.
const STRUCTURE = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/gu;
const SENTENCE_END = /[.?!…。？！]$/u;
// SubRip has no escapes, and players take <b> and {\an8} for markup.
const SRT_PLAIN = { '<': '‹', '>': '›', '{': '(', '}': ')' };
// WebVTT, section 4.2.2; it takes care of "-->" as well.
const VTT_ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;' };

export const FORMATS = {
  txt: { type: 'text/plain', render: renderText },
  srt: { type: 'application/x-subrip', render: renderSrt },
  vtt: { type: 'text/vtt', render: renderVtt },
  json: { type: 'application/json', render: renderJson },
};

const joined = (words) => words.map(({ text }) => text).join(' ');
const length = (text) => [...text].length;
const two = (number) => String(number).padStart(2, '0');

/** Without line ends, control characters and words of nothing. */
function readable(words) {
  return words
    .map((word) => ({ ...word, text: word.text.replace(STRUCTURE, ' ').trim().replace(/\s+/g, ' ') }))
    .filter(({ text }) => text);
}

function wrapped(words) {
  const lines = [];
  for (const { text } of words) {
    if (lines.length && length(lines.at(-1)) + 1 + length(text) <= LINE_CHARACTERS) lines.push(`${lines.pop()} ${text}`);
    else lines.push(text);
  }
  return lines;
}

function fits(group, word) {
  const last = group.at(-1);
  if (word.end_ms - group[0].start_ms > CUE_MS || word.start_ms - last.end_ms >= CUE_GAP_MS) return false;
  // A sentence that fills a line is read better alone than with the beginning of the next.
  if (SENTENCE_END.test(last.text) && length(joined(group)) >= LINE_CHARACTERS) return false;
  return wrapped([...group, word]).length <= CUE_LINES;
}

/** The words of one turn by cue. */
function grouped(words) {
  const groups = [];
  for (const word of words) {
    if (groups.length && fits(groups.at(-1), word)) groups.at(-1).push(word);
    else groups.push([word]);
  }
  return groups;
}

/** In order, none of them empty, none over the other, none longer than six seconds. @param {Turn[]} turns @returns {Cue[]} */
export function cues(turns) {
  const groups = turns.flatMap(({ words }) => grouped(readable(words)));
  let free_ms = 0;
  return groups.map((group, number) => {
    const start_ms = Math.max(group[0].start_ms, free_ms);
    const last_ms = group.at(-1).end_ms;
    const next_ms = groups[number + 1]?.[0].start_ms ?? Infinity;
    const said_ms = Math.min(Math.max(last_ms, start_ms + LEAST_CUE_MS), Math.max(next_ms, last_ms));
    // A cue without any length would never be shown.
    free_ms = Math.min(Math.max(said_ms, start_ms + 1), start_ms + CUE_MS);
    return { start_ms, end_ms: free_ms, lines: wrapped(group) };
  });
}

/** @param {Said} said */
function renderText({ turns }) {
  return turns.map(({ words }) => joined(readable(words))).filter(Boolean).map((text) => `${text}\n`).join('\n');
}

function renderSrt({ turns }) {
  // An arrow would make a line of text look like times.
  const plain = (text) => text.replaceAll('-->', '→').replace(/[<>{}]/g, (sign) => SRT_PLAIN[sign]);
  return cues(turns)
    .map(({ start_ms, end_ms, lines }, at) => `${at + 1}\n${fileTime(start_ms, ',')} --> ${fileTime(end_ms, ',')}\n${plain(lines.join('\n'))}\n`)
    .join('\n');
}

function renderVtt({ turns }) {
  const escaped = (text) => text.replace(/[&<>]/g, (sign) => VTT_ESCAPES[sign]);
  const blocks = cues(turns)
    .map(({ start_ms, end_ms, lines }) => `${fileTime(start_ms, '.')} --> ${fileTime(end_ms, '.')}\n${escaped(lines.join('\n'))}\n`);
  return ['WEBVTT\n', ...blocks].join('\n');
}

/** As the answer of `POST /api/transcribe`. */
function renderJson({ duration_ms, turns }) {
  const words = turns.flatMap((turn) => turn.words);
  return `${JSON.stringify({
    duration_ms,
    text: joined(words),
    words: words.map(({ text, start_ms, end_ms }) => ({ text, start_ms, end_ms })),
    turns: turns.map((turn) => ({
      start_ms: turn.words[0].start_ms, end_ms: turn.words.at(-1).end_ms, text: joined(turn.words),
    })),
  })}\n`;
}

function fileTime(ms, point) {
  const seconds = Math.floor(ms / 1000);
  const clock = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map(two).join(':');
  return `${clock}${point}${String(ms % 1000).padStart(3, '0')}`;
}

/** 0:07, 12:30, 1:02:03 */
export function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** When a word was said, to the tenth of a second: 0:07.2 – 0:07.5 */
export function span({ start_ms, end_ms }) {
  const exact = (ms) => `${clock(ms)}.${Math.floor((ms % 1000) / 100)}`;
  return exact(start_ms) === exact(end_ms) ? exact(start_ms) : `${exact(start_ms)} – ${exact(end_ms)}`;
}
