// The page: takes what the server tells, and shows it, once a frame at most.

import { Chart } from "./chart.js";
import { Feed } from "./feed.js";
import { exact, lasted, short, took } from "./figures.js";
import { Letters } from "./letters.js";
import { say, showNotices, showStatus } from "./panels.js";
import { judge } from "./standing.js";

const SECONDS_MAX = 600;
const SPOKEN_SECONDS = 10; // Between two sentences for a screen reader, at least.
const COUNT_SPOKEN_SECONDS = 60; // Between two that say how many votes there are.

const byId = (id) => document.getElementById(id);

const told = { status: null, hasTotals: true, sequence: null, history: [], isBack: false, isPartial: true };
const heard = { isLive: false, silentSeconds: 0 };
const spoken = { at: -Infinity, words: "Connecting" };
const letters = new Letters(byId("letters"));
const charts = [
  new Chart(byId("rate-chart"), [{ key: "events_per_second", label: "now" }], short),
  new Chart(
    byId("commit-chart"),
    [
      { key: "commit_p50_seconds", label: "median" },
      { key: "commit_p99_seconds", label: "99 %" },
      { key: "commit_max_seconds", label: "max" },
    ],
    took,
    true,
  ),
];

const awaited = new Set();

/** Draw a part of the page in the next frame. */
function redraw(...parts) {
  if (awaited.size === 0) {
    requestAnimationFrame(() => {
      const now = [...awaited];
      awaited.clear();
      for (const part of now) part();
    });
  }
  for (const part of parts) awaited.add(part);
}

function drawTotals() {
  const { hasTotals, sequence } = told;
  letters.draw();
  const count = letters.totals.size;
  document.body.classList.toggle("many", letters.isMany);
  document.body.classList.toggle("no-letters", !hasTotals);
  byId("letters").hidden = !count;
  byId("orders").hidden = count < 2;
  byId("empty").hidden = !hasTotals || sequence !== 0;
  byId("no-totals").hidden = hasTotals;
  say("letters-count", count ? `${count} ${count === 1 ? "letter" : "letters"}` : "");
  say("sequence", sequence === null ? "–" : exact(sequence));
  say("sum", hasTotals && count ? `all totals together: ${exact(letters.sum)}` : "");
}

function drawStatus() {
  const { status, hasTotals } = told;
  if (!status) return;
  showStatus(status, hasTotals);
  const things = hasTotals ? "Votes" : "Events";
  say("application", hasTotals ? "" : status.application);
  say("sequence-label", `${things} counted`);
  say("rate-label", `${things} per second`);
  say("rate-chart-title", `${things} per second`);
  showCommands(status);
}

function drawHistory() {
  const { history } = told;
  const newest = history.at(-1);
  const committed = history.findLast((each) => each.commits > 0);
  const peak = history.reduce((most, each) => Math.max(most, each.events_per_second), 0);
  say("rate", newest ? exact(newest.events_per_second) : "–");
  say("peak", newest ? `peak ${exact(peak)} in ${lasted(Math.max(history.length, 1))}` : "");
  say("commit", committed ? took(committed.commit_p50_seconds) : "–");
  const more = () => `99 %: ${took(committed.commit_p99_seconds)} · max: ${took(committed.commit_max_seconds)}`;
  say("commit-more", committed ? more() : "no commit yet");
  for (const chart of charts) chart.show(history);
}

function showCommands(status) {
  const source = status.sources.find((each) => each.kind === "in");
  const address = (source?.addresses[0] ?? "HOST:PORT").replace(/^(0\.0\.0\.0|\[::\]):/, `${location.hostname}:`);
  say("first-vote", `echo "a 1" | alphabet send --to ${address} --format lines -`);
  say("first-thousand", `alphabet send --to ${address} --random --messages 1000 --rate 100`);
}

// A hidden page draws no frames, but its title and icon are seen: they do not wait for one.
function stand() {
  const judged = judge(told.status, heard.isLive, heard.silentSeconds, told.isBack);
  const { level, word, detail, notices } = judged;
  const rate = told.history.at(-1)?.events_per_second ?? 0;
  const title = level === "ok" ? `${short(Math.round(rate))}/s` : word;
  if (document.body.dataset.level !== level || byId("icon").dataset.level !== level) {
    document.body.dataset.level = byId("badge").dataset.level = level;
    byId("icon").dataset.level = level;
    byId("icon").href = icon(level);
  }
  const fullTitle = `${title} · Alphabet`;
  if (document.title !== fullTitle) document.title = fullTitle;
  say("word", word);
  say("detail", detail);
  showNotices(notices);
  speak(judged);
}

function speak({ word, notices }) {
  const now = performance.now() / 1000;
  const words = [word, ...notices.map((each) => each.title)].join(". ");
  const isNews = words !== spoken.words;
  if (now - spoken.at < (isNews ? SPOKEN_SECONDS : COUNT_SPOKEN_SECONDS) || told.sequence === null) return;
  spoken.at = now;
  spoken.words = words;
  const counted = told.hasTotals ? "votes" : "events";
  say("spoken", `${words}. ${exact(told.sequence)} ${counted} counted.`);
}

function icon(level) {
  const colour = { ok: "#2da44e", warn: "#bf8700", bad: "#cf222e" }[level] ?? "#808890";
  const bars = '<path d="M4 18h6v10H4zM13 4h6v24h-6zM22 12h6v16h-6z"/>';
  return `data:image/svg+xml,${encodeURIComponent(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="${colour}">${bars}</svg>`)}`;
}

function takeTotals(sequence, totals, areAll) {
  told.sequence = sequence;
  if (areAll) letters.clear();
  letters.take(totals);
}

const handlers = {
  snapshot({ sequence, totals, has_totals: hasTotals, status, history }) {
    told.isBack = told.status !== null && (told.isBack || told.status.boot_id !== status.boot_id);
    Object.assign(told, { status, hasTotals, history });
    // Totals that are not there yet will come all at once. What was shown before stays until then.
    told.isPartial = hasTotals && totals === null;
    if (!told.isPartial) takeTotals(hasTotals ? sequence : status.sequence, totals ?? {}, true);
    redraw(drawTotals, drawStatus, drawHistory);
  },
  totals({ sequence, totals }) {
    takeTotals(sequence, totals, told.isPartial);
    told.isPartial = false;
    redraw(drawTotals);
  },
  second({ second, status }) {
    told.status = status;
    told.history.push(second);
    told.history.splice(0, told.history.length - SECONDS_MAX);
    if (!told.hasTotals) told.sequence = status.sequence;
    redraw(drawTotals, drawStatus, drawHistory);
  },
  stood(isLive, silentSeconds) {
    Object.assign(heard, { isLive, silentSeconds });
    stand();
  },
};

for (const button of byId("orders").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    letters.order = button.dataset.order;
    for (const each of byId("orders").querySelectorAll("button")) each.ariaPressed = String(each === button);
    redraw(drawTotals);
  });
}
new Feed("/events", handlers);
