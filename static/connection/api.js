// Owns the HTTP part of docs/protocol.md: config, offer, candidates, look and delete; and how any request is made. Every
// failure leaves here as a Failure.

import { authorization } from './auth.js';
import { Failure } from './errors.js';

const REQUEST_TIMEOUT_MS = 10_000;
const LOOK_TIMEOUT_MS = 3_000;
const RETRY_AFTER_MAX_S = 60;

const sessionPath = (id) => `api/sessions/${encodeURIComponent(id)}`;

/** Where the server has `path`: beside this page, which a proxy may show under a path of its own. */
export const addressOf = (path) => new URL(path, document.baseURI);

const json = (response) => response.json();

/**
 * One request to `path`, beside this page. `timeout_ms` and `signal` hold until `read` has read the answer.
 * @returns {Promise<{body: any, etag: string|null}>} `body`: what `read` makes of the answer; null of one that has none
 */
export async function request(path, { headers = {}, timeout_ms = REQUEST_TIMEOUT_MS, signal, read = json, ...options } = {}) {
  const timer = new AbortController();
  const abort = () => timer.abort();
  const timeout = setTimeout(abort, timeout_ms);
  signal?.addEventListener('abort', abort);
  try {
    const all = { ...headers, ...authorization() };
    const response = await fetch(addressOf(path), { cache: 'no-store', ...options, headers: all, signal: timer.signal })
      .catch((cause) => { throw new Failure(navigator.onLine === false ? 'offline' : 'unreachable', { cause }); });
    const body = response.status === 204 ? null
      : await (response.ok ? read : json)(response).catch((cause) => { throw new Failure('bad_gateway', { cause }); });
    if (!response.ok) throw refusal(response, body, 'Authorization' in all);
    return { body, etag: response.headers.get('ETag') };
  } finally {
    clearTimeout(timeout);
    signal?.removeEventListener('abort', abort);
  }
}

/** The Failure that an error's body and headers tell of. @param {{headers: {get: (name: string) => string|null}}} response */
export function refusal(response, body, withKey) {
  const error = body?.error;
  if (typeof error?.code !== 'string') return new Failure('bad_gateway');
  return new Failure(error.code, {
    serverMessage: typeof error.message === 'string' ? error.message : '',
    retryable: error.retryable === true,
    retryAfterS: retryAfterS(response.headers.get('Retry-After')),
    detail: withKey ? 'key' : '',
  });
}

function retryAfterS(header) {
  const seconds = Number.parseInt(header ?? '', 10);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), RETRY_AFTER_MAX_S) : 0;
}

/** `GET /api/config`. Asked again for each connection: TURN credentials in it expire. */
export async function fetchConfig() {
  const { body } = await request('api/config');
  if (!Array.isArray(body?.services)) throw new Failure('bad_gateway');
  return body;
}

/**
 * `POST /api/offer`.
 * @param {{sdp: string, type: 'offer', service?: string, options?: object, resume?: object}} offer
 * @returns {Promise<{sdp: string, session: string, resume?: {token: string, grace_s: number}, etag: string|null}>}
 */
export async function postOffer(offer, timeout_ms = REQUEST_TIMEOUT_MS) {
  const { body, etag } = await request('api/offer', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(offer),
    timeout_ms,
  });
  return { ...body, etag };
}

/** `PATCH /api/sessions/{id}`. @param {{candidates: object[], complete: boolean}} news */
export async function patchSession(id, etag, news, signal) {
  await request(sessionPath(id), {
    method: 'PATCH',
    headers: { 'Content-Type': 'application/json', ...(etag && { 'If-Match': etag }) },
    body: JSON.stringify(news),
    signal,
  });
}

/** Why a session has ended, in the server's words; '' where it has not, or where the server does not tell. */
export async function whyEnded(id) {
  try {
    await request(sessionPath(id), { timeout_ms: LOOK_TIMEOUT_MS });
    return '';
  } catch (failure) {
    return failure.code === 'session_ended' ? failure.serverMessage : '';
  }
}

/** Whether the server answers, and has no such session: the process that had it is gone. */
export async function isUnknown(id) {
  try {
    await request(sessionPath(id), { timeout_ms: LOOK_TIMEOUT_MS });
    return false;
  } catch (failure) {
    return failure.code === 'unknown_session';
  }
}

/** `DELETE /api/sessions/{id}`, as a backstop: it may outlive the page, and it never fails. */
export async function deleteSession(id) {
  try {
    await fetch(addressOf(sessionPath(id)), {
      method: 'DELETE',
      headers: authorization(),
      keepalive: true,
      signal: AbortSignal.timeout(2_000),
    });
  } catch {
    // The server notices by itself that the peer is gone.
  }
}
