// The totals as bars, one for each letter, in the order that was chosen.
//
// Each letter's elements are made once. A change writes what is other than before, and moves what is elsewhere.

import { exact, letterName } from "./figures.js";

const MANY = 40; // More letters than this are shown as a grid of cells.
const PARTS = 10_000n;

export class Letters {
  constructor(list) {
    this.list = list;
    this.order = "letter";
    this.rows = new Map();
    this.totals = new Map();
    this.sum = 0n;
    this.digits = 0;
  }

  /** Forget all letters: the server is another. */
  clear() {
    this.list.replaceChildren();
    this.rows.clear();
    this.totals.clear();
    this.sum = 0n;
  }

  /** Take totals that are new or have changed, as strings; nothing is drawn yet. */
  take(changed) {
    for (const [letter, text] of Object.entries(changed)) {
      const total = BigInt(text);
      this.sum += total - (this.totals.get(letter) ?? 0n);
      this.totals.set(letter, total);
    }
  }

  get isMany() {
    return this.totals.size > MANY;
  }

  draw() {
    let most = 1n;
    for (const total of this.totals.values()) if (total > most) most = total;
    for (const [letter, total] of this.totals) {
      let row = this.rows.get(letter);
      if (!row) this.rows.set(letter, (row = makeRow(letter)));
      if (row.total !== total) {
        row.total = total;
        row.number.data = exact(total);
      }
      write(row, "length", Number((total * PARTS) / most) / Number(PARTS), (length) => {
        row.bar.style.transform = `scaleX(${length})`;
      });
      write(row, "share", this.share(total), (share) => {
        row.part.data = share;
      });
    }
    // How wide the widest cell is, so that all are as wide and none is cut.
    write(this, "digits", exact(most).length, (digits) => this.list.style.setProperty("--digits", digits));
    this.place();
  }

  share(total) {
    if (this.sum === 0n) return "0.0 %";
    return (Number((total * 1000n) / this.sum) / 10).toFixed(1) + " %";
  }

  place() {
    let next = this.list.firstElementChild;
    for (const letter of this.ordered()) {
      const { item } = this.rows.get(letter);
      if (item === next) next = next.nextElementSibling;
      else this.list.insertBefore(item, next);
    }
  }

  ordered() {
    const letters = [...this.totals.keys()].sort();
    if (this.order === "total") {
      // The sort is stable: equal totals stay in the order of their letters.
      letters.sort((a, b) => {
        const [first, second] = [this.totals.get(a), this.totals.get(b)];
        return first === second ? 0 : first < second ? 1 : -1;
      });
    }
    return letters;
  }
}

function write(row, name, value, show) {
  if (row[name] === value) return;
  row[name] = value;
  show(value);
}

function makeRow(letter) {
  const item = document.createElement("li");
  const [name, track, bar, total, share] = ["b", "i", "i", "span", "small"].map((each) => document.createElement(each));
  name.textContent = letterName(letter);
  track.className = "track";
  track.ariaHidden = "true";
  track.append(bar);
  total.className = "total";
  const [number, part] = [document.createTextNode(""), document.createTextNode("")];
  total.append(number);
  share.append(part);
  item.append(name, " ", track, total, " ", share);
  return { item, bar, number, part, total: null, length: null, share: null };
}
