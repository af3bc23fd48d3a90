// A chart of the past ten minutes, drawn as SVG in CSS pixels: lines over a clock's time, with axes.

import { linearScale, logScale } from "./scale.js";

// How much time is shown, and how far apart its marks are, in seconds: the least that has all entries.
const SPANS = [[60, 15], [120, 30], [300, 60], [600, 120]];
const GAP_SECONDS = 3; // Entries further apart than this are not joined.
const EDGE = { left: 64, right: 12, top: 10, bottom: 24 };
const SVG = "http://www.w3.org/2000/svg";

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const exactClock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export class Chart {
  /** `series` has {key, label} for each line. `format` writes a value. Without `isLog`, the first line's area is filled. */
  constructor(figure, series, format, isLog = false) {
    this.isLog = isLog;
    this.series = series;
    this.format = format;
    this.seconds = [];
    this.pointed = null;
    this.svg = make("svg", { role: "img" });
    this.name = make("title");
    this.grid = make("g", { class: "grid" });
    this.area = make("path", { class: "area" });
    this.lines = series.map((_, index) => make("path", { class: `line line-${index}` }));
    this.cursor = make("line", { class: "cursor", y1: EDGE.top });
    this.svg.append(this.name, this.grid, this.area, ...this.lines.toReversed(), this.cursor);
    this.legend = figure.querySelector(".legend");
    this.values = series.map(({ label }, index) => this.legendEntry(label, index));
    this.when = figure.querySelector(".when");
    figure.append(this.svg);
    this.width = this.height = 0;
    [this.span, this.tick] = SPANS[0];
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      this.height = contentRect.height;
      this.draw();
    }).observe(this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  /** Show these entries of the history, oldest first. */
  show(seconds) {
    this.seconds = sinceSetBack(seconds);
    this.draw();
  }

  legendEntry(label, index) {
    const entry = document.createElement("span");
    const [key, value] = [document.createElement("i"), document.createElement("b")];
    key.className = `key key-${index}`;
    key.ariaHidden = "true";
    entry.append(key, `${label} `, value);
    this.legend.append(entry, " ");
    return value;
  }

  get until() {
    return this.seconds.at(-1)?.time_seconds ?? Date.now() / 1000;
  }

  x(time) {
    const width = this.width - EDGE.left - EDGE.right;
    return EDGE.left + (1 - (this.until - time) / this.span) * width;
  }

  y(value) {
    const height = this.height - EDGE.top - EDGE.bottom;
    return EDGE.top + (1 - this.scale.share(value)) * height;
  }

  draw() {
    if (!this.width || !this.height) return;
    const age = this.until - (this.seconds[0]?.time_seconds ?? this.until);
    [this.span, this.tick] = SPANS.find(([span]) => age <= span) ?? SPANS.at(-1);
    this.scale = this.makeScale();
    this.drawGrid();
    this.series.forEach(({ key }, index) => {
      const runs = this.runs(key);
      this.lines[index].setAttribute("d", runs.map(lineOf).join(""));
      if (index === 0 && !this.isLog) this.area.setAttribute("d", runs.map((run) => areaOf(run, this.y(0))).join(""));
    });
    this.drawLegend();
  }

  makeScale() {
    const values = this.seconds.flatMap((each) => this.series.map(({ key }) => each[key]));
    const most = values.reduce((a, b) => Math.max(a, b ?? 0), 0);
    if (!this.isLog || most === 0) return linearScale(most);
    return logScale(values.reduce((a, b) => Math.min(a, b || most), most), most);
  }

  /** The line's points, apart where there is nothing for a while. */
  runs(key) {
    const runs = [];
    let before = -Infinity;
    for (const second of this.seconds) {
      const [time, value] = [second.time_seconds, second[key]];
      if (value === null || time < this.until - this.span) continue;
      if (time - before > GAP_SECONDS) runs.push([]);
      runs.at(-1).push([this.x(time).toFixed(1), this.y(value).toFixed(1)]);
      before = time;
    }
    return runs;
  }

  drawGrid() {
    const marks = [];
    for (const value of this.scale.marks) {
      const y = this.y(value).toFixed(1);
      marks.push(make("line", { x1: EDGE.left, x2: this.width - EDGE.right, y1: y, y2: y }));
      marks.push(text(EDGE.left - 8, Number(y) + 4, "end", value === 0 ? "0" : this.format(value)));
    }
    const floor = this.height - EDGE.bottom;
    const every = this.width < 420 ? 2 * this.tick : this.tick;
    const written = every < 60 ? exactClock : clock;
    const first = Math.ceil((this.until - this.span) / every) * every;
    for (let time = first; time <= this.until; time += every) {
      const x = this.x(time);
      if (x > this.width - 32 || x < EDGE.left) continue;
      marks.push(make("line", { x1: x, x2: x, y1: floor, y2: floor + 4 }));
      marks.push(text(x, this.height - 6, "middle", written.format(time * 1000)));
    }
    this.grid.replaceChildren(...marks);
  }

  point(x) {
    this.pointed = x;
    this.drawLegend();
  }

  drawLegend() {
    const pointed = this.pointed === null ? null : this.nearest(this.pointed);
    const second = pointed ?? this.seconds.at(-1);
    this.cursor.style.display = pointed ? "" : "none";
    if (pointed) {
      const x = this.x(pointed.time_seconds);
      this.cursor.setAttribute("y2", this.height - EDGE.bottom);
      this.cursor.setAttribute("x1", x);
      this.cursor.setAttribute("x2", x);
    }
    this.when.textContent = pointed ? `at ${exactClock.format(pointed.time_seconds * 1000)}` : "";
    this.series.forEach(({ key }, index) => {
      this.values[index].textContent = this.written(second?.[key]);
    });
    if (!pointed) this.name.textContent = this.told(second);
  }

  written(value) {
    return value === null || value === undefined ? "–" : this.format(value);
  }

  /** The chart in words, for whoever does not see it. */
  told(newest) {
    const told = this.series.map(({ key, label }) => {
      const most = this.seconds.reduce((a, each) => Math.max(a, each[key] ?? 0), 0);
      return `${label}: ${this.written(newest?.[key])} now, ${this.format(most)} at most`;
    });
    return `The last ten minutes. ${told.join(". ")}.`;
  }

  nearest(x) {
    let found = null;
    for (const second of this.seconds) {
      const distance = Math.abs(this.x(second.time_seconds) - x);
      if (!found || distance < found.distance) found = { distance, second };
    }
    return found?.second ?? null;
  }
}

/** The entries since the server's clock was last set back: those before it have no place left of the newest. */
export function sinceSetBack(seconds) {
  const goesBack = ({ time_seconds: time }, index) => time < seconds[index - 1]?.time_seconds;
  return seconds.slice(Math.max(seconds.findLastIndex(goesBack), 0));
}

// A run of one point is a dot: a line of no length, with round ends.
const lineOf = (run) => `M${run.map((point) => point.join(" ")).join("L")}h0`;
const areaOf = (run, floor) => `M${run[0][0]} ${floor}L${run.map((point) => point.join(" ")).join("L")}V${floor}Z`;

function make(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function text(x, y, anchor, words) {
  const element = make("text", { x, y, "text-anchor": anchor });
  element.textContent = words;
  return element;
}
