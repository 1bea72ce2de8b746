// Owns the HTTP part of docs/protocol.md: config, offer, delete. Every failure leaves here as a Failure.

import { Failure } from './errors.js';

const REQUEST_TIMEOUT_MS = 10_000;
const RETRY_AFTER_MAX_S = 60;

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), ...options });
  } catch (cause) {
    throw new Failure(navigator.onLine === false ? 'offline' : 'unreachable', { cause });
  }
  let body = null;
  try {
    body = response.status === 204 ? null : await response.json();
  } catch (cause) {
    throw new Failure('bad_gateway', { cause });
  }
  if (response.ok) return body;
  const error = body?.error;
  if (typeof error?.code !== 'string') throw new Failure('bad_gateway');
  throw new Failure(error.code, {
    serverMessage: typeof error.message === 'string' ? error.message : '',
    retryable: error.retryable === true,
    retryAfterS: retryAfterS(response.headers.get('Retry-After')),
  });
}

function retryAfterS(header) {
  const seconds = Number.parseInt(header ?? '', 10);
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), RETRY_AFTER_MAX_S) : 0;
}

/** `GET /api/config`. Asked again for each connection: TURN credentials in it expire. */
export async function fetchConfig() {
  const config = await request('/api/config');
  if (!Array.isArray(config?.services)) throw new Failure('bad_gateway');
  return config;
}

/**
 * `POST /api/offer`.
 * @param {{sdp: string, type: 'offer', service?: string, options?: object}} offer
 * @returns {Promise<{sdp: string, type: 'answer', session: string}>}
 */
export function postOffer(offer) {
  return request('/api/offer', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(offer),
  });
}

/** `DELETE /api/sessions/{id}`, as a backstop: it may outlive the page, and it never fails. */
export async function deleteSession(id) {
  try {
    await fetch(`/api/sessions/${encodeURIComponent(id)}`, {
      method: 'DELETE',
      keepalive: true,
      signal: AbortSignal.timeout(2_000),
    });
  } catch {
    // The server notices by itself that the peer is gone.
  }
}
