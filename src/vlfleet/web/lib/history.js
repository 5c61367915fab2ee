/** The last ten minutes as this page saw them: columns of numbers by name, kept while the page is open. */

export const SECONDS = 600;
const GAP_SECONDS = 5;

export class History {
  constructor(seconds = SECONDS) {
    this.seconds = seconds;
    this.times = [];
    this.columns = new Map();
  }

  /** One row: a value for each name; null or absent is unknown. A pause is a row of nothing: no line spans it. */
  push(at, row) {
    const last = this.times.at(-1);
    if (last !== undefined && at <= last) return;
    if (last !== undefined && at - last > GAP_SECONDS) this.#add((last + at) / 2, {});
    this.#add(at, row);
    let old = 0;
    while (this.times[old] < at - this.seconds) old += 1;
    if (old === 0) return;
    this.times.splice(0, old);
    for (const [name, column] of this.columns) {
      column.splice(0, old);
      if (column.every((value) => value === null)) this.columns.delete(name);
    }
  }

  /** Rows from before the first: `times`, oldest first, and columns as long, by name. For a page just opened. */
  begin(times, columns) {
    const first = this.times[0] ?? Infinity;
    const newest = Math.min(first, times.at(-1) ?? first);
    const wanted = times.map((at) => at < first && at >= newest - this.seconds);
    const old = (values) =>
      values.filter((_, at) => wanted[at]).map((value) => (Number.isFinite(value) ? value : null));
    const rows = wanted.filter(Boolean).length;
    for (const name of Object.keys(columns)) {
      if (!this.columns.has(name)) this.columns.set(name, new Array(this.times.length).fill(null));
    }
    for (const [name, column] of this.columns)
      column.unshift(...(columns[name] ? old(columns[name]) : new Array(rows).fill(null)));
    this.times.unshift(...times.filter((_, at) => wanted[at]));
  }

  /** The values of a name, as long as `times`. */
  column(name) {
    return this.columns.get(name) ?? this.times.map(() => null);
  }

  #add(at, row) {
    this.times.push(at);
    for (const name of Object.keys(row)) {
      if (!this.columns.has(name)) this.columns.set(name, new Array(this.times.length - 1).fill(null));
    }
    for (const [name, column] of this.columns) column.push(Number.isFinite(row[name]) ? row[name] : null);
  }
}
