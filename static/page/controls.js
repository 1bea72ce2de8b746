// Owns how controls behave on every page: found by their id, allowed or not, a list of devices, a button that copies. It
// knows no particular page.

const DONE_MS = 2_000;

export const byId = (id) => document.getElementById(id);

/** Unlike `disabled`, this leaves the keyboard's focus where it is. */
export const allow = (button, allowed) => button.setAttribute('aria-disabled', String(!allowed));

export const whenAllowed = (button, act) => button.addEventListener('click', () => {
  if (button.getAttribute('aria-disabled') !== 'true') act();
});

/** Whether a key that is pressed there belongs to what has the focus: it is written into, or chosen with. */
export const isField = (target) => target.closest?.('input, select, textarea, [contenteditable]') != null;

/** Where new lines come at the end of a box, whether the reader has the end before them. */
const NEAR_THE_END_PX = 48;
export const isAtEnd = ({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < NEAR_THE_END_PX;

/** After the first entry, which is the system's choice, and is taken for what is not there. */
export function fill(select, devices, chosen) {
  const [system] = select.options;
  select.replaceChildren(system, ...devices.map(({ id, label }) => new Option(label, id)));
  select.value = devices.some(({ id }) => id === chosen) ? chosen : '';
}

/** @param {HTMLButtonElement} button @param {HTMLElement} source  whose text, or value, is copied */
export function copyButton(button, source) {
  const label = button.textContent;
  let timer = 0;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(source.value ?? source.textContent);
      button.textContent = 'Copied';
    } catch {
      // No clipboard on an insecure origin: select it, so that the keyboard can copy it.
      if (source.select) source.select();
      else getSelection().selectAllChildren(source);
      button.textContent = 'Selected';
    }
    clearTimeout(timer);
    timer = setTimeout(() => { button.textContent = label; }, DONE_MS);
  });
}
