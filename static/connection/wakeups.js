// Owns the list of events after which a path may be another than before, or none: the network went or came, the
// device woke, the page is looked at again; and a wait that they cut short.

/**
 * @param {(what: string) => void} act
 * @param {AbortSignal} signal  ends it
 */
export function onWakeup(act, signal) {
  const listen = (target, type, when = () => true) => target?.addEventListener?.(type, () => {
    if (when()) act(type);
  }, { signal });
  listen(window, 'online');
  listen(window, 'offline');
  listen(window, 'pageshow');
  listen(document, 'resume');
  listen(document, 'visibilitychange', () => document.visibilityState === 'visible');
  // It changes with every estimate of the bandwidth; what counts is the kind of network, where the browser tells it.
  let kind = navigator.connection?.type;
  listen(navigator.connection, 'change', () => {
    const before = kind;
    kind = navigator.connection.type;
    return kind === undefined || kind !== before;
  });
}

/** Resolves after `ms`, when something suggests that the network is back, or when `signal` aborts: whichever is first. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      over.abort();
      resolve();
    };
    const timer = setTimeout(done, ms);
    onWakeup((what) => { if (what !== 'offline') done(); }, over.signal);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
}
