/** One stream of glances for all who look, none while nobody does or the tab is hidden. */

const PATH = "/live?seconds=1";

export class Live {
  #api;
  #followers = new Set();
  #stop = null;
  #last = null;
  #state = ["waiting", null];

  constructor(api) {
    this.#api = api;
    document.addEventListener("visibilitychange", () => this.#settle());
  }

  /**
   * Calls `callback(glance)` with the latest at once, where there is one that is not old, and with each that comes.
   * `onState(state, error)` hears "waiting", "live", "lost" (it comes back by itself) and "paused". Returns what stops.
   */
  follow(callback, onState = () => {}) {
    const follower = { callback, onState };
    this.#followers.add(follower);
    if (this.#last && this.#stop) callback(this.#last);
    onState(...this.#state);
    this.#settle();
    return () => {
      this.#followers.delete(follower);
      this.#settle();
    };
  }

  #settle() {
    const wanted = this.#followers.size > 0 && !document.hidden;
    if (wanted && !this.#stop) {
      this.#stop = this.#api.follow(PATH, (glance) => this.#take(glance), (...state) => this.#tell(...state));
    } else if (!wanted && this.#stop) {
      this.#stop();
      this.#stop = null;
      this.#tell("paused", null);
    }
  }

  #take(glance) {
    this.#last = glance;
    for (const { callback } of [...this.#followers]) callback(glance);
  }

  #tell(state, error = null) {
    this.#state = [state, error];
    for (const { onState } of [...this.#followers]) onState(state, error);
  }
}
