// Owns the key, or the token, that a server may want: where it comes from, and how long it is kept. It goes to this
// server and into this tab's storage, and nowhere else.

const STORAGE_KEY = 'voice.key';
// What may stand in a header (RFC 6750, section 2.1, is narrower; what is not a token is the server's to refuse).
const SENDABLE = /^[\x21-\x7e]{1,8192}$/;

let held = null;

function stored() {
  try {
    return sessionStorage.getItem(STORAGE_KEY);
  } catch {
    return null;
  }
}

/** The key in use, '' when there is none. */
export function key() {
  held ??= stored() ?? '';
  return held;
}

/** @returns {boolean} whether this can be a key at all */
export function useKey(text) {
  const trimmed = text.trim();
  if (!SENDABLE.test(trimmed)) return false;
  held = trimmed;
  try {
    sessionStorage.setItem(STORAGE_KEY, trimmed);
  } catch {
    // Storage may be forbidden: it is kept until the page is reloaded.
  }
  return true;
}

export function forgetKey() {
  held = '';
  try {
    sessionStorage.removeItem(STORAGE_KEY);
  } catch {
    // There was none.
  }
}

/**
 * Takes the key out of `#token=…`, and out of sight: an address is copied, photographed and kept in histories. What else
 * stands there stays.
 */
export function takeKeyFromAddress() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get('token');
  if (token === null) return;
  fragment.delete('token');
  const rest = fragment.size ? `#${fragment}` : '';
  history.replaceState(history.state, '', location.pathname + location.search + rest);
  useKey(token);
}

/** Headers for a request. */
export function authorization() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}
