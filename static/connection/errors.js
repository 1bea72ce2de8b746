// Owns every way in which a conversation can fail: a code, what happened in a person's words, and what to do.
// Codes of the server are those of docs/protocol.md; the rest are the page's own. It must not know the DOM.

/** A failure with a code of the table below. `again` says who may try again: see `explain`. */
export class Failure extends Error {
  /**
   * @param {string} code
   * @param {{serverMessage?: string, retryAfterS?: number, retryable?: boolean, detail?: string, last?: Failure, cause?: unknown}} [more]
   *   `detail`: a number or a word of the browser's or the server's, for the text
   */
  constructor(code, { serverMessage = '', retryAfterS = 0, retryable = false, detail = '', last = null, cause } = {}) {
    super(code, { cause });
    this.name = 'Failure';
    this.code = code;
    this.serverMessage = serverMessage;
    this.retryAfterS = retryAfterS;
    this.retryable = retryable;
    this.detail = detail;
    /** What the server said of it afterwards: a sentence for its operator. */
    this.added = '';
    this.last = last;
  }
}

/** Anything thrown, as a Failure. */
export function asFailure(error) {
  return error instanceof Failure ? error : new Failure('page_fault', { cause: error });
}

// Of TURN: RFC 8656, section 19, and RFC 8489, section 14.8.
const RELAY_ANSWERS = {
  401: 'that our credentials are not valid',
  403: 'that this is forbidden',
  486: 'that its quota for us is used up',
  508: 'that it has no room left',
};

// again: 'auto'  the page may try again by itself once a conversation has been running
//        'user'  a button offers it
//        'never' trying again cannot help
const TABLE = {
  // The browser and the microphone.
  insecure_origin: {
    title: 'This address is not secure enough for a microphone',
    text: () => `Browsers hand the microphone only to pages opened over HTTPS or on localhost. This page came from ${location.origin}.`,
    todo: () => `Open it with https:// in front, or on the server’s own machine as http://localhost${location.port ? `:${location.port}` : ''}.`
      + ' An SSH tunnel to the server makes it localhost too.',
    again: 'never',
  },
  no_webrtc: {
    title: 'This browser has no WebRTC',
    text: 'Live audio needs it, and it is missing here or switched off.',
    todo: 'Use a current Chrome, Edge, Firefox or Safari; if you have switched WebRTC off or block it with an extension, allow it for this page.',
    again: 'never',
  },
  microphone_denied: {
    title: 'The microphone is blocked',
    text: 'The browser or the system does not let this page use a microphone.',
    todo: 'Allow the microphone in the site settings beside the address bar, then try again. On a phone or a Mac, the system’s privacy settings must allow it for the browser as well.',
    again: 'user',
  },
  microphone_missing: {
    title: 'No microphone found',
    text: 'The browser sees no microphone on this device.',
    todo: 'Connect one or switch it on, then try again.',
    again: 'user',
  },
  microphone_busy: {
    title: 'The microphone is busy',
    text: 'The system could not open it: another program or tab is probably using it.',
    todo: 'Close other calls and recorders, or choose another microphone, then try again.',
    again: 'user',
  },
  microphone_failed: {
    title: 'The microphone could not be opened',
    text: 'The browser gave no clear reason.',
    todo: 'Choose another microphone or reconnect this one, then try again.',
    again: 'user',
  },
  microphone_lost: {
    title: 'The microphone is gone',
    text: 'It was disconnected, or the system took it back. You can still hear the other side.',
    todo: 'Choose another microphone below, or reconnect this one and choose it.',
    again: 'never',
  },

  // The way to the server.
  offline: {
    title: 'You are offline',
    text: 'This device has no network at the moment.',
    todo: 'Check Wi-Fi or mobile data, then try again.',
    again: 'auto',
  },
  unreachable: {
    title: 'The server does not answer',
    text: 'The request did not get through: the server may be down, or the network in between.',
    todo: 'Check your connection and try again in a moment.',
    again: 'auto',
  },
  bad_gateway: {
    title: 'Something in front of the server answered instead',
    text: 'The answer was not one this page understands, as when a proxy stands in while the server restarts.',
    todo: 'Try again in a moment.',
    again: 'auto',
  },
  request_timeout: {
    title: 'The request took too long',
    text: 'The server stopped waiting for it: the network is very slow, or holds something back.',
    todo: 'Check your connection and try again in a moment.',
    again: 'auto',
  },
  no_route: {
    title: 'No way through for the audio',
    text: 'The server answered, but no audio connection came about. A firewall or a strict network that blocks UDP is the usual cause.',
    todo: 'Try another network, such as a phone hotspot, or switch a VPN off. The person who runs the server can open its UDP ports, or offer a TURN relay.',
    again: 'auto',
  },
  relay_refused: {
    title: 'The relay refused this browser',
    text: ({ detail }) => `The TURN relay that carries the audio answered ${RELAY_ANSWERS[detail] ?? 'with an error'} (${detail}).`,
    todo: ({ detail }) => (detail in RELAY_ANSWERS && detail !== '401' && detail !== '403'
      ? 'Try again in a moment; if it stays so, the relay needs a larger quota.'
      : 'Try again, for fresh credentials. For the server’s operator: its TURN secret or user must be the relay’s own, and both clocks right.'),
    again: 'auto',
  },
  relay_unreachable: {
    title: 'The relay does not answer',
    text: 'The audio has to go through a TURN relay, and none of those that the server names can be reached from here.',
    todo: 'Try another network. For the server’s operator: check the relay’s address and that its ports are open.',
    again: 'auto',
  },
  relay_missing: {
    title: 'There is no relay',
    text: 'This page was asked to send audio through a TURN relay only, and the server names none.',
    todo: 'Open the page without “?relay=1”, or have the server offer a TURN relay.',
    again: 'never',
  },
  peer_lost: {
    title: 'The connection was lost',
    text: 'No audio is getting through any more.',
    todo: 'Check your network.',
    again: 'auto',
  },

  // Who may come in.
  unauthorized: {
    title: ({ detail }) => (detail === 'key' ? 'The key was not accepted' : 'This server wants a key'),
    text: ({ detail }) => (detail === 'key'
      ? 'It is not one of this server’s, or it has expired.'
      : 'Only those who have one may talk here.'),
    todo: 'Enter the key that you were given below. If you came by a link, ask for a new one.',
    again: 'never',
  },
  forbidden: {
    title: 'This key does not open this',
    text: 'It is valid, but not for what this page asks for.',
    todo: 'Use another key, or another “?service=…”, or ask the person who gave it to you.',
    again: 'never',
  },
  host_refused: {
    title: 'This server does not answer to this address',
    text: 'It is for this machine alone, and was asked under another name.',
    todo: 'Open it as http://localhost with its port. For the server’s operator: --public-url.',
    again: 'never',
  },
  origin_refused: {
    title: 'This page may not use that server',
    text: () => `The server does not take requests from pages of ${location.origin}.`,
    todo: 'Open the server’s own page. For the server’s operator: allow this address with --allow-origins.',
    again: 'never',
  },
  too_many_sessions: {
    title: 'Too many conversations from here',
    text: 'The server takes only so many from one address, and yours has them all. People behind the same router count as one.',
    todo: 'End one that runs in another tab or on another device, then try again.',
    again: 'user',
  },

  // What the server says.
  server_full: {
    title: 'All places are taken',
    text: 'The server is talking with as many people as it can.',
    todo: 'A place is free as soon as another caller leaves.',
    again: 'auto',
  },
  too_many_connections: {
    title: 'The server is at its limit',
    text: 'It has as many connections as it may have, and keeps the rest for those who are talking.',
    todo: 'It is free again as soon as another caller leaves.',
    again: 'auto',
  },
  no_port: {
    title: 'The server has no port left',
    text: 'Each conversation needs one for its audio, and all that it may use are taken.',
    todo: 'Try again in a moment. The person who runs the server can give it more with --udp-ports.',
    again: 'auto',
  },
  overloaded: {
    title: 'The server is at its limit',
    text: 'Another conversation would make the running ones stutter, so it takes no more for now.',
    todo: 'Try again shortly.',
    again: 'auto',
  },
  engine_unavailable: {
    title: 'The model is not ready yet',
    text: 'It is loading or restarting. For a large model that takes a minute or two.',
    todo: 'Try again shortly.',
    again: 'auto',
  },
  engine_starting: {
    title: 'A model is starting for you',
    text: 'No conversation needed it for a while, or all its places are taken: another one is on its way.',
    todo: 'It is tried again by itself when it is there.',
    again: 'auto',
  },
  draining: {
    title: 'The server is shutting down',
    text: 'It takes no new conversations; this usually means an update.',
    todo: 'Try again in a minute.',
    again: 'auto',
  },
  server_shutdown: {
    title: 'The server was shut down',
    text: 'It ended every conversation; this usually means an update.',
    todo: 'Try again in a minute.',
    again: 'auto',
  },
  moved: {
    title: 'The conversation goes on at another server',
    text: 'The one that it was at stops; this usually means an update.',
    todo: 'It is connected again by itself.',
    again: 'auto',
  },
  engine_stalled: {
    title: 'The model does not answer',
    text: 'It has been silent for some seconds. The conversation goes on when it answers again.',
    todo: 'Wait a moment.',
    again: 'never',
  },
  engine_failed: {
    title: 'The model stopped working',
    text: 'It failed in mid-conversation, and has forgotten what was said. Another one takes its place.',
    todo: 'Wait a moment: it goes on by itself.',
    again: 'auto',
  },
  left: {
    title: 'You are not in the room any more',
    text: 'You have left it, or you are in it from another place.',
    todo: 'You can join it again.',
    again: 'user',
  },
  rooms_paused: {
    title: 'Rooms are paused for a moment',
    text: 'What they are kept in does not answer, or this room is on its way to another machine. What was said is not lost.',
    todo: 'Wait a moment: it goes on by itself.',
    again: 'auto',
  },
  unsupported_pair: {
    title: 'There is no translation between these languages',
    text: 'What was said comes as it was said.',
    todo: 'Another language may help.',
    again: 'never',
  },
  utterance_too_long: {
    title: 'That was too long to be translated',
    text: 'It was said in one go, and is longer than a translation may be.',
    todo: 'Say it in parts.',
    again: 'never',
  },
  translation_late: {
    title: 'The translation took too long',
    text: 'The server has much to translate just now. What was said comes as it was said.',
    todo: 'Wait a moment.',
    again: 'never',
  },
  translation_failed: {
    title: 'This could not be translated',
    text: 'What was said comes as it was said.',
    todo: 'Saying it in other words may help.',
    again: 'never',
  },
  unknown_session: {
    title: 'The conversation is over',
    text: 'The server does not know it any more: it waited for a while, or it was restarted.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  session_ended: {
    title: 'The conversation is over',
    text: 'The server ended it while you were away.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  resumed_elsewhere: {
    title: 'The conversation goes on elsewhere',
    text: 'It was taken up again by way of another server.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  resume_refused: {
    title: 'There is no way back into the conversation',
    text: 'The server could not tell that it is still you.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  time_limit: {
    title: 'The time is up',
    text: 'The server ends a conversation after a certain time.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  deleted: {
    title: 'The conversation was ended on the server',
    text: 'The person who runs the server, or a program that knows this session, closed it.',
    todo: 'You can start a new one.',
    again: 'user',
  },
  handshake_failed: {
    title: 'No secure connection could be made',
    text: 'The way to the server is open, but this browser and the server found no common ground for encrypting it.',
    todo: 'Try again, or another browser. The server’s log says what failed.',
    again: 'user',
  },
  connect_timeout: {
    title: 'No way through for the audio',
    text: 'The server waited for your audio and none arrived. A firewall or a strict network that blocks UDP is the usual cause.',
    todo: 'Try another network, such as a phone hotspot, or switch a VPN off.',
    again: 'user',
  },
  protocol_abuse: {
    title: 'The server hung up on this page',
    text: 'It received too many messages that it does not accept. That is a fault of this page.',
    todo: 'Reload the page and start again.',
    again: 'user',
  },
  rate_limited: {
    title: 'Too fast',
    text: 'The server received too many requests in a short time.',
    todo: 'Wait a moment before you go on.',
    again: 'auto',
  },
  unknown_service: {
    title: 'This server does not offer that',
    text: 'The address of this page asks for a service that is not here.',
    todo: 'Open the page without “?service=…” to get what the server offers by default.',
    again: 'never',
  },
  no_common_codec: {
    title: 'No common audio format',
    text: 'This browser and the server share none (the server takes Opus, G.722, PCMU and PCMA).',
    todo: 'Use a current Chrome, Edge, Firefox or Safari.',
    again: 'never',
  },
  internal: {
    title: 'The server made a mistake',
    text: 'Something failed on its side. The details are in its log.',
    todo: 'Try again; if it comes back, tell the person who runs the server.',
    again: 'user',
  },

  // Rooms.
  no_rooms: {
    title: 'This server has no rooms',
    text: 'Translated rooms need models that hear and translate, and it has none, or its rooms are switched off.',
    todo: 'For the server’s operator: start it with --rooms on; it then says what is missing.',
    again: 'never',
  },
  unknown_room: {
    title: 'This room is not there any more',
    text: 'A room goes when it has been empty for a minute, or its link was not copied whole.',
    todo: 'Go back to the rooms, and make a new one or choose another.',
    again: 'never',
  },
  unknown_member: {
    title: 'You have left the room',
    text: 'The server has not heard of you for a while, or you left in another tab.',
    todo: 'Join again.',
    again: 'never',
  },
  unknown_language: {
    title: 'This language is not available here',
    text: 'The server neither hears nor translates it.',
    todo: 'Choose another one.',
    again: 'never',
  },
  room_full: {
    title: 'There is no place left',
    text: 'The room has as many members as it may have, or the server as many rooms.',
    todo: 'A place is free as soon as another member leaves.',
    again: 'user',
  },

  // Files.
  file_not_audio: {
    title: 'This file holds no sound that can be read',
    text: ({ serverMessage }) => serverMessage || 'The server found no audio in it, or none in a format that it knows.',
    todo: 'Choose another file: most formats of audio and video will do.',
    again: 'never',
  },
  file_too_large: {
    title: 'This file is too large',
    text: 'It is larger than this server takes.',
    todo: 'Send it in parts, or as compressed audio without the picture. For the server’s operator: --max-upload-mb.',
    again: 'never',
  },
  file_unreadable: {
    title: 'This file cannot be read',
    text: ({ serverMessage }) => serverMessage || 'Decoding it costs more than one file may, or breaks the decoder.',
    todo: 'Convert it with another program, and choose what that makes of it.',
    again: 'never',
  },
  file_too_long: {
    title: 'This file is too long',
    text: ({ serverMessage }) => serverMessage || 'It has more audio than the server takes at once.',
    todo: 'Send it in parts. For the server’s operator: --max-session-s.',
    again: 'never',
  },
  file_in_part: {
    title: 'Not all of this file was heard',
    text: ({ detail }) => detail,
    todo: 'What was heard is below.',
    again: 'never',
  },
  file_not_here: {
    title: 'This server does not transcribe files',
    text: 'It has no model for it, or not any more.',
    todo: 'For the server’s operator: start it with --stt.',
    again: 'never',
  },
  file_cut: {
    title: 'The rest of the transcript did not come',
    text: 'The answer broke off. What has come so far is below.',
    todo: 'Try again; it starts from the beginning.',
    again: 'user',
  },

  // What only a fault of this page, or of something in between, can bring about.
  ...Object.fromEntries([
    'bad_request', 'bad_sdp', 'unsupported_media_type', 'too_large', 'no_audio', 'bad_candidate', 'bad_message',
    'message_too_large', 'precondition_required', 'precondition_failed', 'ice_restart_unsupported', 'not_found',
    'method_not_allowed', 'not_audio',
  ].map((code) => [code, {
    title: 'The server did not understand this page',
    text: `It gave the reason “${code}”. The page may be older than the server, or something in between has changed what it sent.`,
    todo: 'Reload the page, and switch off extensions that touch calls. If that does not help, tell the person who runs the server.',
    again: 'user',
  }])),

  // The page itself.
  gave_up: {
    title: 'Could not reconnect',
    text: 'The page tried again for as long as that made sense.',
    todo: 'Check your network, then try again.',
    again: 'user',
  },
  page_fault: {
    title: 'Something on this page went wrong',
    text: 'It is a fault of the page, not yours.',
    todo: 'Try again; if it comes back, reload the page.',
    again: 'user',
  },
};

const say = (part, failure) => (typeof part === 'function' ? part(failure) : part);

/**
 * What to tell a person about a failure. Plain data.
 * @param {Failure} failure
 * @returns {{code: string, title: string, text: string, todo: string, again: 'auto'|'user'|'never', retryAfterS: number}}
 */
export function explain(failure) {
  const { code, serverMessage, retryAfterS } = failure;
  const known = TABLE[code];
  if (!known) {
    return {
      code,
      title: 'The server refused',
      text: serverMessage || `It gave the reason “${code}” and no more.`,
      todo: failure.retryable ? 'Try again in a moment.' : 'If reloading the page does not help, tell the person who runs the server.',
      again: failure.retryable ? 'auto' : 'user',
      retryAfterS,
    };
  }
  const said = { code, title: say(known.title, failure), text: say(known.text, failure), todo: say(known.todo, failure), again: known.again, retryAfterS };
  if (failure.added) said.text += ` The server adds: ${failure.added}`;
  if (failure.last) {
    const last = explain(failure.last);
    said.text += ` The last attempt: ${last.title.charAt(0).toLowerCase()}${last.title.slice(1)}.`;
    said.todo = last.todo;
    said.retryAfterS = last.retryAfterS;
  }
  return said;
}
