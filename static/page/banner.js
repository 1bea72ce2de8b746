// Owns the message at the top: what failed, what to do, and the button that tries again, with its countdown.

export class Banner {
  #parts;
  #home;
  #onWaiting;
  #retry = null;
  #timer = 0;
  #code = null;

  /**
   * @param {{box: HTMLElement, title: HTMLElement, text: HTMLElement, todo: HTMLElement, retry: HTMLButtonElement,
   *          dismiss: HTMLButtonElement}} parts
   * @param {HTMLElement} home  has the keyboard's focus once the button that was pressed is gone
   * @param {(waiting: boolean) => void} onWaiting  while the server has asked not to be asked
   */
  constructor(parts, home, onWaiting) {
    this.#parts = parts;
    this.#home = home;
    this.#onWaiting = onWaiting;
    parts.retry.addEventListener('click', () => {
      const retry = this.#retry;
      this.hide();
      this.#home.focus();
      retry?.();
    });
    parts.dismiss.addEventListener('click', () => {
      this.hide();
      this.#home.focus();
    });
  }

  get code() {
    return this.#code;
  }

  /** @param {ReturnType<import('../connection/errors.js').explain>} said @param {(() => void)|null} retry */
  show(said, retry = null) {
    const { box, title, text, todo, retry: button } = this.#parts;
    this.#stopWaiting();
    this.#code = said.code;
    this.#retry = said.again === 'never' ? null : retry;
    title.textContent = said.title;
    text.textContent = said.text;
    todo.textContent = said.todo;
    button.hidden = !this.#retry;
    box.dataset.code = said.code;
    box.hidden = false;
    box.scrollIntoView({ block: 'nearest' });
    if (this.#retry && said.retryAfterS > 0) this.#wait(said.retryAfterS);
  }

  hide() {
    this.#stopWaiting();
    this.#code = null;
    this.#retry = null;
    this.#parts.box.hidden = true;
  }

  #wait(seconds) {
    const { retry } = this.#parts;
    const until_ms = performance.now() + seconds * 1000;
    const tick = () => {
      const left_s = Math.ceil((until_ms - performance.now()) / 1000);
      if (left_s <= 0) this.#stopWaiting();
      else retry.textContent = `Try again in ${left_s} s`;
    };
    retry.disabled = true;
    this.#onWaiting(true);
    this.#timer = setInterval(tick, 250);
    tick();
  }

  #stopWaiting() {
    clearInterval(this.#timer);
    this.#parts.retry.disabled = false;
    this.#parts.retry.textContent = 'Try again';
    this.#onWaiting(false);
  }
}
