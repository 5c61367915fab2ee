/** Conversations and their pictures in the browser's own database; in memory where it has none for this page. */

const NAME = "vlfleet";
const STORES = ["conversations", "pictures"];

export class Store {
  #database = null;
  #memory = Object.fromEntries(STORES.map((name) => [name, new Map()]));

  /** Whether what is kept outlives this tab. */
  get lasts() {
    return this.#database !== null;
  }

  /** Opens the database. */
  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => STORES.forEach((name) => request.result.createObjectStore(name, { keyPath: "id" }));
      this.#database = await settled(request);
    } catch {
      this.#database = null; // private windows of some browsers
    }
    return this;
  }

  async all(store) {
    if (!this.#database) return [...this.#memory[store].values()];
    return settled(this.#database.transaction(store).objectStore(store).getAll());
  }

  async get(store, id) {
    if (!this.#database) return this.#memory[store].get(id);
    return settled(this.#database.transaction(store).objectStore(store).get(id));
  }

  async put(store, record) {
    if (!this.#database) this.#memory[store].set(record.id, record);
    else await settled(this.#database.transaction(store, "readwrite").objectStore(store).put(record));
  }

  async remove(store, ids) {
    if (!this.#database) return ids.forEach((id) => this.#memory[store].delete(id));
    const records = this.#database.transaction(store, "readwrite").objectStore(store);
    await Promise.all(ids.map((id) => settled(records.delete(id))));
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("the database is in use"));
  });
}

/** A name that nothing else has, also where the page has no secure context. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
